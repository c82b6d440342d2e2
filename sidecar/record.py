"""What comes out: one EnergyRecord for each request, made of facts (what happened) and a charge (what it cost)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import lru_cache
from itertools import groupby
from typing import Any

import orjson

from perjoule.sidecar.units import joules, seconds

SCHEMA_VERSION = 1


class Outcome(StrEnum):
    """How a request ended; every request has exactly one."""

    COMPLETED = "completed"
    ERRORED = "errored"
    CANCELLED = "cancelled"


class Status(StrEnum):
    """What kind of number a joule is."""

    MEASURED = "measured"  # a sensor's counter covered the whole request
    MIXED = "mixed"  # a sensor's counter covered part of it
    PROVISIONAL = "provisional"  # in-band, before the last window closed
    ESTIMATED = "estimated"  # no counter, a model of one
    SIMULATED = "simulated"  # no sensor stands behind it
    UNAVAILABLE = "unavailable"  # no energy source: the value is null, never 0


class TokenSource(StrEnum):
    """Who counted the tokens."""

    USAGE = "usage"  # the engine's usage object of this response
    ENGINE = "engine"  # another channel of the engine
    FRAMES = "frames"  # stream frames with content, a lower bound
    ESTIMATED = "estimated"  # from the size of the body


class Unit(StrEnum):
    """What a request makes that is not tokens, and is counted in."""

    IMAGE = "image"
    VIDEO_SECOND = "video_second"
    AUDIO_SECOND = "audio_second"


Units = int | float
"""How many units: whole where they are counted. (Of `float` alone mypyc would make every one a float.)"""


class UnitSource(StrEnum):
    """Who said how many units it was."""

    ANSWERED = "answered"  # the engine: what its answer holds, or says of itself
    ASKED = "asked"  # the request, which was answered without a word about it


@dataclass(slots=True)  # not frozen: making one would take three times as long, and a record is made for every request
class RequestFacts:
    """What the relay saw of one request. Times are nanoseconds since arrival, None where it never came to that.

    `record_id` is ours and unique; `request_id` is what the engine was told (the client's X-Request-Id, else ours). `units` is what was
    made, None unless it completed; `work_tokens` is what it was weighed by where that is not its tokens; `job_id` is the engine's name
    of what outlived its HTTP request.
    """

    record_id: str
    request_id: str
    arrival_unix_ns: int
    end_ns: int
    outcome: Outcome
    endpoint: str
    engine: str
    streamed: bool
    http_status: int | None = None
    error_type: str | None = None
    model: str | None = None
    response_model: str | None = None
    response_id: str | None = None
    finish_reason: str | None = None
    tenant: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    first_byte_ns: int | None = None
    first_token_ns: int | None = None
    last_token_ns: int | None = None
    queue_ns: int | None = None
    input_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    input_source: TokenSource | None = None
    output_source: TokenSource | None = None
    unit: Unit | None = None
    units: Units | None = None
    units_source: UnitSource | None = None
    work_tokens: int | None = None
    steps: int | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    job_id: str | None = None


@dataclass(slots=True)
class Charge:
    """What one request cost, in integer microjoules; every amount is None while `status` is UNAVAILABLE.

    `energy_uj` is its share of all that was drawn while requests ran; `active_uj` its share above the loaded idle (None
    until an idle spell has shown what that is); `prefill_uj + decode_uj == energy_uj` (both None before a window has been
    divided); `steady_uj` and `steady_ns` are the part that fell into steady windows; `uncertainty_uj` is one standard
    deviation of `energy_uj`, without the board's gain error. `evidence` is what its windows were divided by: `steps` that the engine told,
    `frames` that clients saw, or `both`, some by the one and some by the other.
    """

    status: Status
    method: str
    source: str
    settled: bool
    boundary: str = ""
    devices: tuple[str, ...] = ()
    energy_uj: int | None = None
    active_uj: int | None = None
    prefill_uj: int | None = None
    decode_uj: int | None = None
    steady_uj: int | None = None
    steady_ns: int | None = None
    uncertainty_uj: int | None = None
    calibration_id: str | None = None
    windows: int = 0
    concurrency_mean: float | None = None
    evidence: str | None = None


_WORDS = {"input_source": TokenSource, "output_source": TokenSource, "unit": Unit, "units_source": UnitSource}
FACTS = tuple(f.name for f in fields(RequestFacts))
CHARGES = tuple(f.name for f in fields(Charge))
NAMES = ("schema_version", "instance_id", "sequence", *FACTS, *CHARGES, "energy_joules", "duration_seconds",
         "energy_per_output_token_joules", "energy_per_unit_joules")
ALIKE = ("instance_id", "outcome", "endpoint", "engine", "streamed", "http_status", "error_type", "model", "response_model",
         "finish_reason", "input_source", "output_source", "unit", "units_source", "steps", "width", "height", "frames",
         "status", "method", "source", "settled", "boundary", "devices", "calibration_id", "evidence")
"""What many records have in common, so that it is written once for all of them; of all else each has its own."""


@dataclass(slots=True)
class EnergyRecord:
    """One request, whole: the row of the ledger, the body of `GET /energy/{id}`, the source of the span.

    `instance_id` names the run of the sidecar that settled it, `sequence` its place among that run's records, from 1 and without gaps:
    by these two a record that was lost on its way can be missed. Both are set when it is settled.
    """

    facts: RequestFacts
    charge: Charge
    instance_id: str = ""
    sequence: int = 0

    def as_json(self) -> dict[str, Any]:
        """The record as documented in docs/records.md: flat, integers in `_uj` and `_ns`, joules and seconds beside them."""
        known = _known(self._alike())
        return self._filled({name: known.get(name) for name in NAMES})

    def as_text(self) -> bytes:
        """The same as JSON text."""
        return orjson.dumps(self._filled(_form(self._alike())))

    def _alike(self) -> tuple[Any, ...]:
        """The values of ALIKE."""
        facts, charge = self.facts, self.charge
        return (
            self.instance_id, facts.outcome, facts.endpoint, facts.engine, facts.streamed, facts.http_status, facts.error_type,
            facts.model, facts.response_model, facts.finish_reason, facts.input_source, facts.output_source, facts.unit,
            facts.units_source, facts.steps, facts.width, facts.height, facts.frames, charge.status, charge.method, charge.source,
            charge.settled, charge.boundary, charge.devices, charge.calibration_id, charge.evidence)

    def _filled(self, form: dict[str, Any]) -> dict[str, Any]:
        """The form with what this record has for itself, each at its place."""
        facts, charge = self.facts, self.charge
        uj, tokens, units = charge.energy_uj, facts.output_tokens, facts.units
        return {
            **form, "sequence": self.sequence, "record_id": facts.record_id, "request_id": facts.request_id,
            "arrival_unix_ns": facts.arrival_unix_ns, "end_ns": facts.end_ns, "response_id": facts.response_id, "tenant": facts.tenant,
            "trace_id": facts.trace_id, "span_id": facts.span_id, "parent_span_id": facts.parent_span_id,
            "first_byte_ns": facts.first_byte_ns, "first_token_ns": facts.first_token_ns, "last_token_ns": facts.last_token_ns,
            "queue_ns": facts.queue_ns, "input_tokens": facts.input_tokens, "cached_tokens": facts.cached_tokens,
            "output_tokens": tokens, "reasoning_tokens": facts.reasoning_tokens, "units": units, "work_tokens": facts.work_tokens,
            "job_id": facts.job_id, "energy_uj": uj, "active_uj": charge.active_uj, "prefill_uj": charge.prefill_uj,
            "decode_uj": charge.decode_uj, "steady_uj": charge.steady_uj, "steady_ns": charge.steady_ns,
            "uncertainty_uj": charge.uncertainty_uj, "windows": charge.windows, "concurrency_mean": charge.concurrency_mean,
            "energy_joules": None if uj is None else joules(uj), "duration_seconds": seconds(facts.end_ns),
            "energy_per_output_token_joules": joules(uj) / tokens if uj is not None and tokens else None,
            "energy_per_unit_joules": joules(uj) / units if uj is not None and units else None}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "EnergyRecord":
        """The record that was written as this; a field of a later version is left out, one that an earlier did not have is unknown."""
        facts = {name: found[name] for name in FACTS if name in found}
        charge = {name: found[name] for name in CHARGES if name in found}
        facts["outcome"], charge["status"] = Outcome(facts["outcome"]), Status(charge["status"])
        charge["devices"] = tuple(charge.get("devices", ()))
        for name, kind in _WORDS.items():
            facts[name] = kind(facts[name]) if facts.get(name) is not None else None
        return cls(RequestFacts(**facts), Charge(**charge), found.get("instance_id", ""), found.get("sequence", 0))


def _known(alike: tuple[Any, ...]) -> dict[str, Any]:
    """What is known of a record by what it has in common with others."""
    return {"schema_version": SCHEMA_VERSION, **dict(zip(ALIKE, alike, strict=True))}


@lru_cache(maxsize=256)
def _form(alike: tuple[Any, ...]) -> dict[str, Any]:
    """A record's object with gaps for what is its own; the rest is JSON text, each run of names of it under the first of them."""
    known = _known(alike)
    form: dict[str, Any] = {}
    for is_known, names in groupby(NAMES, known.__contains__):
        run = {name: known.get(name) for name in names}
        if is_known:
            first = next(iter(run))
            run = {first: orjson.Fragment(orjson.dumps(run)[len(f'{{"{first}":'):-1])}
        form |= run
    return form


@dataclass(frozen=True, slots=True)
class Balance:
    """The account of one run of the sidecar at one moment, in microjoules: `measured == requests + idle + unattributed`.

    `settled_uj` is what the records 1 to `sequence` of that run cost; the rest of `requests_uj` belongs to requests that were not
    settled yet. `host_uj` is what the host drew beside the boards since the run began, None where nothing tells.
    """

    instance_id: str
    unix_ns: int
    sequence: int
    measured_uj: int
    requests_uj: int
    idle_uj: int
    unattributed_uj: int
    settled_uj: int
    source: str
    status: Status
    host_uj: int | None = None
