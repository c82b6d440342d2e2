"""The real server of llama.cpp behind the real sidecar: bytes unchanged, tokens exact also where nobody asked for usage, no 502 from
connections that it closes though it said that it would keep them."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import openai
import pytest

from tests.engines.llama_server import MODEL, SLOTS, running_llama
from tests.engines.process import Engine
from tests.engines.serving import Sidecar, eventually
from tests.engines.wire import OURS, Tap, exchange, leave, passed_on

TOKENS = 8
WHOLE_LENGTH = {"model": MODEL, "ignore_eos": True, "temperature": 0}
CHAT: dict[str, Any] = {**WHOLE_LENGTH, "messages": [{"role": "user", "content": "def main(argv): # über 🙂"}], "max_tokens": TOKENS}
PROMPT: dict[str, Any] = {**WHOLE_LENGTH, "prompt": "import os", "max_tokens": TOKENS}
NATIVE: dict[str, Any] = {**WHOLE_LENGTH, "prompt": "import sys", "n_predict": TOKENS}
MESSAGE: dict[str, Any] = {**CHAT, "messages": [{"role": "user", "content": "hello"}]}
RESPONSE: dict[str, Any] = {**WHOLE_LENGTH, "input": "import re", "max_output_tokens": TOKENS}
STREAM: dict[str, Any] = {"stream": True}
USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
STREAMED = {
    "chat": ("/v1/chat/completions", CHAT | STREAM),
    "chat with usage": ("/v1/chat/completions", CHAT | USAGE),
    "chat with timings all along": ("/v1/chat/completions", CHAT | STREAM | {"timings_per_token": True}),
    "chat under its other name": ("/chat/completions", CHAT | STREAM),
    "completions": ("/v1/completions", PROMPT | STREAM),
    "completions with usage": ("/v1/completions", PROMPT | USAGE),
    "native": ("/completion", NATIVE | STREAM),
    "messages": ("/v1/messages", MESSAGE | STREAM),
    "responses": ("/v1/responses", RESPONSE | STREAM),
}
WHOLE = {
    "chat": ("/v1/chat/completions", CHAT),
    "completions": ("/v1/completions", PROMPT),
    "native": ("/completion", NATIVE),
    "messages": ("/v1/messages", MESSAGE),
    "responses": ("/v1/responses", RESPONSE),
}
LONG = "import os, sys\n" * 40


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One server with its metrics and its slots open to be looked at."""
    with running_llama(tmp_path_factory.mktemp("llama"), "--metrics", "--slots") as server:
        yield server


@pytest.fixture(scope="module")
def wire(llama: Engine) -> Iterator[Tap]:
    """The server, with what it sends kept."""
    with Tap(llama.url) as tap:
        yield tap


@pytest.fixture(scope="module")
def guard(start_sidecar: Callable[..., Sidecar], wire: Tap) -> Sidecar:
    """A sidecar that was told nothing about its engine."""
    return start_sidecar(wire.url, "--energy=simulated")


def busy(llama: Engine) -> int:
    """How many of the server's slots compute."""
    return sum(slot["is_processing"] for slot in json.loads(exchange(llama.url, "/slots").body))


def cancelled(llama: Engine) -> int:
    """How many requests the server says to have dropped."""
    return llama.log.read_text(errors="replace").count("cancel task")


@pytest.mark.feature("llamacpp", "stream", "real")
@pytest.mark.feature("llamacpp", "tokens-exact", "real")
@pytest.mark.parametrize("what", STREAMED)
def test_a_stream_is_the_engines_own_with_one_comment_in_it(what: str, wire: Tap, guard: Sidecar) -> None:
    """The comment comes before [DONE], or last where that lacks; tokens are read from `timings` where nobody asked for usage."""
    got, record = guard.metered(*STREAMED[what])
    assert got.status == 200
    assert passed_on(got, wire.answers[-1])
    *_, comment, rest = OURS.split(got.body)
    assert json.loads(comment)["status"] == "simulated"
    assert rest in (b"", b"data: [DONE]\n\n")
    assert (record["output_tokens"], record["output_source"], record["streamed"]) == (TOKENS, "usage", True)
    assert (record["outcome"], record["input_source"]) == ("completed", "usage")
    assert record["input_tokens"] > 0
    assert record["energy_per_output_token_joules"] == pytest.approx(record["energy_joules"] / TOKENS)


