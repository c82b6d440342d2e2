"""What a request body asks for, and asking for usage without changing anything else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.dialects.endpoints import endpoint_of
from perjoule.sidecar.dialects.requests import Asked, ask_for_usage, read_request

CHAT = endpoint_of("POST", "/v1/chat/completions")
COMPLETIONS = endpoint_of("POST", "/v1/completions")
RESPONSES = endpoint_of("POST", "/v1/responses")
MESSAGES = endpoint_of("POST", "/v1/messages")
EMBEDDINGS = endpoint_of("POST", "/v1/embeddings")
GENERATE = endpoint_of("POST", "/generate")

JSON = st.recursive(st.none() | st.booleans() | st.integers(-10, 10) | st.text(max_size=8),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
                    max_leaves=8)


def asked(endpoint, **body):
    return read_request(endpoint, json.dumps(body).encode())


def test_a_chat_is_read():
    """Model, stream, choices, limit and the size of the text are those of the body."""
    assert asked(CHAT, model="m", stream=True, n=3, max_completion_tokens=9, messages=[
        {"role": "system", "content": "four"},
        {"role": "user", "content": [{"type": "text", "text": "né"},
                                     {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
    ]) == Asked(model="m", streamed=True, choices=3, max_output_tokens=9, input_bytes=7)


@pytest.mark.parametrize(("endpoint", "body", "limit", "size"), [
    (COMPLETIONS, {"prompt": "abc", "max_tokens": 5}, 5, 3),
    (RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_text", "text": "abcd"}]}],
                 "instructions": "xy", "max_output_tokens": 6}, 6, 6),
    (MESSAGES, {"system": "s", "messages": [{"role": "user", "content": "abc"}], "max_tokens": 7}, 7, 4),
    (GENERATE, {"inputs": "abcdef", "parameters": {"max_new_tokens": 8}}, 8, 6),
    (GENERATE, {"text": "abcdef", "sampling_params": {"max_new_tokens": 8}}, 8, 6),
    (EMBEDDINGS, {"input": ["a", "bc"]}, None, 3),
])
def test_every_dialect_has_its_limit_and_its_prompt(endpoint, body, limit, size):
    """The limit on output and the bytes of text are found where each dialect puts them."""
    found = asked(endpoint, **body)
    assert (found.max_output_tokens, found.input_bytes) == (limit, size)


@pytest.mark.parametrize(("name", "model"), [("m" * 256, "m" * 256), ("m" * 257, None), ("m" * 5_000_000, None), (5, None)],
                         ids=["256", "257", "5M", "number"])
def test_a_model_of_absurd_length_is_unknown(name, model):
    """A name is a metric's label and a span's name: one of more than 256 characters is none."""
    assert asked(CHAT, model=name).model == model


@pytest.mark.parametrize(("prompt", "tokens", "choices"), [
    ([1, 2, 3], 3, 1), ([[1, 2], [3]], 3, 2), ("text", None, 1), (["a", "b"], None, 2), ([], None, 1),
    ([[1], []], None, 2), ([1, "a"], None, 1), ([True], None, 1),
])
def test_only_token_ids_are_an_exact_prompt(prompt, tokens, choices):
    """A prompt of ids is counted; text, or anything odd, is left to the engine; each prompt of a list is a choice."""
    found = asked(COMPLETIONS, prompt=prompt)
    assert (found.input_tokens, found.choices) == (tokens, choices)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"stream":true', b"--boundary\r\n"])
def test_a_body_that_cannot_be_read_is_unknown(body):
    """The engine answers it; we know nothing and touch nothing."""
    assert read_request(CHAT, body) == Asked()
    assert ask_for_usage(body) == body


@given(st.sampled_from([CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, GENERATE]), st.dictionaries(st.sampled_from([
    "model", "stream", "stream_options", "n", "prompt", "messages", "input", "max_tokens", "parameters"]), JSON))
def test_no_body_makes_reading_raise(endpoint, body):
    """Any JSON in any place gives an answer."""
    found = asked(endpoint, **body)
    assert found.choices >= 1
    assert found.input_bytes >= 0


@pytest.mark.parametrize("depth", [200, 990, 5000])
def test_a_deeply_nested_body_does_not_raise(depth):
    """Nesting is not a way to stop a worker."""
    body = b'{"stream":true,"stream_options":{},"messages":' + b'[{"content":' * depth + b'"x"' + b"}]" * depth + b"}"
    read_request(CHAT, body)
    assert ask_for_usage(body) in (body, body.replace(b"{}", b'{"include_usage":true}'))


ABSENT = object()


@pytest.mark.parametrize(("options", "may"), [
    (ABSENT, True), (None, True), ({}, True), ({"include_usage": False}, True), ({"include_usage": None}, True),
    ({"continuous_usage_stats": False}, True), ({"other": 1}, True),
    ({"include_usage": True}, False), ({"include_usage": "true"}, False), ({"include_usage": 1}, False),
    ({"continuous_usage_stats": True}, False), ({"include_usage": False, "continuous_usage_stats": True}, False),
    ("x", False), ([], False), (0, False), (False, False),
])
def test_usage_is_asked_for_only_where_that_can_be_hidden(options, may):
    """Not where the client asked itself, where running usage would be switched on, or where the engine must refuse."""
    body = {"stream": True} if options is ABSENT else {"stream": True, "stream_options": options}
    assert asked(CHAT, **body).can_ask is may
    assert asked(CHAT, **body).usage_asked is (options == {"include_usage": True} and options["include_usage"] is True)


@pytest.mark.parametrize(("endpoint", "body"), [
    (CHAT, {}), (CHAT, {"stream": False}), (CHAT, {"stream": None}), (CHAT, {"stream": True, "n": 2}),
    (COMPLETIONS, {"stream": True, "prompt": ["a", "b"]}), (RESPONSES, {"stream": True}), (MESSAGES, {"stream": True}),
    (endpoint_of("POST", "/v1/chat/completions/batch"), {"stream": True}),
])
def test_usage_is_never_asked_for_elsewhere(endpoint, body):
    """vLLM refuses stream_options without stream, several choices cannot be restored, other dialects need no asking."""
    assert not asked(endpoint, **body).can_ask


@pytest.mark.parametrize(("body", "asking"), [
    (b'{"stream":true}', b'{"stream_options":{"include_usage":true},"stream":true}'),
    (b' {\n"stream" : true }\n', b' {"stream_options":{"include_usage":true},\n"stream" : true }\n'),
    (b'{"stream_options":{},"stream":true}', b'{"stream_options":{"include_usage":true},"stream":true}'),
    (b'{"stream_options" :\n{ } }', b'{"stream_options" :\n{"include_usage":true } }'),
    (b'{"stream_options":null}', b'{"stream_options":{"include_usage":true}}'),
    (b'{"stream_options":{"include_usage":false}}', b'{"stream_options":{"include_usage":true}}'),
    (b'{"stream_options":{"a":1, "include_usage" : null}}', b'{"stream_options":{"a":1, "include_usage" : true}}'),
    (b'{"stream_options":{"a":1}}', b'{"stream_options":{"include_usage":true,"a":1}}'),
])
def test_asking_splices_and_keeps_every_other_byte(body, asking):
    """Spelling, white space and order of the client's body stay as they are."""
    assert ask_for_usage(body) == asking


