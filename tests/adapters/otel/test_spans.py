"""Spans, sent to a real OTLP receiver made of the official protobufs, over real HTTP and real gRPC."""

import asyncio
import socket
import subprocess
import sys
import time

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as SpanStatus

from perjoule.adapters.otel.environment import TRACES, endpoint
from perjoule.adapters.otel.spans import OtelSpans, open_spans
from perjoule.sidecar.ports import TryLaterError
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status, TokenSource
from perjoule.sidecar.records.outbox import Outbox
from tests.fakes.collector import attributes_of, grpc_collector, http_collector

ARRIVAL = 1_790_000_000_000_000_123
TRACE, SPAN, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "b7ad6b7169203331", "00f067aa0ba902b7"

FACTS = {"record_id": "r1", "request_id": "q1", "arrival_unix_ns": ARRIVAL, "end_ns": 2_000_000_000,
         "outcome": Outcome.COMPLETED, "endpoint": "chat.completions", "engine": "vllm", "streamed": True,
         "http_status": 200, "model": "llama", "response_model": "llama-8b", "response_id": "chatcmpl-1",
         "finish_reason": "stop", "tenant": "a1b2", "trace_id": TRACE, "span_id": SPAN, "parent_span_id": CALLER,
         "first_token_ns": 250_000_000, "last_token_ns": 1_900_000_000, "queue_ns": 1_000_000, "input_tokens": 100,
         "cached_tokens": 40, "output_tokens": 50, "reasoning_tokens": 5, "input_source": TokenSource.USAGE,
         "output_source": TokenSource.USAGE}
CHARGE = {"status": Status.MEASURED, "method": "token-share", "source": "nvml", "settled": True,
          "boundary": "gpu-board", "devices": ("GPU-1", "GPU-2"), "energy_uj": 12_345_678, "active_uj": 9_000_000,
          "prefill_uj": 2_345_678, "decode_uj": 10_000_000, "steady_uj": 8_000_000, "steady_ns": 1_500_000_000,
          "uncertainty_uj": 120_000, "calibration_id": "c1", "windows": 20, "concurrency_mean": 3.5}


def record(facts=(), charge=()):
    return EnergyRecord(RequestFacts(**{**FACTS, **dict(facts)}), Charge(**{**CHARGE, **dict(charge)}))


def send(url, *records):
    sink = open_spans(url)
    try:
        sink.put(records)
    finally:
        sink.close()


async def sent(*records):
    """The spans that a collector gets for these records, and the collector."""
    with http_collector() as collector:
        await asyncio.to_thread(send, collector.url, *records)
        return collector.spans, collector


async def test_a_span_has_the_times_and_ids_that_the_request_had():
    """Trace, span and parent are those sent upstream; start and end are arrival and end, to the nanosecond."""
    [span], _ = await sent(record())
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN, CALLER)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (ARRIVAL, ARRIVAL + 2_000_000_000)
    assert span.kind == Span.SPAN_KIND_SERVER
    assert span.name == "chat llama"
    assert [(event.name, event.time_unix_nano) for event in span.events] == [
        ("perjoule.first_token", ARRIVAL + 250_000_000)]


async def test_a_span_tells_everything_the_record_knows():
    """The attributes are the GenAI, HTTP and perjoule ones with the record's values, joules as float and integer."""
    [span], _ = await sent(record())
    assert attributes_of(span) == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "vllm", "gen_ai.request.model": "llama",
        "gen_ai.request.stream": True, "gen_ai.response.model": "llama-8b", "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.request.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ["stop"], "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 100, "gen_ai.usage.cache_read.input_tokens": 40, "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.reasoning.output_tokens": 5, "http.request.method": "POST", "http.response.status_code": 200,
        "perjoule.record.id": "r1", "perjoule.record.sequence": 0, "perjoule.request.id": "q1", "perjoule.endpoint": "chat.completions",
        "perjoule.outcome": "completed", "perjoule.tenant": "a1b2", "perjoule.queue.seconds": 0.001,
        "perjoule.usage.input_source": "usage", "perjoule.usage.output_source": "usage",
        "perjoule.energy.status": "measured", "perjoule.energy.method": "token-share", "perjoule.energy.source": "nvml",
        "perjoule.energy.settled": True, "perjoule.energy.joules": 12.345678, "perjoule.energy.microjoules": 12_345_678,
        "perjoule.energy.active.joules": 9.0, "perjoule.energy.prefill.joules": 2.345678,
        "perjoule.energy.decode.joules": 10.0, "perjoule.energy.steady.joules": 8.0,
        "perjoule.energy.steady.seconds": 1.5, "perjoule.energy.uncertainty.joules": 0.12,
        "perjoule.energy.boundary": "gpu-board", "perjoule.energy.gpu.uuids": ["GPU-1", "GPU-2"],
        "perjoule.energy.calibration.id": "c1", "perjoule.energy.windows": 20, "perjoule.energy.concurrency.mean": 3.5}


