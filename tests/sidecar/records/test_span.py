"""A span in bytes: what the official protobufs read out of them is what the SDK would have sent, for any record."""

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status as SpanStatus
from opentelemetry.trace.status import StatusCode

from perjoule.sidecar.dialects.endpoints import OPERATIONS
from perjoule.sidecar.record import EnergyRecord, Outcome
from perjoule.sidecar.records.span import export_bytes, span_bytes, span_name
from perjoule.sidecar.telemetry import SCHEMA_URL, SCOPE, Attribute
from perjoule.sidecar.units import joules, seconds
from tests.fakes.records import charges, facts, records

RESOURCE = {"service.name": "front", "port": 9000, "ratio": 0.5, "test": True, "hosts": ("a", "b")}

def by_the_sdk(record):
    """The same record as the SDK's span, encoded by the SDK's exporter."""
    facts, charge = record.facts, record.charge
    operation = OPERATIONS[facts.endpoint]
    attributes = {
        Attribute.OPERATION: operation, Attribute.PROVIDER: facts.engine, Attribute.REQUEST_MODEL: facts.model,
        Attribute.REQUEST_STREAM: facts.streamed, Attribute.RESPONSE_MODEL: facts.response_model,
        Attribute.RESPONSE_ID: facts.response_id, Attribute.FINISH_REASONS: [facts.finish_reason] if facts.finish_reason else None,
        Attribute.TIME_TO_FIRST_CHUNK: _or_none(seconds, facts.first_token_ns), Attribute.INPUT_TOKENS: facts.input_tokens,
        Attribute.CACHED_TOKENS: facts.cached_tokens, Attribute.OUTPUT_TOKENS: facts.output_tokens,
        Attribute.REASONING_TOKENS: facts.reasoning_tokens, Attribute.HTTP_METHOD: "POST", Attribute.HTTP_STATUS: facts.http_status,
        Attribute.ERROR_TYPE: facts.error_type or ("_OTHER" if facts.outcome is Outcome.ERRORED else None),
        Attribute.RECORD_ID: facts.record_id, Attribute.SEQUENCE: record.sequence, Attribute.REQUEST_ID: facts.request_id,
        Attribute.GENAI_REQUEST_ID: facts.response_id or facts.request_id, Attribute.ENDPOINT: facts.endpoint,
        Attribute.OUTCOME: str(facts.outcome), Attribute.TENANT: facts.tenant,
        Attribute.QUEUE_SECONDS: _or_none(seconds, facts.queue_ns), Attribute.INPUT_SOURCE: _or_none(str, facts.input_source),
        Attribute.OUTPUT_SOURCE: _or_none(str, facts.output_source), Attribute.ENERGY_STATUS: str(charge.status)}
    if charge.energy_uj is not None:
        attributes |= {
            Attribute.ENERGY_METHOD: charge.method, Attribute.ENERGY_SOURCE: charge.source, Attribute.ENERGY_SETTLED: charge.settled,
            Attribute.ENERGY_JOULES: joules(charge.energy_uj), Attribute.ENERGY_MICROJOULES: charge.energy_uj,
            Attribute.ACTIVE_JOULES: _or_none(joules, charge.active_uj), Attribute.PREFILL_JOULES: _or_none(joules, charge.prefill_uj),
            Attribute.DECODE_JOULES: _or_none(joules, charge.decode_uj), Attribute.STEADY_JOULES: _or_none(joules, charge.steady_uj),
            Attribute.STEADY_SECONDS: _or_none(seconds, charge.steady_ns),
            Attribute.UNCERTAINTY_JOULES: _or_none(joules, charge.uncertainty_uj), Attribute.BOUNDARY: charge.boundary or None,
            Attribute.DEVICES: list(charge.devices) or None, Attribute.CALIBRATION_ID: charge.calibration_id,
            Attribute.WINDOWS: charge.windows, Attribute.CONCURRENCY: charge.concurrency_mean}
    if facts.unit is not None:
        per_unit = joules(charge.energy_uj) / facts.units if charge.energy_uj is not None and facts.units else None
        attributes |= {Attribute.UNIT: str(facts.unit), Attribute.UNITS: _or_none(float, facts.units), Attribute.UNIT_JOULES: per_unit,
                       Attribute.WORK_TOKENS: facts.work_tokens, Attribute.STEPS: facts.steps}
    attributes[Attribute.JOB_ID] = facts.job_id
    trace_id, parent = int(facts.trace_id, 16), facts.parent_span_id
    is_error = facts.outcome is Outcome.ERRORED
    span = ReadableSpan(
        span_name(facts.endpoint, facts.model), SpanContext(trace_id, int(facts.span_id, 16), is_remote=False),
        SpanContext(trace_id, int(parent, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)) if parent else None,
        Resource(RESOURCE), {str(name): value for name, value in attributes.items() if value is not None},
        [] if facts.first_token_ns is None else [Event("perjoule.first_token", timestamp=facts.arrival_unix_ns + facts.first_token_ns)],
        kind=SpanKind.SERVER, status=SpanStatus(StatusCode.ERROR, facts.error_type) if is_error else SpanStatus(),
        start_time=facts.arrival_unix_ns, end_time=facts.arrival_unix_ns + facts.end_ns,
        instrumentation_scope=InstrumentationScope(SCOPE, schema_url=SCHEMA_URL))
    return encode_spans([span])


def _or_none(change, value):
    return None if value is None else change(value)


def sorted_request(request):
    """Attributes have no order; everything else has."""
    for part in request.resource_spans:
        part.resource.attributes.sort(key=lambda attribute: attribute.key)
        for scope in part.scope_spans:
            for span in scope.spans:
                span.attributes.sort(key=lambda attribute: attribute.key)
                if span.status.code == 0:
                    span.ClearField("status")  # unset, whether it is said or not
    return request


@given(records)
def test_a_span_is_what_the_sdk_would_have_sent(record):
    """Field by field and attribute by attribute, with the resource and the scope around it."""
    span = span_bytes(record, record.facts.trace_id, record.facts.span_id)
    made = ExportTraceServiceRequest.FromString(export_bytes(RESOURCE, "", [span]))
    assert sorted_request(made) == sorted_request(by_the_sdk(record))


@given(st.lists(facts, max_size=5), charges)
def test_many_spans_share_one_resource(many, charge):
    """In the order in which they came."""
    spans = [span_bytes(EnergyRecord(each, charge), each.trace_id, each.span_id) for each in many]
    made = ExportTraceServiceRequest.FromString(export_bytes({}, "https://schema", spans))
    assert [span.span_id.hex() for span in made.resource_spans[0].scope_spans[0].spans] == [each.span_id for each in many]
    assert made.resource_spans[0].schema_url == "https://schema"
