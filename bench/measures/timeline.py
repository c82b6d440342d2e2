"""A run over time, thin enough to draw: power, requests in flight, temperature, steady stretches."""

from bisect import bisect_left, bisect_right
from itertools import pairwise
from statistics import fmean
from typing import Any

from perjoule.bench.measures.measured import Measured
from perjoule.bench.measures.windows import seconds_of
from perjoule.sidecar.units import NS_PER_S, UJ_PER_J

POINTS = 600  # at most


def timeline(run: Measured) -> dict[str, Any]:
    """Means between looks, neighbours put together until there are `POINTS` at most; `t_s` is the middle of each."""
    observations, counter, traffic = run.run.observations, run.counter, run.traffic
    looks = [look.t_ns for look in counter.looks] if counter else [look.t_ns for look in observations]
    if len(looks) < 2:
        looks = [*traffic.span_ns]
    step = -(-(len(looks) - 1) // POINTS)
    edges = looks[::step] if (len(looks) - 1) % step == 0 else [*looks[::step], looks[-1]]
    hottest = sorted((look.t_ns, max(known)) for look in observations
                     if (known := [c for board in look.boards if isinstance(c := board.get("temperature_c"), int | float)]))
    times = [t_ns for t_ns, _ in hottest]
    rows = []
    for a, b in pairwise(edges):
        if b <= a:
            continue
        warm = [celsius for _, celsius in hottest[bisect_left(times, a):bisect_right(times, b)]]
        rows.append(((a + b) / 2 / NS_PER_S,
                     (counter.at(b)[0] - counter.at(a)[0]) * (NS_PER_S / UJ_PER_J) / (b - a) if counter else None,
                     traffic.running_ns(a, b) / (b - a), fmean(warm) if warm else None))
    t_s, power_w, in_flight, temperature_c = ([*column] for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    return {"t_s": t_s, "power_w": power_w, "in_flight": in_flight, "temperature_c": temperature_c, "steady": seconds_of(run.steady)}