async def test_without_an_energy_source_a_span_has_a_status_and_no_joules():
    """Never invented: of the energy attributes only the status remains."""
    nothing = dict.fromkeys(("energy_uj", "active_uj", "prefill_uj", "decode_uj", "steady_uj", "steady_ns",
                             "uncertainty_uj", "calibration_id", "concurrency_mean"))
    [span], _ = await sent(record(charge=nothing | {"status": Status.UNAVAILABLE}))
    energy = {name: value for name, value in attributes_of(span).items() if name.startswith("perjoule.energy.")}
    assert energy == {"perjoule.energy.status": "unavailable"}


async def test_unknown_facts_are_absent_and_zero_is_not_unknown():
    """A request of which little is known has few attributes; an explicit zero is kept."""
    unknown = dict.fromkeys(("model", "response_model", "response_id", "finish_reason", "tenant", "http_status",
                             "input_tokens", "cached_tokens", "reasoning_tokens", "first_token_ns", "queue_ns",
                             "input_source", "output_source"))
    [span], _ = await sent(record(unknown | {"output_tokens": 0}, {"energy_uj": 0}))
    found = attributes_of(span)
    assert span.name == "chat"
    assert found["gen_ai.usage.output_tokens"] == 0
    assert found["perjoule.energy.microjoules"] == 0
    assert not span.events
    assert not {"gen_ai.request.model", "gen_ai.usage.input_tokens", "http.response.status_code"} & found.keys()


@pytest.mark.parametrize(("facts", "code", "error_type"), [
    ({"outcome": Outcome.ERRORED, "error_type": "upstream_reset"}, SpanStatus.STATUS_CODE_ERROR, "upstream_reset"),
    ({"outcome": Outcome.ERRORED}, SpanStatus.STATUS_CODE_ERROR, "_OTHER"),
    ({"outcome": Outcome.CANCELLED}, SpanStatus.STATUS_CODE_UNSET, None),
    ({"outcome": Outcome.COMPLETED}, SpanStatus.STATUS_CODE_UNSET, None),
])
async def test_only_an_errored_request_is_an_error(facts, code, error_type):
    """Errored is status ERROR with an error.type, `_OTHER` where none is known; a client that left is no error."""
    [span], _ = await sent(record(facts))
    assert span.status.code == code
    assert attributes_of(span).get("error.type") == error_type


async def test_a_trace_that_begins_here_has_no_parent():
    """Without a caller's span the planned ids hold and the parent is empty."""
    [span], _ = await sent(record({"parent_span_id": None}))
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id) == (TRACE, SPAN, b"")


async def test_ids_that_were_not_planned_are_made():
    """Records without ids get valid ones, each its own."""
    unplanned = {"trace_id": None, "span_id": None, "parent_span_id": None}
    spans, _ = await sent(record(unplanned), record(unplanned))
    assert len({span.trace_id for span in spans}) == len({span.span_id for span in spans}) == 2
    assert all(any(span.trace_id) and any(span.span_id) for span in spans)


async def test_the_resource_is_perjoule_unless_told_otherwise(monkeypatch):
    """service.name is perjoule; OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and headers work as everywhere."""
    _, collector = await sent(record())
    assert collector.resource["service.name"] == "perjoule"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=front,deployment.environment.name=test")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue")
    _, collector = await sent(record())
    assert collector.resource["service.name"] == "front"
    assert collector.resource["deployment.environment.name"] == "test"
    assert collector.headers["x-team"] == "blue"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge")
    _, collector = await sent(record())
    assert collector.resource["service.name"] == "edge"


