"""A run worked out once: its requests, traffic, counter, steady spans, windows and gaps, for all that is said of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perjoule.bench.measures import windows
from perjoule.bench.measures.counter import EnergyCounter
from perjoule.bench.measures.run import Run
from perjoule.bench.measures.served import Served, gaps, served
from perjoule.bench.measures.traffic import Traffic


@dataclass(frozen=True, slots=True)
class Measured:
    """`windows` are those of docs/measures.md, None where one is empty or has no meaning; `icl` and `itl` say of each gap in ms how often
    it came, by chunks and as ML.ENERGY counts; `counter` is None where the sidecar told no joules."""

    run: Run
    requests: Sequence[Served]
    completed: Sequence[Served]
    traffic: Traffic
    counter: EnergyCounter | None
    steady: Sequence[windows.Span]
    windows: Mapping[str, dict[str, Any] | None]
    icl: Mapping[float, float]
    itl: Mapping[float, float]

    @property
    def asked(self) -> Mapping[str, Any]:
        return self.run.asked

    @property
    def setting(self) -> Mapping[str, Any]:
        """What was run, as far as known."""
        found: Mapping[str, Any] = self.asked.get("setting", {})
        return found

    @property
    def load(self) -> Mapping[str, Any]:
        """What was sent."""
        found: Mapping[str, Any] = self.asked.get("load", {})
        return found

    @property
    def headline(self) -> str:
        """The window that joules per token are of: the steady one where there is any; a trace is real traffic, and all of it counts."""
        return "steady" if self.windows["steady"] and self.load.get("mode") != "trace" else "whole"

    @property
    def planned(self) -> int:
        """Requests that the schedule had."""
        return int(self.asked.get("planned") or len(self.requests))


def measure(run: Run) -> Measured:
    """Raises ValueError for a run without a request."""
    if not run.samples:
        raise ValueError("got no samples, expected at least one request")
    requests = served(run)
    completed = [request for request in requests if request.completed]
    traffic, counter = Traffic(requests), _counter(run)
    batch = closed_batch(run.asked)
    largest = batch or int(run.asked.get("setting", {}).get("max_num_seqs") or 0)
    spans = windows.merged(windows.steady(counter, traffic, largest)) if counter else []
    found = {"whole": windows.counted("whole/1", windows.whole(traffic), counter, traffic),
             "steady": windows.counted("steady/1", spans, counter, traffic),
             "mlenergy": windows.counted("mlenergy/1", windows.ml_energy(traffic, batch), counter, traffic) if batch else None}
    return Measured(run, requests, completed, traffic, counter, spans, found, *gaps(completed))


def closed_batch(asked: Mapping[str, Any]) -> int:
    """How many requests a closed loop keeps in the engine's batch; 0 for other loads."""
    load, largest = asked.get("load", {}), asked.get("setting", {}).get("max_num_seqs")
    if load.get("mode") != "closed" or not load.get("concurrency"):
        return 0
    return min(int(load["concurrency"]), int(largest or load["concurrency"]))


def _counter(run: Run) -> EnergyCounter | None:
    try:
        return EnergyCounter(run.observations)
    except ValueError:
        return None
