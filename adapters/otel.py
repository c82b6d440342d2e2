"""One OpenTelemetry span for each request, sent once its joules are settled, with the times and ids it really had."""

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit, urlunsplit

from perjoule.sidecar.endpoints import OPERATIONS
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts
from perjoule.sidecar.telemetry import FIRST_TOKEN_EVENT, OTHER_ERROR, SCHEMA_URL, SCOPE, Attribute
from perjoule.sidecar.units import joules, seconds

if TYPE_CHECKING:  # half a second and 20 MB (measured): only who sends spans pays for it
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.id_generator import IdGenerator

TRACES_PATH = "/v1/traces"


class ExportError(Exception):
    """A collector that did not take spans; the exporter has logged why."""


class OtelSpans:
    """A RecordSink that sends SERVER spans to an OTLP collector, over HTTP (`http(s)://`) or plain gRPC (`grpc://`).

    The usual `OTEL_*` variables hold (resource, headers, timeout, compression, certificates, sampler), since the SDK
    reads them. There is no span processor: the outbox queues, batches and tries again, so that no span is lost unseen.
    The constructor raises ValueError for an endpoint of another kind, ImportError where OTLP/gRPC is not installed.
    """

    name = "otlp"

    def __init__(self, endpoint: str) -> None:
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider

        # A line a retry would flood the log while a collector is away; the outbox tells when that begins and ends.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
        self._endpoint = endpoint
        self._exporter = _exporter(endpoint)
        self._ids = _PlannedIds()
        resource = Resource.create({SERVICE_NAME: SCOPE}).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, shutdown_on_exit=False,
                                  id_generator=cast("IdGenerator", self._ids))
        self._tracer = provider.get_tracer(SCOPE, schema_url=SCHEMA_URL)

    def put(self, records: Sequence[EnergyRecord]) -> None:
        """Send these records as spans; returns when the collector has taken them, else raises ExportError."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        spans = [span for record in records if (span := self._span(record)) is not None]
        if spans and self._exporter.export(spans) is not SpanExportResult.SUCCESS:
            raise ExportError(f"{self._endpoint} did not take {len(spans)} spans")

    def close(self) -> None:
        """Release the connection; nothing is waiting here."""
        self._exporter.shutdown()

    def _span(self, record: EnergyRecord) -> "ReadableSpan | None":
        """The ended span of a record; None where the sampler (OTEL_TRACES_SAMPLER) leaves it out."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanKind, StatusCode

        facts = record.facts
        self._ids.plan(facts)
        operation = OPERATIONS.get(facts.endpoint, facts.endpoint)
        span = self._tracer.start_span(
            f"{operation} {facts.model}" if facts.model else operation, context=_caller(facts), kind=SpanKind.SERVER,
            start_time=facts.arrival_unix_ns,
            attributes={name: value for name, value in _attributes(record, operation) if value is not None})
        if facts.first_token_ns is not None:
            span.add_event(FIRST_TOKEN_EVENT, timestamp=facts.arrival_unix_ns + facts.first_token_ns)
        if facts.outcome is Outcome.ERRORED:
            span.set_status(StatusCode.ERROR, facts.error_type)
        span.end(facts.arrival_unix_ns + facts.end_ns)
        return span if isinstance(span, ReadableSpan) and span.get_span_context().trace_flags.sampled else None


class _PlannedIds:
    """The SDK's IdGenerator, handing out ids that were decided when the request began and went upstream with it."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

        self._random = RandomIdGenerator()
        self._trace_id: str | None = None
        self._span_id: str | None = None

    def plan(self, facts: RequestFacts) -> None:
        """The next span is this request's."""
        self._trace_id, self._span_id = facts.trace_id, facts.span_id

    def generate_trace_id(self) -> int:
        return int(self._trace_id, 16) if self._trace_id else self._random.generate_trace_id()

    def generate_span_id(self) -> int:
        return int(self._span_id, 16) if self._span_id else self._random.generate_span_id()

    def is_trace_id_random(self) -> bool:
        return False


