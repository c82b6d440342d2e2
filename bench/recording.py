"""Recordings of a real GPU under a real engine, and playing them through the very meter that serves production.

The format is gzipped JSON, all times in nanoseconds of one monotonic clock: `counter` rows `[t_before_ns, t_after_ns, millijoules]`, one
for each change; `requests` with the arrival of every chunk; in coalition runs `marks`, `[classes, t_start, t_end, t_quiet_end]`, that say
who was sent together when; and where the requests went through a sidecar, `records`, what it said of each in production.
"""

import gzip
import json
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from perjoule.sidecar.metering.calibration import Calibration
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.ports import Device, Reading, Step
from perjoule.sidecar.record import EnergyRecord, Outcome, RequestFacts, Status, TokenSource
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S, UJ_PER_MJ

SUFFIX = ".json.gz"
LAST_NS = 5 * NS_PER_S  # after the last event, for the meter to settle what waits
LOOK_NS = 7 * NS_PER_MS  # only changes are in a recording; it was looked so often (a call takes 3.5 ms, and then 3 are slept)
SLACK_NS = NS_PER_S // 2  # how far a coalition may reach over the counter's ends, since only changes are written


@dataclass(frozen=True, slots=True)
class Mark:
    """One coalition run: the classes that were sent together (repeated where several of a class were), and when."""

    classes: tuple[str, ...]
    t0_ns: int
    t1_ns: int
    quiet_ns: int


class Recording:
    """One file. Raises ValueError for what is no recording, with what was got and what was expected."""

    def __init__(self, path: Path) -> None:
        try:
            with gzip.open(path, "rt") as file:
                whole = json.load(file)
            self.name = path.name.removesuffix(SUFFIX)
            self.gpu, self.board, self.model, self.engine = (str(whole.get(key, "")) for key in ("gpu", "board", "model", "engine"))
            self.counter: list[tuple[int, int, int]] = [(a, b, mj * UJ_PER_MJ) for a, b, mj in whole["counter"]]
            self.requests: list[dict[str, Any]] = [r for r in whole["requests"] if "error" not in r]
            self.marks = [Mark(tuple(classes), *times) for classes, *times in whole["marks"]]
            self.failed = {r.get("coal") for r in whole["requests"] if "error" in r}  # coalition runs that were not what was asked
            self.records: dict[str, dict[str, Any]] = whole.get("records", {})
            self.sent = [Counter(r["cls"] for r in self.requests if r["coal"] == i) for i in range(len(self.marks))]
            self._times = [before for before, _, _ in self.counter]
            self._check()
            self.begin_ns: int = min([self._times[0], *(request["t0"] for request in self.requests)])
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: not a recording (expected gzipped JSON with counter, requests and marks): {error!r}") from error

    @property
    def span_ns(self) -> int:
        """From its first moment until all of it is over, and settled."""
        ends: list[int] = [self.counter[-1][1], *(request["end"] for request in self.requests)]
        return max(ends) + LAST_NS - self.begin_ns

    def drawn_uj(self, t0_ns: int, t1_ns: int) -> float:
        """What the counter advanced between two moments, interpolated between its changes."""
        return self._shown(t1_ns) - self._shown(t0_ns)

    def windows(self, t0_ns: int, t1_ns: int) -> Iterator[tuple[int, int]]:
        """From change to change of the counter, between two moments."""
        changes = [t_ns for t_ns in self._times if t0_ns < t_ns < t1_ns]
        return pairwise([t0_ns, *changes, t1_ns])

    def _shown(self, t_ns: int) -> float:
        i = min(max(bisect_right(self._times, t_ns), 1), len(self._times) - 1)
        t0, t1 = self._times[i - 1], self._times[i]
        return self.counter[i - 1][2] + (self.counter[i][2] - self.counter[i - 1][2]) * (t_ns - t0) / (t1 - t0)

    def _check(self) -> None:
        """Raises ValueError for what no counter and no client can have seen."""
        if len(self.counter) < 2 or any(a >= b for a, b in pairwise(self._times)):
            raise ValueError(f"got {len(self.counter)} rows of counter, expected at least two, in the order of time")
        for request in self.requests:
            times = [request["t0"], *request["t"], request["end"]]
            if len(request["t"]) != len(request["n"]) or times != sorted(times):
                raise ValueError(f"got a request of {request['cls']} sent at {request['t0']} whose chunks do not fit, expected t and n of "
                                 "one length, and times that rise from t0 to end")
        for i, (mark, sent) in enumerate(zip(self.marks, self.sent, strict=True)):
            if not self._times[0] - SLACK_NS <= mark.t0_ns < mark.t1_ns < mark.quiet_ns <= self._times[-1] + SLACK_NS:
                raise ValueError(f"got {mark}, expected times that rise within the counter's, {self._times[0]} to {self._times[-1]}")
            if i not in self.failed and sent.keys() != set(mark.classes):
                raise ValueError(f"got requests of {sorted(sent)} in coalition {i}, expected those of {sorted(set(mark.classes))}")