@pytest.mark.feature("llamacpp", "non-stream", "real")
@pytest.mark.feature("llamacpp", "tokens-exact", "real")
@pytest.mark.feature("llamacpp", "joules-per-unit", "real")
@pytest.mark.parametrize("what", WHOLE)
def test_an_answer_is_the_engines_own_with_headers_added(what: str, wire: Tap, guard: Sidecar) -> None:
    """A JSON answer has the engine's body and headers, and says beside them what it cost, which the record divides by tokens."""
    got, record = guard.metered(*WHOLE[what])
    assert got.status == 200
    assert passed_on(got, wire.answers[-1])
    assert float(got.headers["x-energy-joules"]) > 0
    assert (record["output_tokens"], record["output_source"]) == (TOKENS, "usage")
    assert record["energy_per_output_token_joules"] == pytest.approx(record["energy_joules"] / TOKENS)


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/props", "/slots", "/metrics", "/no/such/path"])
def test_other_paths_pass_untouched(path: str, wire: Tap, guard: Sidecar) -> None:
    """What is no inference is relayed, with nothing added at all."""
    got = exchange(guard.listen, path)
    assert passed_on(got, wire.answers[-1])
    assert not [name for name in got.headers if name.startswith("x-energy")]


@pytest.mark.feature("llamacpp", "cached-known", "real")
@pytest.mark.parametrize(("path", "payload"), [
    ("/v1/chat/completions", CHAT | {"messages": [{"role": "user", "content": LONG}]}),
    ("/v1/chat/completions", CHAT | STREAM | {"messages": [{"role": "user", "content": LONG + "# streamed"}]}),
    ("/completion", NATIVE | STREAM | {"prompt": "# native\n" + LONG}),
])
def test_a_prompt_that_is_known_is_told_as_cached(path: str, payload: dict[str, Any], guard: Sidecar) -> None:
    """The second time nearly all of the prompt is in a slot already, and the record says how much, as the server does."""
    asked = payload | {"id_slot": 0}
    _, first = guard.metered(path, asked)
    _, second = guard.metered(path, asked)
    assert first["input_tokens"] == second["input_tokens"] > 100
    assert second["cached_tokens"] == second["input_tokens"] - 1


@pytest.mark.feature("llamacpp", "abort-seen", "real")
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_the_engine(stream: bool, llama: Engine, guard: Sidecar) -> None:
    """In the middle of a stream, or while it waits for a whole answer: the server says that it stopped, and the record is cancelled.

    Of a whole answer it looks for the client in a second without other results only: nothing else is asked of it meanwhile.
    """
    name, before = f"left-{uuid4().hex}", cancelled(llama)
    leave(guard.listen, "/v1/chat/completions", CHAT | {"max_tokens": 900, "stream": stream}, {"x-request-id": name},
          after=4 if stream else 0, until=lambda: eventually(lambda: busy(llama), "llama.cpp to begin"))
    eventually(lambda: cancelled(llama) > before, "llama.cpp to drop the request")
    record = guard.record(name)
    assert record["outcome"] == "cancelled"
    assert record["energy_uj"] > 0
    assert (record["output_tokens"] or 0) < 900


async def test_no_failure_of_connections_that_the_engine_closes(guard: Sidecar) -> None:
    """It says Keep-Alive and closes after every stream: a pooled client through the sidecar, 16 at a time, sees no failure."""
    async with openai.AsyncOpenAI(base_url=f"{guard.listen}/v1", api_key="none", max_retries=0, timeout=120) as client:
        async def one(number: int) -> int:
            asked: Any = {"model": MODEL, "messages": CHAT["messages"], "max_tokens": 2 + number % 3}
            if number % 2:
                answer: Any = await client.chat.completions.create(**asked, extra_body={"ignore_eos": True})
                return int(answer.usage.completion_tokens)
            stream: Any = await client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True},
                                                          extra_body={"ignore_eos": True})
            return [int(chunk.usage.completion_tokens) async for chunk in stream if chunk.usage][-1]

        async def some(first: int) -> list[int]:
            return [await one(number) for number in range(first, 6 * SLOTS, SLOTS)]

        tokens = await asyncio.gather(*map(some, range(SLOTS)))
    assert sum(map(sum, tokens)) == sum(2 + number % 3 for number in range(6 * SLOTS))


@pytest.mark.parametrize(("how", "tokens"), [(STREAM, 2 * TOKENS), (USAGE, 2 * TOKENS), ({}, None)])
def test_several_choices_are_counted_together(how: dict[str, Any], tokens: int | None, wire: Tap, guard: Sidecar) -> None:
    """The server tells the tokens of each choice: the record has their sum, and none at all where it tells those of one only."""
    got, record = guard.metered("/v1/chat/completions", CHAT | how | {"n": 2})
    assert got.status == 200
    assert passed_on(got, wire.answers[-1])
    assert record["output_tokens"] == tokens


def test_it_is_known_by_name(guard: Sidecar) -> None:
    """`--engine auto` finds out who answers."""
    _, record = guard.metered("/v1/chat/completions", CHAT)
    assert record["engine"] == "llamacpp"
