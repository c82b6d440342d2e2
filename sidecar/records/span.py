"""One request's OpenTelemetry span, written as the bytes of OTLP's protobuf messages (opentelemetry-proto: trace.proto, common.proto).

The SDK's span and its encoding take longer than relaying the request does; this takes a tenth of it. Most of a span is the same for
many requests, and is written once: the model, the engine, the method, the boards. `tests/sidecar/records/test_span.py` holds it to
the SDK's.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from struct import Struct

from perjoule.sidecar.dialects.endpoints import OPERATIONS
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts
from perjoule.sidecar.telemetry import FIRST_TOKEN_EVENT, OTHER_ERROR, SCHEMA_URL, SCOPE, Attribute
from perjoule.sidecar.units import joules, seconds

SERVER = 2  # Span.kind
UNSET, ERROR = b"\x7a\x00", b"\x18\x02"  # Span.status without a code; Status.code
HAS_IS_REMOTE, IS_REMOTE = 0x100, 0x200  # Span.flags: it is known whether the parent is another process's, and it is
_FIXED64 = Struct("<Q")
_FIXED32 = Struct("<I")
_DOUBLE = Struct("<d")
_UINT64 = (1 << 64) - 1

Value = str | bool | int | float | Sequence["Value"]


def span_bytes(record: EnergyRecord, trace_id: str, span_id: str) -> bytes:
    """The `Span` message of a record, ended and with its joules, under these ids (hex)."""
    facts, charge = record.facts, record.charge
    begin_ns, parent_id = facts.arrival_unix_ns, facts.parent_span_id
    parts = [
        b"\x0a\x10", bytes.fromhex(trace_id), b"\x12\x08", bytes.fromhex(span_id),
        b"\x22\x08" + bytes.fromhex(parent_id) if parent_id else b"",
        _same_of_facts(facts.endpoint, facts.engine, facts.model, facts.streamed, facts.response_model, facts.finish_reason,
                       facts.http_status, facts.outcome, facts.error_type, facts.tenant, facts.input_source, facts.output_source),
        b"\x39", _FIXED64.pack(begin_ns), b"\x41", _FIXED64.pack(begin_ns + facts.end_ns),
        _text(Attribute.RECORD_ID, facts.record_id), _integer(Attribute.SEQUENCE, record.sequence),
        _text(Attribute.REQUEST_ID, facts.request_id), _text(Attribute.GENAI_REQUEST_ID, facts.response_id or facts.request_id),
    ]
    if facts.response_id is not None:
        parts.append(_text(Attribute.RESPONSE_ID, facts.response_id))
    numbers = ((Attribute.INPUT_TOKENS, facts.input_tokens), (Attribute.CACHED_TOKENS, facts.cached_tokens),
               (Attribute.OUTPUT_TOKENS, facts.output_tokens), (Attribute.REASONING_TOKENS, facts.reasoning_tokens))
    parts += [_integer(name, number) for name, number in numbers if number is not None]
    if facts.queue_ns is not None:
        parts.append(_real(Attribute.QUEUE_SECONDS, seconds(facts.queue_ns)))
    parts += _energy(charge)
    if facts.unit is not None:
        parts += _units(facts, charge)
    if facts.job_id is not None:
        parts.append(_text(Attribute.JOB_ID, facts.job_id))
    if facts.first_token_ns is not None:
        parts += (_real(Attribute.TIME_TO_FIRST_CHUNK, seconds(facts.first_token_ns)),
                  _FIRST_TOKEN, _FIXED64.pack(begin_ns + facts.first_token_ns))
    parts += (_status(facts), b"\x85\x01", _FIXED32.pack(HAS_IS_REMOTE | (IS_REMOTE if parent_id else 0)))
    return b"".join(parts)


def export_bytes(resource: Mapping[str, Value], schema_url: str, spans: Sequence[bytes]) -> bytes:
    """The `ExportTraceServiceRequest` message of spans of one resource."""
    about = b"".join(_field(0x0A, _key_value(name, _any(value))) for name, value in resource.items())
    scope = _field(0x0A, _field(0x0A, SCOPE.encode()))
    scoped = b"".join((scope, *(_field(0x12, span) for span in spans), _field(0x1A, SCHEMA_URL.encode())))
    schema = _field(0x1A, schema_url.encode()) if schema_url else b""
    return _field(0x0A, _field(0x0A, about) + _field(0x12, scoped) + schema)


def span_name(endpoint: str, model: str | None) -> str:
    """What the conventions call a span: the operation, and the model where one was asked for."""
    operation = OPERATIONS.get(endpoint, endpoint)
    return f"{operation} {model}" if model else operation


@lru_cache(maxsize=1024)
def _same_of_facts(endpoint: str, engine: str, model: str | None, streamed: bool, response_model: str | None, finish_reason: str | None,
                   http_status: int | None, outcome: Outcome, error_type: str | None, tenant: str | None, input_source: str | None,
                   output_source: str | None) -> bytes:
    """Name, kind, and the attributes that many requests have in common."""
    attributes: dict[str, Value | None] = {
        Attribute.OPERATION: OPERATIONS.get(endpoint, endpoint), Attribute.PROVIDER: engine, Attribute.REQUEST_MODEL: model,
        Attribute.REQUEST_STREAM: streamed, Attribute.RESPONSE_MODEL: response_model,
        Attribute.FINISH_REASONS: (finish_reason,) if finish_reason else None,
        Attribute.HTTP_METHOD: "POST",  # only POST is metered
        Attribute.HTTP_STATUS: http_status,
        Attribute.ERROR_TYPE: error_type or (OTHER_ERROR if outcome is Outcome.ERRORED else None),
        Attribute.ENDPOINT: endpoint, Attribute.OUTCOME: outcome, Attribute.TENANT: tenant, Attribute.INPUT_SOURCE: input_source,
        Attribute.OUTPUT_SOURCE: output_source}
    return _field(0x2A, span_name(endpoint, model).encode("utf-8", "replace")) + bytes((0x30, SERVER)) + _attributes(attributes)


@lru_cache(maxsize=1024)
def _same_of_charge(status: str, method: str, source: str, settled: bool, boundary: str, devices: tuple[str, ...],
                    calibration_id: str | None) -> bytes:
    return _attributes({
        Attribute.ENERGY_STATUS: status, Attribute.ENERGY_METHOD: method, Attribute.ENERGY_SOURCE: source,
        Attribute.ENERGY_SETTLED: settled, Attribute.BOUNDARY: boundary or None, Attribute.DEVICES: devices or None,
        Attribute.CALIBRATION_ID: calibration_id})


def _energy(charge: Charge) -> list[bytes]:
    """The attributes of a charge; where no energy is known, its status alone."""
    if charge.energy_uj is None:
        return [_attributes({Attribute.ENERGY_STATUS: charge.status})]
    amounts = ((Attribute.ENERGY_JOULES, charge.energy_uj), (Attribute.ACTIVE_JOULES, charge.active_uj),
               (Attribute.PREFILL_JOULES, charge.prefill_uj), (Attribute.DECODE_JOULES, charge.decode_uj),
               (Attribute.STEADY_JOULES, charge.steady_uj), (Attribute.UNCERTAINTY_JOULES, charge.uncertainty_uj))
    parts = [_same_of_charge(charge.status, charge.method, charge.source, charge.settled, charge.boundary, charge.devices,
                             charge.calibration_id),
             _integer(Attribute.ENERGY_MICROJOULES, charge.energy_uj), _integer(Attribute.WINDOWS, charge.windows)]
    parts += [_real(name, joules(uj)) for name, uj in amounts if uj is not None]
    if charge.steady_ns is not None:
        parts.append(_real(Attribute.STEADY_SECONDS, seconds(charge.steady_ns)))
    if charge.concurrency_mean is not None:
        parts.append(_real(Attribute.CONCURRENCY, charge.concurrency_mean))
    return parts


def _units(facts: RequestFacts, charge: Charge) -> list[bytes]:
    """What was made that is not tokens, and the work that it was."""
    parts = [_text(Attribute.UNIT, str(facts.unit))]
    if facts.units is not None:
        parts.append(_real(Attribute.UNITS, float(facts.units)))
        if charge.energy_uj is not None and facts.units:
            parts.append(_real(Attribute.UNIT_JOULES, joules(charge.energy_uj) / facts.units))
    numbers = ((Attribute.WORK_TOKENS, facts.work_tokens), (Attribute.STEPS, facts.steps))
    return parts + [_integer(name, number) for name, number in numbers if number is not None]


def _status(facts: RequestFacts) -> bytes:
    if facts.outcome is not Outcome.ERRORED:
        return UNSET
    return _field(0x7A, (_field(0x12, facts.error_type.encode()) if facts.error_type else b"") + ERROR)


# protobuf: a field is its number and kind, then for bytes, text and messages their length

def _field(tag: int, data: bytes) -> bytes:
    return bytes((tag,)) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    number &= _UINT64
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _key_value(name: str, value: bytes) -> bytes:
    return _field(0x0A, name.encode()) + _field(0x12, value)


def _any(value: Value) -> bytes:
    """The `AnyValue` message."""
    if isinstance(value, str):
        return _field(0x0A, value.encode("utf-8", "replace"))
    if isinstance(value, bool):
        return bytes((0x10, value))
    if isinstance(value, int):
        return b"\x18" + _varint(value)
    if isinstance(value, float):
        return b"\x21" + _DOUBLE.pack(value)
    return _field(0x2A, b"".join(_field(0x0A, _any(each)) for each in value))


def _attributes(attributes: Mapping[str, Value | None]) -> bytes:
    """Those that are known, as `Span.attributes`."""
    return b"".join(_field(0x4A, _key_value(name, _any(value))) for name, value in attributes.items() if value is not None)


@lru_cache(maxsize=4096)
def _opening(name: str, size: int) -> bytes:
    """What stands before the `AnyValue` of so many bytes of one of `Span.attributes`."""
    opening = _field(0x0A, name.encode()) + b"\x12" + _varint(size)
    return b"\x4a" + _varint(len(opening) + size) + opening


def _text(name: str, text: str) -> bytes:
    value = _field(0x0A, text.encode("utf-8", "replace"))
    return _opening(name, len(value)) + value


def _integer(name: str, number: int) -> bytes:
    value = b"\x18" + _varint(number)
    return _opening(name, len(value)) + value


def _real(name: str, number: float) -> bytes:
    return _opening(name, 9) + b"\x21" + _DOUBLE.pack(number)


_FIRST_TOKEN = b"\x5a" + _varint(9 + len(_field(0x12, FIRST_TOKEN_EVENT.encode()))) + _field(0x12, FIRST_TOKEN_EVENT.encode()) + b"\x09"
