"""A real vLLM's own spans hang below ours: one trace from the client through the sidecar into the engine, joined by request id, too."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.engines.serving import Sidecar, eventually
from tests.engines.vllm_cpu import MODEL, Vllm
from tests.engines.wire import exchange
from tests.fakes.collector import Collector, attributes_of

pytestmark = pytest.mark.vllm

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "def main():"}], "max_tokens": 4}


@pytest.fixture(scope="session")
def tracing(start_sidecar: Callable[..., Sidecar], vllm: Vllm, collector: Collector) -> Sidecar:
    """A sidecar that sends its spans to where the engine sends its own."""
    return start_sidecar(vllm.url, "--energy=simulated", f"--otlp={collector.url}")


@pytest.mark.parametrize("caller", [CALLER, None])
def test_one_trace_from_client_to_engine(tracing: Sidecar, collector: Collector, authorization: dict[str, str], caller: str | None) -> None:
    """The engine's span is a child of ours in the same trace, ours of the client's if it has one, and both name the same request."""
    name = f"joined-{'caller' if caller else 'alone'}"
    fields = authorization | {"x-request-id": name} | ({"traceparent": caller} if caller else {})
    answer = exchange(tracing.listen, "/v1/chat/completions", CHAT, fields)
    assert answer.status == 200

    def both() -> list[Any]:
        found = [span for span in collector.spans if attributes_of(span).get("gen_ai.request.id") == json.loads(answer.body)["id"]]
        return found if len(found) == 2 else []
    ours, theirs = sorted(eventually(both, "the spans of both"), key=lambda span: "perjoule.record.id" not in attributes_of(span))
    assert theirs.trace_id == ours.trace_id
    assert theirs.parent_span_id == ours.span_id
    assert ours.start_time_unix_nano <= theirs.start_time_unix_nano <= theirs.end_time_unix_nano <= ours.end_time_unix_nano + 5_000_000_000
    if caller:
        assert (ours.trace_id.hex(), ours.parent_span_id.hex()) == tuple(caller.split("-")[1:3])
    else:
        assert ours.parent_span_id == b""
