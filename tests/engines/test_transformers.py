"""The real `transformers serve` behind the real sidecar: its bytes unchanged, its tokens exact, though its streams say no `[DONE]`."""

import json
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.engines.process import Engine
from tests.engines.serving import Sidecar, eventually
from tests.engines.transformers_serve import BATCHING, running_transformers
from tests.engines.wire import OURS, Answer, Tap, exchange, leave, passed_on

pytestmark = pytest.mark.slow

TOKENS = 6
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "def main(argv): # über 🙂"}], "max_tokens": TOKENS}
PROMPT: dict[str, Any] = {"prompt": "import os", "max_tokens": TOKENS}
RESPONSE: dict[str, Any] = {"input": "import sys", "max_output_tokens": TOKENS}
STREAMED = {
    "chat": ("/v1/chat/completions", CHAT | {"stream": True}),
    "chat, usage asked": ("/v1/chat/completions", CHAT | {"stream": True, "stream_options": {"include_usage": True}}),
    "completions": ("/v1/completions", PROMPT | {"stream": True}),
    "responses": ("/v1/responses", RESPONSE | {"stream": True}),
    "responses, which stream unasked": ("/v1/responses", RESPONSE),
}
WHOLE = {
    "chat": ("/v1/chat/completions", CHAT),
    "completions": ("/v1/completions", PROMPT),
    "responses": ("/v1/responses", RESPONSE | {"stream": False}),
}
LONG = 3500  # tokens: four of these keep the tiny model busy for far longer than a test waits


@pytest.fixture(scope="module", params=["one at a time", "continuous batching"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Both ways in which it serves."""
    flags = BATCHING if request.param == "continuous batching" else ()
    with running_transformers(tmp_path_factory.mktemp("transformers"), *flags) as server:
        yield server


@pytest.fixture(scope="module")
def wire(engine: Engine) -> Iterator[Tap]:
    """The server, with what it sends kept."""
    with Tap(engine.url) as tap:
        yield tap


@pytest.fixture(scope="module")
def guard(start_sidecar: Callable[..., Sidecar], wire: Tap) -> Sidecar:
    """A sidecar that was told nothing about its engine."""
    return start_sidecar(wire.url, "--energy=simulated")


def ask(engine: Engine, url: str, path: str, payload: dict[str, Any], name: str) -> Answer:
    """One request under a name by which its record is found."""
    return exchange(url, path, {**payload, "model": engine.model}, {"x-request-id": name})


def usage_at_the_end(body: bytes) -> dict[str, Any]:
    """The usage in the last event of a stream, which is the one with the reason to finish."""
    *_, last = (json.loads(event.removeprefix(b"data: ")) for event in body.split(b"\n\n") if event)
    usage: dict[str, Any] = last.get("response", last)["usage"]
    return usage


def tokens(usage: dict[str, Any]) -> tuple[int, int]:
    """Tokens in and out, in either API's words."""
    came, went = ("prompt_tokens", "completion_tokens") if "prompt_tokens" in usage else ("input_tokens", "output_tokens")
    return usage[came], usage[went]


@pytest.mark.feature("transformers", "stream", "real")
@pytest.mark.feature("transformers", "tokens-exact", "real")
@pytest.mark.parametrize("what", STREAMED)
def test_a_stream_is_the_engines_own_with_one_comment_behind_it(what: str, engine: Engine, wire: Tap, guard: Sidecar) -> None:
    """Its streams end without `[DONE]`: the comment comes last, before the end of the body, and usage is read though nobody asked."""
    name = f"stream-{uuid4().hex}"
    got = ask(engine, guard.listen, *STREAMED[what], name)
    assert got.status == 200
    assert passed_on(got, wire.answers[-1])
    *_, comment, rest = OURS.split(got.body)
    assert (json.loads(comment)["status"], rest) == ("simulated", b"")
    record = guard.record(name)
    assert (record["input_tokens"], record["output_tokens"]) == tokens(usage_at_the_end(wire.answers[-1].body))
    assert (record["output_tokens"], record["output_source"], record["streamed"]) == (TOKENS, "usage", True)
    assert (record["outcome"], record["response_model"]) == ("completed", f"{engine.model}@main")
    assert record["energy_uj"] > 0


@pytest.mark.feature("transformers", "non-stream", "real")
@pytest.mark.feature("transformers", "tokens-exact", "real")
@pytest.mark.feature("transformers", "joules-per-unit", "real")
@pytest.mark.parametrize("what", WHOLE)
def test_an_answer_is_the_engines_own_with_headers_added(what: str, engine: Engine, wire: Tap, guard: Sidecar) -> None:
    """A JSON answer has the engine's body and headers, and says beside them what it cost, which the record divides by tokens."""
    name = f"whole-{uuid4().hex}"
    got = ask(engine, guard.listen, *WHOLE[what], name)
    assert got.status == 200
    assert passed_on(got, wire.answers[-1])
    assert float(got.headers["x-energy-joules"]) > 0
    record = guard.record(name)
    assert (record["input_tokens"], record["output_tokens"]) == tokens(json.loads(got.body)["usage"])
    assert (record["output_tokens"], record["output_source"]) == (TOKENS, "usage")
    assert record["energy_per_output_token_joules"] == pytest.approx(record["energy_joules"] / TOKENS)
    assert record["engine"] == "transformers"


@pytest.mark.parametrize(("path", "payload"), [("/health", None), ("/v1/models", None), ("/no/such/path", {"any": "thing"})])
def test_other_paths_pass_untouched(path: str, payload: object, wire: Tap, guard: Sidecar) -> None:
    """Also where the engine fails: its list of models wants the hub, and is a 500 where there is none."""
    assert passed_on(exchange(guard.listen, path, payload), wire.answers[-1])


def test_a_refusal_is_the_engines_own_and_errored(engine: Engine, wire: Tap, guard: Sidecar) -> None:
    """A field that the engine does not know is its 422, in its own shape."""
    name = f"refused-{uuid4().hex}"
    got = ask(engine, guard.listen, "/v1/chat/completions", CHAT | {"no_such_field": 1}, name)
    assert got.status == 422
    assert passed_on(got, wire.answers[-1])
    assert (guard.record(name)["outcome"], guard.record(name)["error_type"]) == ("errored", "422")


@pytest.mark.feature("transformers", "abort-seen", "real")
def test_clients_that_leave_their_streams_stop_the_engine(engine: Engine, guard: Sidecar) -> None:
    """Work for minutes is left behind by its clients: the engine comes to rest, and each record is cancelled, with its joules."""
    names = [f"left-{uuid4().hex}" for _ in range(4)]
    for name in names:
        leave(guard.listen, "/v1/chat/completions", CHAT | {"model": engine.model, "max_tokens": LONG, "stream": True},
              {"x-request-id": name}, after=4)
    eventually(engine.rests, "transformers to drop the requests")
    for name in names:
        record = guard.record(name)
        assert (record["outcome"], record["http_status"], record["output_source"]) == ("cancelled", 200, "frames")
        assert 2 <= record["output_tokens"] < LONG
        assert record["energy_uj"] > 0
