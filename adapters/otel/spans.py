"""One OpenTelemetry span for each request, sent once its joules are settled, with the times and ids it really had."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from perjoule.adapters.otel.environment import TRACES, Endpoint, endpoint, resource
from perjoule.adapters.otel.transport import collector
from perjoule.sidecar.ports import RefusedError
from perjoule.sidecar.record import EnergyRecord
from perjoule.sidecar.records.span import export_bytes, span_bytes, span_name
from perjoule.sidecar.telemetry import INSTANCE_ID

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.sampling import Sampler

MESSAGE_MOST_BYTES = 2 << 20  # of spans in one message; gRPC servers take 4 MiB if nothing else is said


def open_spans(asked: str) -> "OtelSpans | None":
    """The way for spans that `--otlp` or the `OTEL_*` variables ask for, None if neither does. Raises ValueError and ImportError."""
    where = endpoint(TRACES, asked)
    return OtelSpans(where) if where is not None else None


class OtelSpans:
    """A RecordSink that sends SERVER spans to an OTLP collector.

    The usual `OTEL_*` variables hold: the SDK reads those of resource and sampler, `environment` those of the exporter. There is no
    span processor: the outbox queues, batches and tries again, so that no span is lost unseen.
    """

    name = "otlp"

    def __init__(self, where: Endpoint, message_most_bytes: int = MESSAGE_MOST_BYTES) -> None:
        self._collector, self._message_most_bytes = collector(TRACES, where), message_most_bytes
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        from opentelemetry.sdk.trace.sampling import DEFAULT_ON

        self._resource, self._schema_url = resource()
        sampler = TracerProvider(shutdown_on_exit=False).sampler
        self._sampler = None if sampler is DEFAULT_ON else sampler  # which wants all of ours, and need not be asked
        self._random = RandomIdGenerator()
        self._taken: set[str] = set()  # ids in a batch of which a later part failed, so that it will come again
        self._refused, self._why = 0, ""  # of the same

    def put(self, records: Sequence[EnergyRecord]) -> None:
        """Send these records as spans; returns when the collector has taken them. Raises TryLaterError, or RefusedError."""
        spans = [(record_id, span) for record in records
                 if (record_id := record.facts.record_id) not in self._taken and (span := self._span(record)) is not None]
        about = {INSTANCE_ID: records[0].instance_id, **self._resource}
        sent: list[tuple[str, bytes]] = []
        for part in _parts(spans, self._message_most_bytes):
            try:
                self._collector.send(export_bytes(about, self._schema_url, [span for _, span in part]), len(part))
            except RefusedError as error:
                self._refused, self._why = self._refused + error.count, str(error)
            except BaseException:
                self._taken.update(record_id for record_id, _ in sent)
                raise
            sent += part
        refused, self._refused, self._taken = self._refused, 0, set()
        if refused:
            raise RefusedError(f"{refused} of {len(records)} spans: {self._why}", refused)

    def close(self) -> None:
        """Release the connection; nothing is waiting here."""
        self._collector.close()

    def _span(self, record: EnergyRecord) -> bytes | None:
        """The span of a record; None where the sampler (OTEL_TRACES_SAMPLER) leaves it out."""
        facts = record.facts
        trace_id = facts.trace_id or f"{self._random.generate_trace_id():032x}"
        span_id = facts.span_id or f"{self._random.generate_span_id():016x}"
        if self._sampler is not None and not self._is_sampled(self._sampler, record, trace_id):
            return None
        return span_bytes(record, trace_id, span_id)

    def _is_sampled(self, sampler: "Sampler", record: EnergyRecord, trace_id: str) -> bool:
        from opentelemetry.context import Context
        from opentelemetry.sdk.trace.sampling import Decision
        from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

        facts, caller = record.facts, Context()
        if facts.trace_id is not None and facts.parent_span_id is not None:
            named = SpanContext(int(facts.trace_id, 16), int(facts.parent_span_id, 16), is_remote=True,
                                trace_flags=TraceFlags(TraceFlags.SAMPLED))
            caller = set_span_in_context(NonRecordingSpan(named), caller)
        name = span_name(facts.endpoint, facts.model)
        return sampler.should_sample(caller, int(trace_id, 16), name, SpanKind.SERVER).decision is Decision.RECORD_AND_SAMPLE


def _parts(spans: Sequence[tuple[str, bytes]], most_bytes: int) -> list[list[tuple[str, bytes]]]:
    """The same in parts of at most so many bytes; a larger span is alone."""
    parts: list[list[tuple[str, bytes]]] = []
    room = 0
    for record_id, span in spans:
        if len(span) > room:
            parts.append([])
            room = most_bytes
        parts[-1].append((record_id, span))
        room -= len(span)
    return parts
