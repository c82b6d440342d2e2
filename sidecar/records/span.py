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
_TIMES = Struct("<cQcQ")
_DOUBLE = Struct("<d").pack
_UINT64 = (1 << 64) - 1
_SIZES = 256  # of texts, for each of which what stands before one is remembered

Value = str | bool | int | float | Sequence["Value"]


def span_bytes(record: EnergyRecord, trace_id: str, span_id: str) -> bytes:
    """The `Span` message of a record, ended and with its joules, under these ids (hex)."""
    facts, charge = record.facts, record.charge
    begin_ns, parent_id = facts.arrival_unix_ns, facts.parent_span_id
    request_id = facts.request_id.encode("utf-8", "replace")
    response_id = facts.response_id.encode("utf-8", "replace") if facts.response_id is not None else b""
    ids = f"0a10{trace_id}1208{span_id}"
    parts = [
        bytes.fromhex(f"{ids}2208{parent_id}" if parent_id else ids),
        _same_of_facts(facts.endpoint, facts.engine, facts.model, facts.streamed, facts.response_model, facts.finish_reason,
                       facts.http_status, facts.outcome, facts.error_type, facts.tenant, facts.input_source, facts.output_source),
        _TIMES.pack(b"\x39", begin_ns, b"\x41", begin_ns + facts.end_ns),
        _RECORD_ID.of(facts.record_id.encode("utf-8", "replace")), _integer(_SEQUENCE, record.sequence),
        _REQUEST_ID.of(request_id), _GENAI_REQUEST_ID.of(response_id or request_id),
    ]
    if facts.response_id is not None:
        parts.append(_RESPONSE_ID.of(response_id))
    if facts.input_tokens is not None:
        parts.append(_integer(_INPUT_TOKENS, facts.input_tokens))
    if facts.cached_tokens is not None:
        parts.append(_integer(_CACHED_TOKENS, facts.cached_tokens))
    if facts.output_tokens is not None:
        parts.append(_integer(_OUTPUT_TOKENS, facts.output_tokens))
    if facts.reasoning_tokens is not None:
        parts.append(_integer(_REASONING_TOKENS, facts.reasoning_tokens))
    if facts.queue_ns is not None:
        parts.append(_QUEUE_SECONDS + _DOUBLE(seconds(facts.queue_ns)))
    parts += _energy(charge)
    if facts.unit is not None:
        parts += _units(facts, charge)
    if facts.job_id is not None:
        parts.append(_JOB_ID.of(facts.job_id.encode("utf-8", "replace")))
    if facts.first_token_ns is not None:
        parts += (_TIME_TO_FIRST_CHUNK + _DOUBLE(seconds(facts.first_token_ns)),
                  _FIRST_TOKEN, _FIXED64.pack(begin_ns + facts.first_token_ns))
    parts += (UNSET if facts.outcome is not _ERRORED else _error(facts.error_type), _FLAGS_OF_CHILD if parent_id else _FLAGS)
    return b"".join(parts)


