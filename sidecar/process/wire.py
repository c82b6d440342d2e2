"""What the processes of a sidecar say to each other, as bytes: messages by the batch, frames of streams by the dozen, records.

A batch is one byte, its length (4 bytes) and its body: a JSON list of messages, or triples of 64-bit integers (number, t_ns, count). A
message is its kind and the list of what is said; dataclasses are lists of their values in the order of their fields. A request is named
by a number that its worker gave it. Both ends are of one build: there are no versions.
"""

import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import fields
from enum import IntEnum, StrEnum
from operator import attrgetter
from typing import Any, TypeVar

import orjson

from perjoule.sidecar.access.doors import Refusal
from perjoule.sidecar.dialects.jobs import Kind as JobKind
from perjoule.sidecar.dialects.jobs import Look, Opened, Seen, State, Verb
from perjoule.sidecar.dialects.jobwatch import View
from perjoule.sidecar.dialects.requests import Asked
from perjoule.sidecar.dialects.usage import Usage
from perjoule.sidecar.dialects.works import Product
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status, TokenSource, Unit, UnitSource

T = TypeVar("T")
_HEAD = struct.Struct("<BI")
_MESSAGES, _FRAMES = 0, 1


class Kind(IntEnum):
    """What a message says. Those of the first group go to the meter, the others to a worker."""

    BEGUN = 1  # number, t_ns, rank, Asked, the facts to record should nothing more be heard
    PROMPT = 2  # number, tokens, cached
    FRAMES = 3  # triples of number, t_ns, count
    ENDED = 4  # number, t_ns, facts
    ASK = 5  # record id, t_ns, whether it is to be settled
    FIND = 6  # question, the id of a record or of a request
    ADMIT = 7  # question, t_ns, the name of a key
    FAILED = 8  # nothing: one request could not be metered
    LISTENING = 9  # nothing: clients are taken
    DRAINED = 10  # nothing: the last answer is out
    OUTLIVES = 11  # number, t_ns, facts, the job that it has become
    SAW = 12  # the job's kind and id, what was seen of it, t_ns
    REMOVED = 13  # ids of jobs that a client wants out of the queue, t_ns
    VIEW = 14  # question, a look at a job

    TOLD = 16  # record id, charge or null
    FOUND = 17  # question, record or null, error or null
    ADMITTED = 18  # question, why it is refused or null
    SETTINGS = 19  # Config, whether there are spans, the engine
    DRAIN = 20  # nothing: take no more, finish what runs
    CUT = 21  # nothing: finish at once
    VIEWED = 22  # question, view or null, error or null


def message(kind: Kind, *said: Any) -> bytes:
    """One message of a batch."""
    return orjson.dumps((kind, said), _values, orjson.OPT_PASSTHROUGH_DATACLASS)


def batch(messages: Sequence[bytes]) -> bytes:
    """What is sent to say all of these."""
    body = b"[" + b",".join(messages) + b"]"
    return _HEAD.pack(_MESSAGES, len(body)) + body


def frames(triples: "array[int]") -> bytes:
    """What is sent to say FRAMES of an array of 64-bit integers."""
    body = triples.tobytes()
    return _HEAD.pack(_FRAMES, len(body)) + body


def records_bytes(records: Sequence[EnergyRecord]) -> bytes:
    """Records, for a process that keeps them."""
    return orjson.dumps([[_facts_values(record.facts), _charge_values(record.charge), record.instance_id, record.sequence]
                         for record in records])


def records_of(data: bytes) -> list[EnergyRecord]:
    """The records that were sent as this."""
    return [EnergyRecord(facts_of(facts), charge_of(charge), instance_id, sequence)
            for facts, charge, instance_id, sequence in orjson.loads(data)]


