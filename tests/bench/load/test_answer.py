"""A chunk with content is one that adds something to the answer; roles, empty chunks, comments and counts are none."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.load.answer import StreamAnswer, WholeAnswer
from perjoule.sidecar.dialects.endpoints import Dialect
from perjoule.sidecar.dialects.payload import has_output

DONE = b"data: [DONE]\n\n"


def event(payload, dumps=orjson.dumps):
    return b"data: " + dumps(payload) + b"\n\n"


def delta(**of):
    return {"choices": [{"index": 0, "delta": of, "finish_reason": None}], "usage": None}


def read(*events, dialect=Dialect.CHAT):
    answer = StreamAnswer(dialect)
    for at, data in enumerate(events):
        answer.feed(data, at)
    return answer, answer.finish(len(events))


@pytest.mark.parametrize("payload", [
    delta(content="a"), delta(content=" "), delta(role="assistant", content="a"), delta(reasoning_content="hm"), delta(reasoning="hm"),
    delta(tool_calls=[{"index": 0, "function": {"name": "f"}}]), delta(content='"content":""'), delta(content="\\"), delta(content='"'),
    {"choices": [{"index": 0, "text": "\n", "finish_reason": None}]}, {"choices": [{"index": 0, "text": "", "token_ids": [7]}]},
    {"choices": [{"delta": {"content": "last"}, "finish_reason": "stop"}]}, {"token": {"text": "x"}, "generated_text": None},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
    {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{"}}])
@pytest.mark.parametrize("spaced", [False, True])
def test_content_is_seen(payload, spaced):
    """By its bytes, compact or with spaces as Python's json writes them; the parsed payload agrees."""
    data = event(payload, (lambda it: __import__("json").dumps(it).encode()) if spaced else orjson.dumps)
    assert has_output(payload)
    assert list(read(data)[0].chunk_ns) == [0]


@pytest.mark.parametrize("payload", [
    delta(role="assistant", content=""), delta(content=""), delta(), delta(content=None), delta(tool_calls=[]), delta(reasoning_content=""),
    {"choices": [], "usage": {"completion_tokens": 3}}, {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]},
    {"choices": [{"index": 0, "text": "", "token_ids": []}]}, {"type": "message_start", "message": {"content": [], "usage": {}}},
    {"type": "content_block_start", "content_block": {"type": "text", "text": ""}}, {"type": "ping"},
    {"choices": [{"delta": {"role": "assistant", "content": ""}, "prompt_token_ids": [1, 2]}], "prompt_token_ids": [1, 2]}])
def test_what_is_no_content_is_not(payload):
    """Role-only and empty chunks do not begin an answer."""
    assert not has_output(payload)
    assert list(read(event(payload))[0].chunk_ns) == []


def test_the_sidecars_energy_is_a_comment():
    """Whatever it says."""
    assert list(read(b': energy {"content":"x","joules":1}\n\n')[0].chunk_ns) == []


def test_responses_have_deltas_and_then_repeat_their_text():
    """Only a delta is content; the last event is the end, and has the counts."""
    said = [{"type": "response.created", "response": {}}, {"type": "response.output_text.delta", "delta": "ab"},
            {"type": "response.output_text.done", "text": "ab"},
            {"type": "response.completed", "response": {"output": [{"content": [{"text": "ab"}]}], "usage": {"output_tokens": 2}}}]
    answer, usage = read(*[b"event: x\n" + event(one) for one in said], dialect=Dialect.RESPONSES)
    assert (list(answer.chunk_ns), answer.is_ended, usage.output_tokens) == ([1], True, 2)


def test_messages_end_with_their_own_word():
    """message_stop, with the counts of the message_delta before it."""
    said = [{"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1}}},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}, {"type": "message_stop"}]
    answer, usage = read(*map(event, said), dialect=Dialect.MESSAGES)
    assert (answer.is_ended, usage.output_tokens, usage.input_tokens) == (True, 9, 5)


def test_usage_and_the_end():
    """Of the last event that has counts."""
    usage_event = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}}
    answer, usage = read(event(delta(content="a")), event(delta(content="b")), event(usage_event), DONE)
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens) == (7, 2, 4)
    assert answer.is_ended


def test_without_usage_nothing_is_guessed():
    """Unknown is unknown."""
    answer, usage = read(event(delta(content="a")), DONE)
    assert (usage.input_tokens, usage.output_tokens, answer.is_ended) == (None, None, True)


def test_a_stream_without_its_end_has_not_ended():
    """A finish reason is not the end."""
    assert not read(event(delta(content="a")), event({"choices": [{"delta": {}, "finish_reason": "stop"}]}))[0].is_ended


def test_an_error_in_the_stream_is_told_by_its_type():
    """Never by its message; the word in a text is none."""
    assert read(event({"error": {"message": "secret", "type": "OOM"}}))[0].error == "error in the stream: OOM"
    assert read(event(delta(content="error")), DONE)[0].error is None


@given(st.lists(st.sampled_from(["é€𝄞", "a", "", "\n\n", '"content":"x"', "data: [DONE]"]), max_size=8),
       st.lists(st.integers(1, 60), max_size=60), st.sampled_from([b"\n", b"\r\n"]))
def test_chunks_are_counted_however_reads_cut_them(texts, cuts, newline):
    """Inside a letter, a line or an event: so many chunks with content as texts that are not empty."""
    data = b"".join(event(delta(content=text)) for text in texts).replace(b"\n", newline) + DONE
    pieces = []
    for size in cuts:
        pieces.append(data[:size])
        data = data[size:]
    answer, _ = read(*pieces, data)
    assert len(answer.chunk_ns) == sum(map(bool, texts))
    assert answer.is_ended


def test_a_chunk_is_stamped_by_the_read_that_completes_it():
    """And several of one read have one stamp."""
    whole = event(delta(content="a"))
    assert list(read(whole[:9], whole[9:] + whole, DONE)[0].chunk_ns) == [1, 1]


def test_a_body_has_counts_and_errors():
    """Of embeddings, images, and of what was not streamed."""
    answer = WholeAnswer()
    answer.feed(b'{"data":[{"b64_json":"' + b"x" * 600_000, 1)
    answer.feed(b'"}],"usage":{"input_tokens":3,"output_tokens":4}}', 2)
    usage = answer.finish(3)
    assert (usage.input_tokens, usage.output_tokens, answer.error, list(answer.chunk_ns)) == (3, 4, None, [])
    failed = WholeAnswer()
    failed.feed(b'{"error":{"type":"bad"}}', 1)
    failed.finish(2)
    assert failed.error == "error in the answer: bad"