def export_bytes(resource: Mapping[str, Value], schema_url: str, spans: Sequence[bytes]) -> bytes:
    """The `ExportTraceServiceRequest` message of spans of one resource."""
    about = _field(0x0A, b"".join(_field(0x0A, _key_value(name, _any(value))) for name, value in resource.items()))
    scoped = [_field(0x0A, _field(0x0A, SCOPE.encode()))]
    for span in spans:
        scoped += (b"\x12", _varint(len(span)), span)
    scoped.append(_field(0x1A, SCHEMA_URL.encode()))
    scoped_size = sum(map(len, scoped))
    opening = about + b"\x12" + _varint(scoped_size)
    schema = _field(0x1A, schema_url.encode()) if schema_url else b""
    return b"".join((b"\x0a", _varint(len(opening) + scoped_size + len(schema)), opening, *scoped, schema))


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
    parts = [
        _same_of_charge(charge.status, charge.method, charge.source, charge.settled, charge.boundary, charge.devices,
                        charge.calibration_id),
        _integer(_ENERGY_MICROJOULES, charge.energy_uj), _integer(_WINDOWS, charge.windows)]
    if (charge.active_uj is not None and charge.prefill_uj is not None and charge.decode_uj is not None and charge.steady_uj is not None
            and charge.uncertainty_uj is not None and charge.steady_ns is not None and charge.concurrency_mean is not None):  # mostly
        parts.append(_ALL_REALS(
            _ENERGY_JOULES, joules(charge.energy_uj), _ACTIVE_JOULES, joules(charge.active_uj), _PREFILL_JOULES, joules(charge.prefill_uj),
            _DECODE_JOULES, joules(charge.decode_uj), _STEADY_JOULES, joules(charge.steady_uj),
            _UNCERTAINTY_JOULES, joules(charge.uncertainty_uj), _STEADY_SECONDS, seconds(charge.steady_ns),
            _CONCURRENCY, charge.concurrency_mean))
        return parts
    parts.append(_ENERGY_JOULES + _DOUBLE(joules(charge.energy_uj)))
    if charge.active_uj is not None:
        parts.append(_ACTIVE_JOULES + _DOUBLE(joules(charge.active_uj)))
    if charge.prefill_uj is not None:
        parts.append(_PREFILL_JOULES + _DOUBLE(joules(charge.prefill_uj)))
    if charge.decode_uj is not None:
        parts.append(_DECODE_JOULES + _DOUBLE(joules(charge.decode_uj)))
    if charge.steady_uj is not None:
        parts.append(_STEADY_JOULES + _DOUBLE(joules(charge.steady_uj)))
    if charge.uncertainty_uj is not None:
        parts.append(_UNCERTAINTY_JOULES + _DOUBLE(joules(charge.uncertainty_uj)))
    if charge.steady_ns is not None:
        parts.append(_STEADY_SECONDS + _DOUBLE(seconds(charge.steady_ns)))
    if charge.concurrency_mean is not None:
        parts.append(_CONCURRENCY + _DOUBLE(charge.concurrency_mean))
    return parts


def _units(facts: RequestFacts, charge: Charge) -> list[bytes]:
    """What was made that is not tokens, and the work that it was."""
    parts = [_UNIT.of(str(facts.unit).encode())]
    if facts.units is not None:
        parts.append(_UNITS + _DOUBLE(float(facts.units)))
        if charge.energy_uj is not None and facts.units:
            parts.append(_UNIT_JOULES + _DOUBLE(joules(charge.energy_uj) / facts.units))
    numbers = ((_WORK_TOKENS, facts.work_tokens), (_STEPS, facts.steps))
    return parts + [_integer(name, number) for name, number in numbers if number is not None]


def _error(error_type: str | None) -> bytes:
    return _field(0x7A, (_field(0x12, error_type.encode()) if error_type else b"") + ERROR)


# protobuf: a field is its number and kind, then for bytes, text and messages their length

def _field(tag: int, data: bytes) -> bytes:
    return bytes((tag,)) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    if number >> 63:  # below 0, which is written as in 64 bits
        number &= _UINT64
    out = b""
    while number > 0x7F:
        out += _MORE[number & 0x7F]
        number >>= 7
    return out + _LAST[number]


_LAST = tuple(bytes((low,)) for low in range(0x80))
_MORE = tuple(bytes((low | 0x80,)) for low in range(0x80))


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
        return b"\x21" + _DOUBLE(value)
    return _field(0x2A, b"".join(_field(0x0A, _any(each)) for each in value))


def _attributes(attributes: Mapping[str, Value | None]) -> bytes:
    """Those that are known, as `Span.attributes`."""
    return b"".join(_field(0x4A, _key_value(name, _any(value))) for name, value in attributes.items() if value is not None)


def _opening(name: str, size: int) -> bytes:
    """What stands before the `AnyValue` of so many bytes of one of `Span.attributes`."""
    opening = _field(0x0A, name.encode()) + b"\x12" + _varint(size)
    return b"\x4a" + _varint(len(opening) + size) + opening


