"""Law 2 on a real vLLM: the client receives byte for byte what the engine sent, beside what is announced as ours."""

import json
import re
from collections.abc import Callable
from itertools import groupby

import pytest

from tests.engines.serving import Sidecar
from tests.engines.vllm_cpu import MODEL, Vllm
from tests.engines.wire import OURS, Tap, exchange, passed_on

pytestmark = pytest.mark.vllm

FIXED = {"model": MODEL, "temperature": 0, "seed": 7, "ignore_eos": True, "max_tokens": 24}
CHAT = {**FIXED, "messages": [{"role": "user", "content": "def main(argv: list[str]) -> int: # über 🙂"}]}
PROMPT = {**FIXED, "prompt": "import os"}
TOOLS = [{"type": "function", "function": {"name": "look_up", "description": "Look a word up.", "parameters": {
    "type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}}}]
TOOL_CHAT = {**CHAT, "tools": TOOLS, "tool_choice": "required", "ignore_eos": False}
TWO = {"n": 2, "temperature": 1}
STREAM = {"stream": True}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
MESSAGE = {"model": MODEL, "max_tokens": 24, "temperature": 0, "messages": [{"role": "user", "content": "hello"}]}
RESPONSE = {"model": MODEL, "max_output_tokens": 24, "temperature": 0, "input": "import sys"}

STREAMED = {
    "chat with usage": ("/v1/chat/completions", CHAT | USAGE),
    "chat with running usage": ("/v1/chat/completions", CHAT | {
        "stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
    "chat of two choices": ("/v1/chat/completions", CHAT | TWO | STREAM),
    "chat of two choices with usage": ("/v1/chat/completions", CHAT | TWO | USAGE),
    "chat with logprobs": ("/v1/chat/completions", CHAT | USAGE | {"logprobs": True, "top_logprobs": 3}),
    "chat with tools": ("/v1/chat/completions", TOOL_CHAT | USAGE),
    "chat with a stop string": ("/v1/chat/completions", CHAT | USAGE | {"stop": ["a"], "temperature": 1}),
    "completions with usage": ("/v1/completions", PROMPT | USAGE),
    "completions of two prompts": ("/v1/completions", PROMPT | STREAM | {"prompt": ["import os", "import sys"]}),
    "responses": ("/v1/responses", RESPONSE | STREAM),
    "messages": ("/v1/messages", MESSAGE | STREAM),
}
WHOLE = {
    "chat": ("/v1/chat/completions", CHAT),
    "chat of two choices": ("/v1/chat/completions", CHAT | TWO),
    "chat with tools": ("/v1/chat/completions", TOOL_CHAT),
    "chat with logprobs": ("/v1/chat/completions", CHAT | {"logprobs": True, "top_logprobs": 3}),
    "completions": ("/v1/completions", PROMPT),
    "completions of token ids": ("/v1/completions", PROMPT | {"prompt": [5, 6, 7, 8]}),
    "responses": ("/v1/responses", RESPONSE),
    "messages": ("/v1/messages", MESSAGE),
}
UNMETERED = {
    "models": ("/v1/models", None),
    "health": ("/health", None),
    "version": ("/version?verbose=1", None),
    "tokenize": ("/tokenize", {"model": MODEL, "prompt": "import os"}),
    "no such path": ("/no/such/path", {"any": "thing"}),
}
REFUSED = {
    "a bad parameter": (400, "/v1/chat/completions", CHAT | {"max_tokens": -1}),
    "stream options, no stream": (400, "/v1/chat/completions", CHAT | {"stream_options": {"include_usage": True}}),
    "too long": (400, "/v1/completions", PROMPT | {"prompt": [5] * 4000}),
    "no such model, streamed": (404, "/v1/chat/completions", CHAT | STREAM | {"model": "nobody"}),
    "a message to no such model": (404, "/v1/messages", MESSAGE | {"model": "nobody"}),
    "a model without embeddings": (404, "/v1/embeddings", {"model": MODEL, "input": "x"}),
}
HIDDEN = {
    "chat": ("/v1/chat/completions", CHAT | STREAM),
    "chat with logprobs": ("/v1/chat/completions", CHAT | STREAM | {"logprobs": True, "top_logprobs": 3}),
    "chat with tools": ("/v1/chat/completions", TOOL_CHAT | STREAM),
    "completions": ("/v1/completions", PROMPT | STREAM),
    "completions that stop": ("/v1/completions", PROMPT | STREAM | {"stop": ["e"], "temperature": 1}),
}

VARIES = re.compile(rb'"(id|created)":("[^"]*"|\d+)')
TEXT = re.compile(rb'"(content|text|arguments)":"((?:[^"\\]|\\.)*)"')
LOGPROBS = re.compile(rb'"logprobs":{"content":\[(.*?)\]}(?=,"finish_reason")')


def comparable(body: bytes) -> tuple[list[bytes], bytes, bytes]:
    """A stream as two runs of one prompt may be compared: its frames without ids and times, its text, its log probabilities.

    Frames that differ in their tokens only count as one: vLLM merges tokens into a frame when its front end falls behind.
    """
    frames = [TEXT.sub(rb'"\1":""', LOGPROBS.sub(b"", VARIES.sub(rb'"\1":0', frame))) for frame in body.split(b"\n\n")]
    text, logprobs = (match[2] for match in TEXT.finditer(body)), LOGPROBS.findall(body)
    return [frame for frame, _ in groupby(frames)], b"".join(text), b",".join(logprobs)


@pytest.mark.feature("vllm", "stream", "real")
@pytest.mark.parametrize("what", STREAMED)
def test_a_stream_is_the_engines_own_with_one_comment_at_its_end(
        what: str, sidecar: Sidecar, tap: Tap, authorization: dict[str, str]) -> None:
    """Every byte is the engine's, but for one energy comment, which comes before [DONE] or, where that lacks, last."""
    got = exchange(sidecar.listen, *STREAMED[what], authorization)
    assert got.status == 200
    assert passed_on(got, tap.answers[-1])
    comments = OURS.findall(got.body)
    assert len(comments) == 1
    assert json.loads(comments[0])["status"] == "simulated"
    assert OURS.split(got.body)[-1] in (b"", b"data: [DONE]\n\n")


@pytest.mark.feature("vllm", "non-stream", "real")
@pytest.mark.parametrize("what", WHOLE)
def test_an_answer_is_the_engines_own_with_headers_added(
        what: str, sidecar: Sidecar, tap: Tap, authorization: dict[str, str]) -> None:
    """A JSON answer has the engine's body and headers, and says beside them what it cost."""
    got = exchange(sidecar.listen, *WHOLE[what], authorization)
    assert got.status == 200
    assert passed_on(got, tap.answers[-1])
    assert float(got.headers["x-energy-joules"]) > 0
    assert got.headers["x-energy-status"] == "simulated"
    assert sidecar.told(got)["http_status"] == 200


@pytest.mark.parametrize("what", UNMETERED)
def test_other_paths_pass_untouched(what: str, sidecar: Sidecar, tap: Tap, authorization: dict[str, str]) -> None:
    """What is no inference is relayed, with nothing added at all."""
    got = exchange(sidecar.listen, *UNMETERED[what], authorization)
    assert passed_on(got, tap.answers[-1])
    assert not [name for name in got.headers if name.startswith("x-energy")]


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_is_the_engines_own(what: str, sidecar: Sidecar, tap: Tap, authorization: dict[str, str]) -> None:
    """Errors of the engine reach the client as they are, in status, headers and body."""
    status, path, payload = REFUSED[what]
    got = exchange(sidecar.listen, path, payload, authorization)
    assert got.status == status
    assert passed_on(got, tap.answers[-1])


def test_a_client_without_a_key_is_refused_by_the_engine(sidecar: Sidecar, tap: Tap) -> None:
    """The sidecar neither checks nor adds credentials: 401 is the engine's, in its odd shape."""
    got = exchange(sidecar.listen, "/v1/chat/completions", CHAT)
    assert (got.status, got.body) == (401, b'{"error":"Unauthorized"}')
    assert passed_on(got, tap.answers[-1])


@pytest.mark.parametrize("what", HIDDEN)
def test_usage_that_the_client_did_not_ask_for_leaves_no_trace(
        what: str, sidecar: Sidecar, tap: Tap, vllm: Vllm, authorization: dict[str, str]) -> None:
    """The sidecar asked the engine for usage; the client gets the stream that it would have got without the sidecar."""
    alone = exchange(vllm.url, *HIDDEN[what], authorization)
    got = exchange(sidecar.listen, *HIDDEN[what], authorization)
    assert b'"usage":' in tap.answers[-1].body
    assert b'"usage":' not in got.without_ours()
    assert comparable(got.without_ours()) == comparable(alone.body)
    assert got.end_to_end().keys() == alone.end_to_end().keys()


def test_trailers_for_a_client_that_takes_them(sidecar: Sidecar, tap: Tap, authorization: dict[str, str]) -> None:
    """`TE: trailers` gets the energy behind the stream as well."""
    got = exchange(sidecar.listen, *STREAMED["chat with usage"], authorization | {"te": "trailers", "connection": "TE"})
    assert float(got.headers["x-energy-joules"]) > 0
    assert got.without_ours() == tap.answers[-1].body


def test_with_every_addition_off_nothing_is_added(
        start_sidecar: Callable[..., Sidecar], tap: Tap, authorization: dict[str, str]) -> None:
    """An operator who wants none of it gets a relay: the same bytes, the same headers."""
    off = ("--no-comment", "--no-headers", "--no-trailers", "--no-ask-usage")
    plain = start_sidecar(tap.url, "--energy=simulated", *off)
    for path, payload in (STREAMED["chat with usage"], HIDDEN["chat"], WHOLE["chat"], STREAMED["messages"]):
        got = exchange(plain.listen, path, payload, authorization)
        assert got.body == tap.answers[-1].body
        assert passed_on(got, tap.answers[-1])
        assert not [name for name in got.headers if name.startswith("x-energy")]