class Messages:
    """Cuts what comes over the wire into messages, however it was chunked."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Any]:
        """The messages that are whole now: kind (a number) and the list of what is said, for FRAMES the array."""
        if self._rest:
            data = self._rest + data
        found: list[Any] = []
        at, size = 0, len(data)
        while size - at >= _HEAD.size:
            what, length = _HEAD.unpack_from(data, at)
            end = at + _HEAD.size + length
            if end > size:
                break
            body = data[at + _HEAD.size:end]
            if what == _FRAMES:
                found.append((Kind.FRAMES, (array("q", body),)))
            else:
                found += orjson.loads(body)
            at = end
        self._rest = data[at:]
        return found


def _values(of: Any) -> Any:
    return _VALUES[type(of)](of)


# The two that are sent most, written out: compiled, that takes a fifth of what to look for forty names takes.

def _facts_values(of: RequestFacts) -> list[Any]:
    return [of.record_id, of.request_id, of.arrival_unix_ns, of.end_ns, of.outcome, of.endpoint, of.engine, of.streamed, of.http_status,
            of.error_type, of.model, of.response_model, of.response_id, of.finish_reason, of.tenant, of.trace_id, of.span_id,
            of.parent_span_id, of.first_byte_ns, of.first_token_ns, of.last_token_ns, of.queue_ns, of.input_tokens, of.cached_tokens,
            of.output_tokens, of.reasoning_tokens, of.input_source, of.output_source, of.unit, of.units, of.units_source, of.work_tokens,
            of.steps, of.width, of.height, of.frames, of.job_id]


def _charge_values(of: Charge) -> list[Any]:
    return [of.status, of.method, of.source, of.settled, of.boundary, of.devices, of.energy_uj, of.active_uj, of.prefill_uj, of.decode_uj,
            of.steady_uj, of.steady_ns, of.uncertainty_uj, of.calibration_id, of.windows, of.concurrency_mean, of.evidence]


_VALUES: dict[type[Any], Callable[[Any], Any]] = {
    RequestFacts: _facts_values, Charge: _charge_values,
    **{of: attrgetter(*(field.name for field in fields(of))) for of in (Asked, Product, Usage, Refusal, Opened, Look, Seen, View)}}


def _mended(of: type[Any], **by: Callable[[Any], Any]) -> list[tuple[int, Callable[[Any], Any]]]:
    """The places of those fields that JSON does not keep as they are, and what makes them so again."""
    names = [field.name for field in fields(of)]
    return [(names.index(name), mend) for name, mend in by.items()]


def _words(kind: type[StrEnum]) -> Callable[[Any], Any]:
    words: dict[str | None, StrEnum | None] = {None: None, **{each.value: each for each in kind}}
    return words.__getitem__


def _tuples(said: list[Any]) -> tuple[Any, ...]:
    return tuple(map(tuple, said))


def _product(said: list[Any] | None) -> Product | None:
    return None if said is None else _read(Product, said, _PRODUCT)


_PRODUCT = _mended(Product, unit=_words(Unit), units_source=_words(UnitSource))
_FACTS = _mended(RequestFacts, outcome=_words(Outcome), input_source=_words(TokenSource), output_source=_words(TokenSource),
                 unit=_words(Unit), units_source=_words(UnitSource))
_CHARGE = _mended(Charge, status=_words(Status), devices=tuple)
_ASKED = _mended(Asked, makes=_product)


def _read(of: Callable[..., T], said: list[Any], mended: list[tuple[int, Callable[[Any], Any]]]) -> T:
    for place, mend in mended:
        said[place] = mend(said[place])
    return of(*said)


def facts_of(said: list[Any]) -> RequestFacts:
    """The facts that a message holds; like all of these, it uses up what was said."""
    return _read(RequestFacts, said, _FACTS)


def charge_of(said: list[Any]) -> Charge:
    """The charge that a message holds."""
    return _read(Charge, said, _CHARGE)


def asked_of(said: list[Any]) -> Asked:
    """What a request asked for, as a message holds it."""
    return _read(Asked, said, _ASKED)


def opened_of(said: list[Any]) -> Opened:
    """The job that a message names."""
    kind, job_id, base, credential = said
    return Opened(JobKind(kind), job_id, base, _tuples(credential))


def look_of(said: list[Any]) -> Look:
    """The look at a job that a message holds."""
    kind, job_id, verb = said
    return Look(JobKind(kind), job_id, Verb(verb))


def seen_of(said: list[Any]) -> Seen:
    """What a message says was seen of a job."""
    state, error, began, ended, usage = said
    return Seen(State(state), error, began, None if ended is None else tuple(ended), None if usage is None else Usage(*usage))


def view_of(said: list[Any]) -> View:
    """What a message says of a job's record."""
    record_id, tenant, since_ns, told, made = said
    return View(record_id, tenant, since_ns, None if told is None else (charge_of(told[0]), told[1]), _product(made))


def refusal_of(said: list[Any]) -> Refusal:
    """The refusal that a message holds."""
    status, kind, text, named = said
    return Refusal(status, kind, text, _tuples(named))