def play(recording: Recording, method: str, calibration: Calibration | None = None, begin_ns: int = 0, *, hidden: bool = False,
         told: Sequence[Step] = ()) -> tuple[Meter, dict[int, EnergyRecord]]:
    """The recording's events in the order of time through a Meter; answers it, and the record of each request by its place.

    All of it is moved in time to `begin_ns`, so that a calibration which has learned from another recording can go on. `hidden` plays it
    as if nobody had streamed; `told` is what the engine told of its steps.
    """
    shift_ns = begin_ns - recording.begin_ns
    meter = Meter([Device("recorded", recording.gpu)], source="recording", status=Status.MEASURED, boundary="gpu-board", method=method,
                  calibration=calibration)
    records: dict[int, EnergyRecord] = {}
    events = [*_events(recording), *((step.t_ns, 3, i, -1) for i, step in enumerate(told))]
    for t, kind, i, value in sorted(events, key=lambda event: event[:3]):
        t_ns, place = t + shift_ns, str(i)
        settled: list[EnergyRecord] = []
        if kind in (0, 1):
            before, after, uj = recording.counter[i]
            if kind == 0:  # the look before the change, which showed what had been
                before, after, uj = t, t, recording.counter[i - 1][2]
            settled = meter.sample([Reading(before + shift_ns, after + shift_ns, uj)])
        elif kind == 2:
            meter.begin(place, t_ns, streamed=not hidden, input_tokens=recording.requests[i]["in"])
        elif kind == 3 and value < 0:
            arrivals_ns = tuple(arrival_ns + shift_ns for arrival_ns in told[i].first_arrivals_ns)
            meter.step(replace(told[i], t_ns=t_ns, first_arrivals_ns=arrivals_ns))
        elif kind == 3:
            if not hidden:
                meter.tokens(place, t_ns, value)
        else:
            settled = meter.end(place, t_ns, _facts(place, recording.requests[i]))
        records.update((int(record.facts.record_id), record) for record in settled)
    records.update((int(record.facts.record_id), record) for record in meter.tick(begin_ns + recording.span_ns))
    return meter, records


def _events(recording: Recording) -> Iterator[tuple[int, int, int, int]]:
    """(time, kind, place, tokens); of one moment, looks at the counter come first, then beginnings, tokens and ends."""
    for i, (before, after, _) in enumerate(recording.counter):
        if i and before - LOOK_NS > recording.counter[i - 1][1]:
            yield before - LOOK_NS, 0, i, 0
        yield after, 1, i, 0
    for i, request in enumerate(recording.requests):
        yield request["t0"], 2, i, 0
        for t_ns, tokens in zip(request["t"], request["n"], strict=True):
            yield t_ns, 3, i, tokens
        yield request["end"], 4, i, 0


def _facts(place: str, request: dict[str, Any]) -> RequestFacts:
    return RequestFacts(place, place, 0, request["end"] - request["t0"], Outcome.COMPLETED, "completions", "vllm", True, 200,
                        input_tokens=request["in"], output_tokens=sum(request["n"]), input_source=TokenSource.USAGE,
                        output_source=TokenSource.USAGE)
