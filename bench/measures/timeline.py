"""A run over time, thin enough to draw: power, requests in flight, the boards' temperature and clock, steady stretches."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from perjoule.bench.load.sample import Observation
from perjoule.bench.measures.measured import Measured
from perjoule.bench.measures.windows import seconds_of
from perjoule.sidecar.units import NS_PER_S, UJ_PER_J

POINTS = 600  # at most
BOARDS: dict[str, Callable[[Iterable[float]], float]] = {"temperature_c": max, "sm_clock_mhz": min}  # the hottest, the slowest


def timeline(run: Measured) -> dict[str, Any]:
    """Means between looks, neighbours put together until there are `POINTS` at most; `t_s` is the middle of each."""
    observations, counter, traffic = run.run.observations, run.counter, run.traffic
    looks = [look.t_ns for look in counter.looks] if counter else [look.t_ns for look in observations]
    if len(looks) < 2:
        looks = [*traffic.span_ns]
    step = -(-(len(looks) - 1) // POINTS)
    edges = looks[::step] if (len(looks) - 1) % step == 0 else [*looks[::step], looks[-1]]
    spans = [(a, b) for a, b in pairwise(edges) if b > a]
    return {"t_s": [(a + b) / 2 / NS_PER_S for a, b in spans],
            "power_w": [(counter.at(b)[0] - counter.at(a)[0]) * (NS_PER_S / UJ_PER_J) / (b - a) if counter else None for a, b in spans],
            "in_flight": [traffic.running_ns(a, b) / (b - a) for a, b in spans],
            **{key: _of_boards(observations, key, spans) for key in BOARDS}, "steady": seconds_of(run.steady)}


def _of_boards(observations: Sequence[Observation], key: str, spans: Sequence[tuple[int, int]]) -> list[float | None]:
    """The mean over each span of what the looks in it say of the one board that counts."""
    seen = sorted((look.t_ns, BOARDS[key](known)) for look in observations
                  if (known := [value for board in look.boards if isinstance(value := board.get(key), int | float)]))
    times, values = [t_ns for t_ns, _ in seen], [value for _, value in seen]
    found = (values[bisect_left(times, a):bisect_right(times, b)] for a, b in spans)
    return [fmean(part) if part else None for part in found]