async def test_a_sampler_that_wants_none_gets_none(monkeypatch):
    """OTEL_TRACES_SAMPLER=always_off sends nothing, and that is no failure."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    spans, _ = await sent(record())
    assert spans == []


@pytest.mark.parametrize(("path", "expected"), [("", "/v1/traces"), ("/", "/v1/traces"), ("/otlp/x", "/otlp/x")])
async def test_the_path_is_the_usual_one_unless_given(path, expected):
    """A bare http endpoint means /v1/traces; a path is taken as it is."""
    with http_collector() as collector:
        await asyncio.to_thread(send, collector.url + path, record())
        assert collector.paths == [expected]


async def test_a_batch_is_sent_in_messages_that_a_collector_takes():
    """No message is much larger than the bound, nothing is lost or comes twice, in order; a span above the bound goes alone."""
    records = [record({"record_id": f"r{number}", "response_id": "x" * (9000 if number == 4 else 0)}) for number in range(10)]
    with http_collector() as collector:
        sink = OtelSpans(endpoint(TRACES, collector.url), 4000)
        await asyncio.to_thread(sink.put, records)
        sink.close()
        assert [attributes_of(span)["perjoule.record.id"] for span in collector.spans] == [f"r{number}" for number in range(10)]
        sizes = [request.ByteSize() for request in collector.requests]
        assert len(sizes) > 3
        assert sorted(sizes)[-2] < 6000 < sorted(sizes)[-1]


async def test_what_was_taken_before_a_failure_is_not_sent_again():
    """Of three messages the second fails; the batch comes again, and each span is at the collector once."""
    records = [record({"record_id": f"r{number}"}) for number in range(3)]
    with http_collector() as collector:
        sink = OtelSpans(endpoint(TRACES, collector.url), 1)
        collector.answers = [200, 503]
        with pytest.raises(TryLaterError):
            await asyncio.to_thread(sink.put, records)
        await asyncio.to_thread(sink.put, records)
        sink.close()
        assert sorted(attributes_of(span)["perjoule.record.id"] for span in collector.spans) == ["r0", "r1", "r2"]


async def test_the_resource_is_this_run_and_spans_know_their_place_in_it(monkeypatch):
    """service.instance.id is the run's, as the records have it, unless the operator names one; the span has the record's number."""
    mine = EnergyRecord(RequestFacts(**FACTS), Charge(**CHARGE), instance_id="run-1", sequence=41)
    [span], collector = await sent(mine)
    assert collector.resource["service.instance.id"] == "run-1"
    assert attributes_of(span)["perjoule.record.sequence"] == 41
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=front-7")
    _, collector = await sent(mine)
    assert collector.resource["service.instance.id"] == "front-7"


def test_a_dead_collector_is_told_in_the_log(monkeypatch, caplog):
    """Where nobody listens, the first failure and the spans lost at the end are each one warning of the outbox."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    outbox = Outbox(open_spans(f"http://127.0.0.1:{port}"))
    outbox.put(record())
    deadline = time.monotonic() + 20
    while outbox.failing is None and time.monotonic() < deadline:
        time.sleep(0.01)
    outbox.close(0)
    said = [entry.getMessage() for entry in caplog.records if entry.name == "perjoule.sidecar.records.outbox"]
    assert said[0].startswith("otlp: cannot store records, trying again: TryLaterError(")
    assert said[-1].startswith("otlp: 1 records are lost, not stored within 0 s of closing: TryLaterError: ")
    assert len(said) == 2


def test_spans_go_over_grpc_too(monkeypatch):
    """A grpc:// endpoint gets the same span over a real gRPC channel, with the environment's headers."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue")
    with grpc_collector() as collector:
        send(collector.url, record(), record({"record_id": "r2", "span_id": "c7ad6b7169203331"}))
        assert [span.span_id.hex() for span in collector.spans] == [SPAN, "c7ad6b7169203331"]
        assert attributes_of(collector.spans[0])["perjoule.energy.microjoules"] == 12_345_678
        assert collector.headers["x-team"] == "blue"
        assert collector.resource["service.name"] == "perjoule"


@pytest.mark.parametrize("endpoint", ["localhost:4318", "ftp://localhost", "http://", "http://h:x", "grpc://"])
def test_another_kind_of_endpoint_is_refused(endpoint):
    """The error says what was got and which forms are expected."""
    with pytest.raises(ValueError, match=r"expected http\(s\)://HOST:4318 or grpc"):
        open_spans(endpoint)


def test_without_the_grpc_package_the_error_says_what_to_install():
    """Where OTLP/gRPC cannot be imported, the ImportError names the extra."""
    code = ("import sys; sys.modules['grpc'] = None\n"
            "from perjoule.adapters.otel.spans import open_spans\n"
            "open_spans('grpc://127.0.0.1:4317')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'perjoule[grpc]'" in done.stderr.splitlines()[-1]


def test_importing_the_adapter_imports_no_opentelemetry():
    """Who sends no spans does not pay for the SDK."""
    code = ("import sys, perjoule.adapters.otel.spans, perjoule.adapters.otel.metrics\n"
            "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
