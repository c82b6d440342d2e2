"""When each request of a run is to be sent: fixed before the start, drawn from a seed, and kept as a file that anybody can check."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from math import inf, isfinite, log, sqrt
from pathlib import Path
from random import Random
from typing import Any

import orjson

from perjoule.bench.workloads.workload import Workload
from perjoule.sidecar.units import NS_PER_S

SCHEMA_VERSION = 1
MODES = ("closed", "open", "trace")
ARRIVALS = ("constant", "poisson", "gamma")


@dataclass(frozen=True, slots=True)
class Plan:
    """How a workload is put on an engine. Raises ValueError where that is no plan.

    `closed`: `concurrency` places, each of which sends its next request when the answer to the one before has ended; with `ramp_s` the
    places open one after the other, evenly within so many seconds. `open`: at `request_rate` a second, whatever the engine does;
    `arrivals` are constant, poisson, or gamma, whose intervals have a coefficient of variation of 1/√`burstiness` (1: poisson; less:
    burstier, as vLLM words it). With `ramp_s` the rate goes linearly from `request_rate` to `request_rate_end` and stays there. `trace`:
    when the workload has it, divided by `time_scale` (2: twice as fast).

    It ends after so many `requests` (None: each turn once), or before `duration_s`: an open loop then has all arrivals up to then,
    turns begin anew when all were taken; a closed one takes no place any more, and which of its rows were sent only the run can tell.
    Of the requests a share of `cancel_share`, drawn from the seed, is left `cancel_after_s` after it was sent."""

    mode: str
    arrivals: str | None = None
    request_rate: float | None = None
    request_rate_end: float | None = None
    burstiness: float | None = None
    concurrency: int | None = None
    ramp_s: float = 0.0
    requests: int | None = None
    duration_s: float | None = None
    seed: int = 0
    time_scale: float = 1.0
    cancel_share: float = 0.0
    cancel_after_s: float = 1.0

    def __post_init__(self) -> None:
        is_open, is_closed = self.mode == "open", self.mode == "closed"
        _check("mode", self.mode, self.mode in MODES, f"one of {', '.join(MODES)}")
        _check("arrivals", self.arrivals, (self.arrivals in ARRIVALS) if is_open else self.arrivals is None,
               f"one of {', '.join(ARRIVALS)}" if is_open else "none without an open loop")
        _check("request_rate", self.request_rate, _positive(self.request_rate) if is_open else self.request_rate is None,
               "requests a second, more than 0" if is_open else "none without an open loop")
        _check("burstiness", self.burstiness, _positive(self.burstiness) if self.arrivals == "gamma" else self.burstiness is None,
               "more than 0 with gamma arrivals, else none")
        _check("concurrency", self.concurrency, (self.concurrency or 0) >= 1 if is_closed else self.concurrency is None,
               "1 or more" if is_closed else "none without a closed loop")
        ends = self.request_rate_end
        _check("request_rate_end", ends, ends is None or (is_open and _positive(ends) and self.ramp_s > 0),
               "more than 0, with an open loop and ramp_s")
        _check("ramp_s", self.ramp_s, 0 <= self.ramp_s < inf and (not self.ramp_s or is_closed or ends is not None),
               "0 or more, with a closed loop or request_rate_end")
        _check("requests", self.requests, self.requests is None or self.requests >= 1, "1 or more")
        _check("duration_s", self.duration_s, self.duration_s is None or (self.mode != "trace" and _positive(self.duration_s)),
               "more than 0, with an open or a closed loop")
        _check("seed", self.seed, 0 <= self.seed < 2**63, "0 or more, below 2**63")
        _check("time_scale", self.time_scale, _positive(self.time_scale) and (self.mode == "trace" or self.time_scale == 1),
               "more than 0, with a trace")
        _check("cancel_share", self.cancel_share, 0 <= self.cancel_share <= 1, "0 to 1")
        _check("cancel_after_s", self.cancel_after_s, _positive(self.cancel_after_s), "more than 0")


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """One request: which turn of the workload it is, and when it is to be sent, since the start.

    `intended_ns` is None where only the run can tell: in a closed loop, and for the later turns of a session, which are sent
    `think_ns` after the end of the answer before. Rows of one `chain` follow each other."""

    index: int
    turn: int
    chain: int
    intended_ns: int | None
    think_ns: int = 0
    cancel_after_ns: int | None = None


@dataclass(frozen=True)
class Schedule:
    """All rows of a run, by index, and the plan they were drawn by. Its bytes are its file; `sha256` is of these."""

    plan: Plan
    workload: str  # its name and sha256, as a file of a schedule says whose it is
    rows: tuple[Row, ...]

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for line in self.lines():
            digest.update(line)
        return digest.hexdigest()

    def lines(self) -> Iterator[bytes]:
        """JSON lines: what it is, and then a row each."""
        head = {"schema_version": SCHEMA_VERSION, "workload": self.workload, "plan": asdict(self.plan), "requests": len(self.rows)}
        yield orjson.dumps(head) + b"\n"
        for row in self.rows:
            yield orjson.dumps(row) + b"\n"

    def write(self, path: Path) -> None:
        with path.open("wb") as file:
            file.writelines(self.lines())


def read(path: Path) -> Schedule:
    """A schedule as it was written. Raises OSError, and ValueError where it is none."""
    try:
        with path.open("rb") as file:
            head = orjson.loads(next(file, b""))
            rows = tuple(Row(**orjson.loads(line)) for line in file)
        if head["schema_version"] != SCHEMA_VERSION or head["requests"] != len(rows):
            raise ValueError(f"version {head['schema_version']} with {len(rows)} of {head['requests']} rows")
        known = {field.name for field in fields(Plan)}
        return Schedule(Plan(**{name: value for name, value in head["plan"].items() if name in known}), head["workload"], rows)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: got {error}, expected a schedule of version {SCHEMA_VERSION}") from None


def schedule(workload: Workload, plan: Plan) -> Schedule:
    """The schedule of a workload. Raises ValueError where the workload has no turns, or no times for a trace."""
    if not workload.turns:
        raise ValueError(f"{workload.name}: got no turns, expected one at least")
    if plan.mode == "trace" and (plan.requests or 0) > len(workload.turns):
        raise ValueError(f"requests: got {plan.requests}, expected at most the {len(workload.turns)} of the trace")
    endless = plan.mode == "open" and plan.duration_s is not None
    wanted = plan.requests if plan.requests is not None or endless else len(workload.turns)
    times, cancels = _heads(workload, plan), Random(f"{plan.seed} cancel")
    rows: list[Row] = []
    chains: dict[tuple[int, str], int] = {}
    count = 0
    while wanted is None or len(rows) < wanted:
        around, at = divmod(len(rows), len(workload.turns))
        turn = workload.turns[at]
        chain = None if turn.session is None else chains.get((around, turn.session))
        intended_ns = None
        if chain is None:
            chain, count = count, count + 1
            if turn.session is not None:
                chains[around, turn.session] = chain
            if times is not None:
                intended_ns = _ns(next(times))
                if plan.duration_s is not None and intended_ns >= _ns(plan.duration_s):
                    break
        cancel = plan.cancel_share > 0 and cancels.random() < plan.cancel_share
        rows.append(Row(len(rows), at, chain, intended_ns, _ns(turn.think_s), _ns(plan.cancel_after_s) if cancel else None))
    return Schedule(plan, f"{workload.name} {workload.sha256}".strip(), tuple(rows))


def share(rows: Sequence[Row], part: int, parts: int) -> list[Row]:
    """What one of several processes sends: whole chains, by turns."""
    return [row for row in rows if row.chain % parts == part]


def _heads(workload: Workload, plan: Plan) -> Iterator[float] | None:
    """The times of first turns in seconds, or None where they are sent when a place is free."""
    if plan.mode == "closed":
        return None
    if plan.mode == "trace":
        return _trace(workload, plan.time_scale)
    return _arrivals(plan)


def _trace(workload: Workload, time_scale: float) -> Iterator[float]:
    seen: set[str] = set()
    before_s = 0.0
    for number, turn in enumerate(workload.turns):
        if turn.session is not None:
            if turn.session in seen:
                continue
            seen.add(turn.session)
        if turn.at_s is None or not before_s <= turn.at_s < inf:
            raise ValueError(f"{workload.name}, turn {number}: got the time {turn.at_s}, expected seconds, none before {before_s:g}")
        before_s = turn.at_s
        yield turn.at_s / time_scale


def _arrivals(plan: Plan) -> Iterator[float]:
    """An arrival process in seconds. It is drawn at rate 1, and its time is then stretched by the rate: so a ramp of a Poisson process
    is an inhomogeneous Poisson process, and the number of arrivals in a time varies as it should."""
    assert plan.request_rate is not None
    random = Random(f"{plan.seed} arrivals")
    first, last = plan.request_rate, plan.request_rate_end or plan.request_rate
    ramp_s = plan.ramp_s
    in_ramp = (first + last) / 2 * ramp_s
    rise = (last - first) / ramp_s if ramp_s else 0.0
    count, at = 0, 0.0
    while True:
        if plan.arrivals == "constant":
            at, count = float(count), count + 1
        elif plan.arrivals == "poisson":
            at -= log(1.0 - random.random())
        else:
            assert plan.burstiness is not None
            at += random.gammavariate(plan.burstiness, 1.0 / plan.burstiness)
        if at >= in_ramp:
            yield ramp_s + (at - in_ramp) / last
        else:  # first·t + rise·t²/2 = at, in the form that does not cancel
            yield 2 * at / (first + sqrt(max(0.0, first * first + 2 * rise * at)))


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def _positive(value: float | None) -> bool:
    return value is not None and isfinite(value) and value > 0


def _check(name: str, got: Any, is_right: bool, expected: str) -> None:
    if not is_right:
        raise ValueError(f"{name}: got {got!r}, expected {expected}")


def load_of(plan: Plan) -> Mapping[str, Any]:
    """The plan as a result's `load` has it: every field, unknown ones null."""
    said = asdict(plan)
    return said | {"arrivals": "trace" if plan.mode == "trace" else plan.arrivals}
