"""Recordings of a real GPU under a real engine, and playing them through the very meter that serves production.

The format is gzipped JSON: `counter` rows `[t_before_ns, t_after_ns, millijoules]`, one for each change; `requests` with the arrival
of every chunk; and in coalition runs `marks`, `[classes, t_start, t_end, t_quiet_end]`, that say who was sent together when.
"""

import gzip
import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perjoule.sidecar.meter import Meter
from perjoule.sidecar.ports import Device, Reading
from perjoule.sidecar.record import EnergyRecord, Outcome, RequestFacts, Status, TokenSource
from perjoule.sidecar.units import NS_PER_S, UJ_PER_MJ

LAST_NS = 5 * NS_PER_S  # after the last event, for the meter to settle what waits


@dataclass(frozen=True, slots=True)
class Mark:
    """One coalition run: the classes that were sent together (repeated where several of a class were), and when."""

    classes: tuple[str, ...]
    t0_ns: int
    t1_ns: int
    quiet_ns: int


class Recording:
    """One file. Raises ValueError for what is no recording, with what was missing."""

    def __init__(self, path: Path) -> None:
        try:
            with gzip.open(path, "rt") as file:
                whole = json.load(file)
            self.name = path.name.removesuffix(".json.gz")
            self.counter: list[tuple[int, int, int]] = [(a, b, mj * UJ_PER_MJ) for a, b, mj in whole["counter"]]
            self.requests: list[dict[str, Any]] = [r for r in whole["requests"] if "error" not in r]
            self.marks = [Mark(tuple(classes), *times) for classes, *times in whole["marks"]]
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise ValueError(f"{path}: not a recording (expected gzipped JSON with counter, requests and marks): {error!r}") from error
        self._times = [before for before, _, _ in self.counter]

    def drawn_uj(self, t0_ns: int, t1_ns: int) -> float:
        """What the counter advanced between two moments, interpolated between its changes."""
        return self._shown(t1_ns) - self._shown(t0_ns)

    def _shown(self, t_ns: int) -> float:
        i = min(max(bisect_right(self._times, t_ns), 1), len(self._times) - 1)
        t0, t1 = self._times[i - 1], self._times[i]
        return self.counter[i - 1][2] + (self.counter[i][2] - self.counter[i - 1][2]) * (t_ns - t0) / (t1 - t0)


def play(recording: Recording, method: str) -> tuple[Meter, dict[int, EnergyRecord]]:
    """The recording's events in the order of time through a Meter; answers it, and the record of each request by its place."""
    meter = Meter([Device("recorded", recording.name)], source="recording", status=Status.MEASURED, boundary="gpu-board", method=method)
    records: dict[int, EnergyRecord] = {}
    last_ns = 0
    for t_ns, kind, i, value in sorted(_events(recording), key=lambda event: event[:3]):
        last_ns, place = t_ns, str(i)
        settled: list[EnergyRecord] = []
        if kind == 0:
            before, after, uj = recording.counter[i]
            settled = meter.sample([Reading(before, after, uj)])
        elif kind == 1:
            meter.begin(place, t_ns, input_tokens=recording.requests[i]["in"])
        elif kind == 2:
            meter.tokens(place, t_ns, value)
        else:
            settled = meter.end(place, t_ns, _facts(place, recording.requests[i]))
        records.update((int(record.facts.record_id), record) for record in settled)
    records.update((int(record.facts.record_id), record) for record in meter.tick(last_ns + LAST_NS))
    return meter, records


def _events(recording: Recording) -> Iterator[tuple[int, int, int, int]]:
    """(time, kind, place, tokens); of one moment, a reading comes first, then beginnings, tokens and ends."""
    for i, (_, after, _) in enumerate(recording.counter):
        yield after, 0, i, 0
    for i, request in enumerate(recording.requests):
        yield request["t0"], 1, i, 0
        for t_ns, tokens in zip(request["t"], request["n"], strict=True):
            yield t_ns, 2, i, tokens
        yield request["end"], 3, i, 0


def _facts(place: str, request: dict[str, Any]) -> RequestFacts:
    return RequestFacts(place, place, 0, request["end"] - request["t0"], Outcome.COMPLETED, "completions", "vllm", True, 200,
                        input_tokens=request["in"], output_tokens=sum(request["n"]), input_source=TokenSource.USAGE,
                        output_source=TokenSource.USAGE)