# for each of `Span.attributes` that a record has for itself alone, what stands before its value

class _Text:
    """One of `Span.attributes` that is text; what stands before it is remembered by its size."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._openings: dict[int, bytes] = {}

    def of(self, text: bytes) -> bytes:
        """The attribute with this text, which is UTF-8."""
        size = len(text)
        opening = self._openings.get(size)
        if opening is None:
            value = b"\x0a" + _varint(size)
            opening = _opening(self._name, len(value) + size) + value
            if len(self._openings) < _SIZES:
                self._openings[size] = opening
        return opening + text


def _before_integer(name: str) -> tuple[bytes, ...]:
    return tuple(_opening(name, 1 + size) + b"\x18" for size in range(11))


def _integer(before: tuple[bytes, ...], number: int) -> bytes:
    value = _varint(number)
    return before[len(value)] + value


def _before_real(name: str) -> bytes:
    return _opening(name, 9) + b"\x21"


_RECORD_ID = _Text(Attribute.RECORD_ID)
_REQUEST_ID = _Text(Attribute.REQUEST_ID)
_GENAI_REQUEST_ID = _Text(Attribute.GENAI_REQUEST_ID)
_RESPONSE_ID = _Text(Attribute.RESPONSE_ID)
_JOB_ID = _Text(Attribute.JOB_ID)
_UNIT = _Text(Attribute.UNIT)
_SEQUENCE = _before_integer(Attribute.SEQUENCE)
_INPUT_TOKENS = _before_integer(Attribute.INPUT_TOKENS)
_CACHED_TOKENS = _before_integer(Attribute.CACHED_TOKENS)
_OUTPUT_TOKENS = _before_integer(Attribute.OUTPUT_TOKENS)
_REASONING_TOKENS = _before_integer(Attribute.REASONING_TOKENS)
_ENERGY_MICROJOULES = _before_integer(Attribute.ENERGY_MICROJOULES)
_WINDOWS = _before_integer(Attribute.WINDOWS)
_WORK_TOKENS = _before_integer(Attribute.WORK_TOKENS)
_STEPS = _before_integer(Attribute.STEPS)
_QUEUE_SECONDS = _before_real(Attribute.QUEUE_SECONDS)
_TIME_TO_FIRST_CHUNK = _before_real(Attribute.TIME_TO_FIRST_CHUNK)
_UNITS = _before_real(Attribute.UNITS)
_UNIT_JOULES = _before_real(Attribute.UNIT_JOULES)
_ENERGY_JOULES = _before_real(Attribute.ENERGY_JOULES)
_ACTIVE_JOULES = _before_real(Attribute.ACTIVE_JOULES)
_PREFILL_JOULES = _before_real(Attribute.PREFILL_JOULES)
_DECODE_JOULES = _before_real(Attribute.DECODE_JOULES)
_STEADY_JOULES = _before_real(Attribute.STEADY_JOULES)
_UNCERTAINTY_JOULES = _before_real(Attribute.UNCERTAINTY_JOULES)
_STEADY_SECONDS = _before_real(Attribute.STEADY_SECONDS)
_CONCURRENCY = _before_real(Attribute.CONCURRENCY)
_ALL_REALS = Struct("<" + "".join(f"{len(before)}sd" for before in (
    _ENERGY_JOULES, _ACTIVE_JOULES, _PREFILL_JOULES, _DECODE_JOULES, _STEADY_JOULES, _UNCERTAINTY_JOULES, _STEADY_SECONDS,
    _CONCURRENCY))).pack
_ERRORED = Outcome.ERRORED
_FLAGS = b"\x85\x01" + _FIXED32.pack(HAS_IS_REMOTE)
_FLAGS_OF_CHILD = b"\x85\x01" + _FIXED32.pack(HAS_IS_REMOTE | IS_REMOTE)
_FIRST_TOKEN = b"\x5a" + _varint(9 + len(_field(0x12, FIRST_TOKEN_EVENT.encode()))) + _field(0x12, FIRST_TOKEN_EVENT.encode()) + b"\x09"