def _caller(facts: RequestFacts) -> "Context":
    """The context of the span that called us, empty where the trace begins here."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    if facts.trace_id is None or facts.parent_span_id is None:
        return Context()
    caller = SpanContext(int(facts.trace_id, 16), int(facts.parent_span_id, 16), is_remote=True,
                         trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(caller), Context())


def _attributes(record: EnergyRecord, operation: str) -> Iterator[tuple[str, Any]]:
    """Attributes by name, None where unknown."""
    facts = record.facts
    yield Attribute.OPERATION, operation
    yield Attribute.PROVIDER, facts.engine
    yield Attribute.REQUEST_MODEL, facts.model
    yield Attribute.REQUEST_STREAM, facts.streamed
    yield Attribute.RESPONSE_MODEL, facts.response_model
    yield Attribute.RESPONSE_ID, facts.response_id
    yield Attribute.FINISH_REASONS, (facts.finish_reason,) if facts.finish_reason else None
    yield Attribute.TIME_TO_FIRST_CHUNK, _seconds(facts.first_token_ns)
    yield Attribute.INPUT_TOKENS, facts.input_tokens
    yield Attribute.CACHED_TOKENS, facts.cached_tokens
    yield Attribute.OUTPUT_TOKENS, facts.output_tokens
    yield Attribute.REASONING_TOKENS, facts.reasoning_tokens
    yield Attribute.HTTP_METHOD, "POST"  # only POST is metered
    yield Attribute.HTTP_STATUS, facts.http_status
    yield Attribute.ERROR_TYPE, facts.error_type or (OTHER_ERROR if facts.outcome is Outcome.ERRORED else None)
    yield Attribute.RECORD_ID, facts.record_id
    yield Attribute.REQUEST_ID, facts.request_id
    yield Attribute.ENDPOINT, facts.endpoint
    yield Attribute.OUTCOME, str(facts.outcome)
    yield Attribute.TENANT, facts.tenant
    yield Attribute.QUEUE_SECONDS, _seconds(facts.queue_ns)
    yield Attribute.INPUT_SOURCE, facts.input_source and str(facts.input_source)
    yield Attribute.OUTPUT_SOURCE, facts.output_source and str(facts.output_source)
    yield from _energy(record.charge)


def _energy(charge: Charge) -> Iterator[tuple[str, Any]]:
    yield Attribute.ENERGY_STATUS, str(charge.status)
    if charge.energy_uj is None:
        return
    yield Attribute.ENERGY_METHOD, charge.method
    yield Attribute.ENERGY_SOURCE, charge.source
    yield Attribute.ENERGY_SETTLED, charge.settled
    yield Attribute.ENERGY_JOULES, joules(charge.energy_uj)
    yield Attribute.ENERGY_MICROJOULES, charge.energy_uj
    yield Attribute.ACTIVE_JOULES, _joules(charge.active_uj)
    yield Attribute.PREFILL_JOULES, _joules(charge.prefill_uj)
    yield Attribute.DECODE_JOULES, _joules(charge.decode_uj)
    yield Attribute.STEADY_JOULES, _joules(charge.steady_uj)
    yield Attribute.STEADY_SECONDS, _seconds(charge.steady_ns)
    yield Attribute.UNCERTAINTY_JOULES, _joules(charge.uncertainty_uj)
    yield Attribute.BOUNDARY, charge.boundary or None
    yield Attribute.DEVICES, charge.devices or None
    yield Attribute.CALIBRATION_ID, charge.calibration_id
    yield Attribute.WINDOWS, charge.windows
    yield Attribute.CONCURRENCY, charge.concurrency_mean


def _joules(uj: int | None) -> float | None:
    return None if uj is None else joules(uj)


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else seconds(ns)


def _exporter(endpoint: str) -> "SpanExporter":
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https", "grpc") or not parts.hostname:
        raise ValueError(f"--otlp: got {endpoint!r}, expected http://HOST:4318, https://HOST:4318 or grpc://HOST:4317")
    if parts.scheme == "grpc":
        try:
            from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as otlp_grpc
        except ImportError as error:
            raise ImportError(f"--otlp {endpoint}: OTLP/gRPC is not installed: pip install 'perjoule[grpc]'") from error
        return otlp_grpc.OTLPSpanExporter(endpoint=parts.netloc, insecure=True)
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as otlp_http

    path = parts.path if parts.path.strip("/") else TRACES_PATH
    return otlp_http.OTLPSpanExporter(endpoint=urlunsplit(parts._replace(path=path)))
