"""Token counts in every dialect's shape."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.dialects.usage import Usage, usage_in_head, usage_of

NAMES = ["usage", "response", "message", "delta", "details", "meta", "meta_info", "metrics", "tokens", "prompt_tokens",
         "input_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens", "queue_time_ms", "billed_units", "timings",
         "cache_n", "prompt_n", "predicted_n"]


@pytest.mark.parametrize(("payload", "usage"), [
    pytest.param({"usage": {"prompt_tokens": 10, "total_tokens": 16, "completion_tokens": 6,
                            "prompt_tokens_details": {"cached_tokens": 4},
                            "completion_tokens_details": {"reasoning_tokens": 2}},
                  "metrics": {"queue_time_ms": 0.5}}, Usage(10, 6, 4, 2, 500_000), id="openai chat, vllm metrics"),
    pytest.param({"object": "list", "usage": {"prompt_tokens": 7, "total_tokens": 7}}, Usage(7), id="embeddings"),
    pytest.param({"type": "response.completed", "response": {
        "usage": {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 1}, "output_tokens": 3,
                  "output_tokens_details": {"reasoning_tokens": 0}}, "metrics": {"queue_time_ms": 2}}},
        Usage(9, 3, 1, 0, 2_000_000), id="openai responses stream"),
    pytest.param({"type": "response.done", "response": {
        "usage": {"input_tokens": 9, "input_token_details": {"cached_tokens": 1}, "output_tokens": 3,
                  "output_token_details": {"reasoning_tokens": 2}}}}, Usage(9, 3, 1, 2), id="openai realtime"),
    pytest.param({"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1}}},
                 Usage(5, 1), id="anthropic start"),
    pytest.param({"type": "message_delta", "usage": {
        "input_tokens": 5, "output_tokens": 8, "cache_read_input_tokens": 16, "cache_creation_input_tokens": 32}},
                 Usage(53, 8, 16), id="anthropic delta: the prompt is the sum of three"),
    pytest.param({"generated_text": "x", "details": {"generated_tokens": 4, "input_length": 6}}, Usage(6, 4), id="tgi"),
    pytest.param({"text": "x", "meta_info": {"prompt_tokens": 6, "completion_tokens": 4, "cached_tokens": 2}},
                 Usage(6, 4, 2), id="sglang"),
    pytest.param({"text": "x", "meta_info": {"prompt_tokens": 6, "completion_tokens": 4, "reasoning_tokens": 3, "queue_time": 0.25}},
                 Usage(6, 4, None, 3, 250_000_000), id="sglang with metrics"),
    pytest.param({"usage": {"prompt_tokens": 6, "completion_tokens": 4, "prompt_tokens_details": None, "reasoning_tokens": 3}},
                 Usage(6, 4, None, 3), id="sglang's chat"),
    pytest.param({"choices": [], "timings": {"cache_n": 3, "prompt_n": 1, "prompt_ms": 94.5, "predicted_n": 5}},
                 Usage(4, 5, 3), id="llama.cpp, usage not asked"),
    pytest.param({"usage": {"prompt_tokens": 4, "completion_tokens": 10}, "timings": {"cache_n": 3, "prompt_n": 1, "predicted_n": 5}},
                 Usage(4, 10), id="llama.cpp, usage asked"),
    pytest.param({"choices": [{}, {}], "usage": {"prompt_tokens": 4, "completion_tokens": 5}, "timings": {}},
                 Usage(4), id="llama.cpp, two choices: its count is that of one"),
    pytest.param({"usage": {"tokens": {"input_tokens": 6.0, "output_tokens": 4.0}, "cached_tokens": 2.0}},
                 Usage(6, 4, 2), id="cohere chat"),
    pytest.param({"meta": {"billed_units": {"input_tokens": 6}}}, Usage(6), id="cohere embed"),
    pytest.param({"usage": {"type": "tokens", "input_tokens": 14, "output_tokens": 45}}, Usage(14, 45), id="audio"),
    pytest.param({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, Usage(0, 0), id="zero is a count"),
])
def test_every_dialect_is_read(payload, usage):
    """Each shape gives its counts, and None for what it does not say."""
    assert usage_of(payload) == usage


@pytest.mark.parametrize("payload", [
    None, [], "x", 1, {}, {"usage": None}, {"usage": {}}, {"usage": []}, {"response": {"usage": None}},
    {"usage": {"type": "duration", "seconds": 3}}, {"usage": {"prompt_tokens": -1, "completion_tokens": "6"}},
    {"usage": {"prompt_tokens": True, "completion_tokens": 1.5}}, {"metrics": {"queue_time_ms": float("inf")}},
    {"usage": {"prompt_tokens": 1e30, "completion_tokens": float("nan")}}, {"usage": {"completion_tokens": 2**40 + 1}},
    {"usage": {"completion_tokens": float("inf")}}, {"metrics": {"queue_time_ms": 1e308}},
    {"metrics": {"queue_time_ms": 2**62 / 1e6 + 1}}, {"timings": {"prompt_n": 1, "predicted_n": 5}},
])
def test_what_is_not_a_count_is_unknown(payload):
    """No usage, or nonsense in its place, is None, never 0."""
    assert usage_of(payload) is None


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner)))
def test_garbage_does_not_raise(payload):
    """Any JSON gives counts that are whole and not negative, or none."""
    usage = usage_of(payload)
    assert usage is None or all(type(count) is int and count >= 0 for count in
                                (usage.input_tokens, usage.output_tokens, usage.queue_ns) if count is not None)


def test_the_largest_amounts_are_whole_and_fit_64_bits():
    """2**40 tokens and 2**62 ns of waiting are still amounts; the next larger ones are tested to be none."""
    usage = usage_of({"usage": {"completion_tokens": 2.0**40}, "metrics": {"queue_time_ms": 2**62 // 10**6}})
    assert usage.output_tokens == 2**40
    assert 2**61 < usage.queue_ns <= 2**62


def test_later_counts_replace_earlier_ones_only_where_they_are_known():
    """What a stream's start knew stays, what its end knows wins, an explicit zero too."""
    assert Usage(5, 1, None, None, 7).updated(Usage(None, 0, 2)) == Usage(5, 0, 2, None, 7)
    assert Usage(5).updated(None) == Usage(5)


HEAD = [(b"Content-Type", b"application/json"), (b"x-compute-type", b"1-cpu"), (b"x-queue-time", b"12"), (b"X-Prompt-Tokens", b"7"),
        (b"x-generated-tokens", b"40")]


@pytest.mark.parametrize(("head", "usage"), [
    (HEAD, Usage(7, 40, queue_ns=12_000_000)), (HEAD[:3], Usage(queue_ns=12_000_000)), (HEAD[:2], None), ([], None),
    ([(b"x-prompt-tokens", b"-7"), (b"x-generated-tokens", b"7.5"), (b"x-queue-time", b"")], None),
    ([(b"x-prompt-tokens", b"9" * 5000), (b"x-generated-tokens", b"9" * 19), (b"x-queue-time", b"0")], Usage(queue_ns=0)),
])
def test_tgi_tells_in_its_head(head, usage):
    """What is a number there, within reason."""
    assert usage_in_head(head) == usage


@given(st.lists(st.tuples(st.sampled_from([b"x-prompt-tokens", b"x-generated-tokens", b"X-Queue-Time", b""]), st.binary(max_size=30))))
def test_no_head_is_too_strange(head):
    """It is read, or it is not."""
    usage_in_head(head)
