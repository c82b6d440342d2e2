"""What one JSON object of a response says, in every dialect's shape."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.dialects.payload import error_type, finish_reason, has_output, is_last_word, parsed, text_of

NAMES = ["choices", "delta", "finish_reason", "response", "message", "error", "type", "code", "object", "status", "id",
         "incomplete_details", "details", "meta_info", "text", "token", "role", "content"]


def choice(**delta):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


@pytest.mark.parametrize("payload", [
    choice(content="x"), choice(reasoning="x"), choice(reasoning_content="x"), choice(tool_calls=[{"index": 0}]),
    {"choices": [{"index": 0, "text": "x"}]}, {"choices": [{"index": 0, "delta": {}, "token_ids": [5]}]},
    {"type": "response.output_text.delta", "delta": "x"}, {"type": "response.function_call_arguments.delta"},
    {"type": "content_block_delta", "delta": {"type": "thinking_delta"}}, {"type": "content-delta"},
    {"index": 1, "token": {"id": 5, "text": ""}, "generated_text": None}, {"text": "x", "meta_info": {}},
])
def test_output_is_content_reasoning_and_tool_calls(payload):
    """In every dialect, a frame with any of what the model wrote shows output."""
    assert has_output(payload)


@pytest.mark.parametrize("payload", [
    choice(role="assistant"), choice(role="assistant", content=""), choice(content=None), choice(), {"choices": []}, {},
    {"choices": [{"index": 0, "text": ""}]}, {"choices": None}, {"choices": 5}, {"choices": ["x"]},
    {"type": "message_start"}, {"type": "message_delta"}, {"type": "content_block_start"}, {"type": "ping"},
    {"type": "response.output_text.done", "text": "x"}, {"type": "response.created"}, {"error": {"type": "x"}},
])
def test_role_bookkeeping_and_errors_are_no_output(payload):
    """The first frame of a stream is not the first token."""
    assert not has_output(payload)


@pytest.mark.parametrize(("payload", "error"), [
    ({"error": {"message": "secret prompt", "type": "BadRequestError", "code": 400}}, "BadRequestError"),
    ({"error": {"message": "x", "code": 500}}, "500"),
    ({"error": "Unauthorized"}, "error"),
    ({"error": "x", "error_type": "overloaded"}, "overloaded"),
    ({"type": "error", "error": {"type": "overloaded_error"}}, "overloaded_error"),
    ({"type": "error", "code": "server_error", "message": "x"}, "server_error"),
    ({"type": "response.failed", "response": {"error": {"code": "server_error", "message": "x"}}}, "server_error"),
    ({"error": {"type": "x" * 1000}}, "x" * 64),
    ({"error": None}, None), ({"response": {"error": None}}, None), ({"id": "x"}, None),
])
def test_an_error_is_named_by_its_type_and_never_quoted(payload, error):
    """The type or the code is kept, the message, which may hold a prompt, is not."""
    assert error_type(payload) == error


@pytest.mark.parametrize(("payload", "reason"), [
    ({"choices": [{"finish_reason": None}, {"finish_reason": "length"}]}, "length"),
    ({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, "end_turn"),
    ({"type": "message", "stop_reason": "max_tokens"}, "max_tokens"),
    ({"response": {"object": "response", "status": "completed", "incomplete_details": None}}, "completed"),
    ({"object": "response", "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
     "max_output_tokens"),
    ({"response": {"object": "response", "status": "in_progress"}}, None),
    ({"response": {"object": "realtime.response", "status": "completed", "status_details": None}}, "completed"),
    ({"response": {"object": "realtime.response", "status": "cancelled", "status_details": {"reason": "turn_detected"}}}, "turn_detected"),
    ({"details": {"finish_reason": "eos_token"}}, "eos_token"),
    ({"meta_info": {"finish_reason": {"type": "stop"}}}, "stop"),
    ({"choices": []}, None), ({}, None),
])
def test_the_finish_reason_is_in_the_dialect_s_own_word(payload, reason):
    """None until the frame that says it."""
    assert finish_reason(payload) == reason


def test_ids_and_models_are_found_one_deep():
    """At the top in chat, in `response` or `message` in the event dialects, None elsewhere."""
    for payload in ({"id": "a"}, {"response": {"id": "a"}}, {"message": {"id": "a"}, "id": ""}):
        assert text_of(payload, "id") == "a"
    assert text_of({"id": 5, "message": "x"}, "id") is None


def test_names_ids_and_words_are_kept_short():
    """However much an engine sends, 256 characters of an id or a model and 64 of a finish reason are kept."""
    assert text_of({"model": "m" * 5_000_000}, "model") == "m" * 256
    assert text_of({"response": {"id": "i" * 256}}, "id") == "i" * 256
    assert finish_reason({"choices": [{"finish_reason": "f" * 1000}]}) == "f" * 64


@pytest.mark.parametrize(("payload", "is_last"), [
    ({"type": "message_stop"}, True), ({"type": "response.completed"}, True), ({"type": "response.failed"}, True),
    ({"generated_text": ""}, True), ({"generated_text": None}, False), ({"type": "response.output_text.done"}, False),
    ({"type": ["message_stop"]}, False), ({"choices": []}, False), ({"stop": True, "content": ""}, True), ({"stop": False}, False),
])
def test_dialects_without_done_have_a_last_word(payload, is_last):
    """The frame after which a client may leave without having cancelled anything."""
    assert is_last_word(payload) is is_last


@pytest.mark.parametrize(("data", "payload"), [
    (b'{"a":1}', {"a": 1}), (b'[{"a":1}]', {"a": 1}), (b'[{"a":1},{"b":2}]', None), (b"[]", None), (b"5", None), (b"{", None), (b"", None),
])
def test_only_objects_are_payloads(data, payload):
    """TGI's list of one answer counts as that answer, a list of several as none of them; what is not JSON is nothing."""
    assert parsed(data) == payload


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner)))
def test_garbage_does_not_raise(payload):
    """Any JSON object is answered by every question."""
    payload = payload if isinstance(payload, dict) else {"choices": payload, "delta": payload, "error": payload}
    has_output(payload), is_last_word(payload), error_type(payload), finish_reason(payload), text_of(payload, "id")


@pytest.mark.parametrize(("body", "counts"), [
    ([{"text": "a", "meta_info": {"prompt_tokens": 2, "completion_tokens": 9, "cached_tokens": 1}},
      {"text": "b", "meta_info": {"prompt_tokens": 3, "completion_tokens": 9, "cached_tokens": 0}}], (5, 18, 1)),
    ([{"meta_info": {"prompt_tokens": 2, "completion_tokens": True}}, {"meta_info": {"prompt_tokens": 3, "completion_tokens": 1}}],
     (5, None, None)),
])
def test_several_answers_of_sglang_are_one(body, counts):
    """Their counts are added, where each has them."""
    whole = parsed(orjson.dumps(body))
    assert tuple(whole["meta_info"][name] for name in ("prompt_tokens", "completion_tokens", "cached_tokens")) == counts


@pytest.mark.parametrize("body", [[], [1, 2], [{}, {}], [{"meta_info": {"a": 1}}, {}], [{"meta_info": {"a": 1}}, 2], [[], []]])
def test_of_several_other_answers_nothing_is_read(body):
    """The first alone would not be the whole."""
    assert parsed(orjson.dumps(body)) is None