@pytest.mark.parametrize("body", [
    b"{}",
    b'{"stream_options":{"include_usage":true}}',
    b'{"stream_options":"x"}',
    b'{"stream_options":{"a":{"b":1}}}',
    b'{"stream_options":{"a":"}"},"stream_options":{"a":{}}}',
    b'{"stream_options":{},"stream_options":{"a":1}}',
    b'{"stream_\\u006fptions":{}}',
    b'{"a":{"stream_options":{}},"stream_options":[1]}',
    b'{"a":{"stream_options":{}},"stream_options":{}}',
])
def test_asking_gives_up_where_the_result_would_be_something_else(body):
    """Duplicates, escapes and look-alikes are relayed as they came: better not to ask than to change a request."""
    assert ask_for_usage(body) == body


@given(st.dictionaries(st.text(max_size=12), JSON, min_size=1), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_asking_changes_one_setting_and_nothing_else(body, indent, ascii_only):
    """Whatever the body: read back, the result is the original, or the original with include_usage true."""
    text = json.dumps(body, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    asking = ask_for_usage(text)
    if asking != text:
        options = body.get("stream_options") or {}
        assert json.loads(asking) == {**body, "stream_options": {**options, "include_usage": True}}


@pytest.mark.parametrize("text", ['"stream_options":{}', '\\"stream_options\\":null', ";base64,", "a;base64,b\\u0022c"])
def test_a_prompt_about_the_protocol_is_only_a_prompt(text):
    """Text that looks like a setting or like a data URL is neither."""
    body = {"stream": True, "messages": [{"role": "user", "content": text + '"' + text}], "stream_options": {}}
    sent = json.dumps(body).encode()
    assert read_request(CHAT, sent).input_bytes == 2 * len(text) + 1
    assert json.loads(ask_for_usage(sent)) == {**body, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(("body", "choices"), [
    ({"inputs": "a", "parameters": {"best_of": 3}}, 3), ({"inputs": "a", "parameters": {"best_of": None}}, 1), ({"inputs": "a"}, 1),
    ({"text": ["a", "b"]}, 2), ({"text": ["a", "b"], "sampling_params": {"n": 2}}, 4), ({"text": "a", "sampling_params": {"n": 2}}, 2),
    ({"input_ids": [[1, 2], [3]]}, 2), ({"input_ids": [1, 2]}, 1), ({"text": [], "sampling_params": []}, 1)])
def test_how_much_the_native_apis_ask_for(body, choices):
    """TGI generates all of which it answers the best, SGLang each of several prompts."""
    assert asked(GENERATE, **body).choices == choices
