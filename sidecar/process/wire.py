"""What a worker process and the meter say to each other, as bytes: framed messages, and the frames of streams by the dozen.

A message is its kind (1 byte), its length (4 bytes) and its body: JSON, but for FRAMES, which are triples of 64-bit integers
(number, t_ns, count). A request is named by a number that its worker gave it. Both ends are of one build: there are no versions.
"""

import struct
from array import array
from collections.abc import Callable
from enum import IntEnum
from typing import Any, TypeVar

import orjson

from perjoule.sidecar.access.doors import Refusal
from perjoule.sidecar.dialects.jobs import Kind as JobKind
from perjoule.sidecar.dialects.jobs import Look, Opened, Seen, State, Verb
from perjoule.sidecar.dialects.jobwatch import View
from perjoule.sidecar.dialects.requests import Asked
from perjoule.sidecar.dialects.usage import Usage
from perjoule.sidecar.dialects.works import Product
from perjoule.sidecar.record import Charge, Outcome, RequestFacts, Status, TokenSource, Unit, UnitSource

T = TypeVar("T")
_HEAD = struct.Struct("<BI")
_READ_AS: dict[str, Callable[..., Any]] = {
    "outcome": Outcome, "input_source": TokenSource, "output_source": TokenSource, "status": Status, "devices": tuple,
    "unit": Unit, "units_source": UnitSource, "makes": lambda said: _read(Product, said)}


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
    """One message with a JSON body; dataclasses are objects of their fields."""
    body = orjson.dumps(said)
    return _HEAD.pack(kind, len(body)) + body


def frames(triples: "array[int]") -> bytes:
    """The FRAMES message of an array of 64-bit integers."""
    body = triples.tobytes()
    return _HEAD.pack(Kind.FRAMES, len(body)) + body


class Messages:
    """Cuts what comes over the wire into messages, however it was chunked."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[Kind, Any]]:
        """The messages that are whole now: kind and what is said, for FRAMES the array."""
        data = self._rest + data
        found: list[tuple[Kind, Any]] = []
        at, size = 0, len(data)
        while size - at >= _HEAD.size:
            kind, length = _HEAD.unpack_from(data, at)
            end = at + _HEAD.size + length
            if end > size:
                break
            body = data[at + _HEAD.size:end]
            found.append((Kind(kind), array("q", body) if kind == Kind.FRAMES else orjson.loads(body)))
            at = end
        self._rest = data[at:]
        return found


def _read(of: Callable[..., T], said: dict[str, Any]) -> T:
    return of(**{name: _READ_AS[name](value) if name in _READ_AS and value is not None else value for name, value in said.items()})


def facts_of(said: dict[str, Any]) -> RequestFacts:
    """The facts that a message holds."""
    return _read(RequestFacts, said)


def charge_of(said: dict[str, Any]) -> Charge:
    """The charge that a message holds."""
    return _read(Charge, said)


def asked_of(said: dict[str, Any]) -> Asked:
    """What a request asked for, as a message holds it."""
    return _read(Asked, said)


def opened_of(said: dict[str, Any]) -> Opened:
    """The job that a message names."""
    return Opened(JobKind(said["kind"]), said["id"], said["base"], tuple(map(tuple, said["credential"])))


def look_of(said: dict[str, Any]) -> Look:
    """The look at a job that a message holds."""
    return Look(JobKind(said["kind"]), said["id"], Verb(said["verb"]))


def seen_of(said: dict[str, Any]) -> Seen:
    """What a message says was seen of a job."""
    ended, usage = said["ended_unix_ns"], said["usage"]
    return Seen(**{**said, "state": State(said["state"]), "ended_unix_ns": None if ended is None else tuple(ended),
                   "usage": None if usage is None else Usage(**usage)})


def view_of(said: dict[str, Any]) -> View:
    """What a message says of a job's record."""
    told = said["told"]
    made = None if said["made"] is None else _read(Product, said["made"])
    return View(said["record_id"], said["tenant"], said["since_ns"], None if told is None else (charge_of(told[0]), told[1]), made)


def refusal_of(said: dict[str, Any]) -> Refusal:
    """The refusal that a message holds."""
    return Refusal(**{**said, "fields": tuple(map(tuple, said["fields"]))})
