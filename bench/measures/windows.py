"""The stretches of time that joules and tokens are counted over: the whole run, its steady part, and ML.ENERGY's steady state."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from perjoule.bench.measures.counter import EnergyCounter
from perjoule.bench.measures.traffic import Traffic
from perjoule.sidecar.metering.steady_state import Phase, SteadyStateDetector
from perjoule.sidecar.units import NS_PER_S, UJ_PER_J, seconds

Span = tuple[int, int]  # (t0, t1] in nanoseconds since the run's start

RULES = {
    "whole/1": "from the first send to the last end",
    "steady/1": "all stretches between two looks that the sidecar's steady-state detector calls steady, from what the client saw: the "
                "batch is full, or open traffic has no trend. It looks at requests, never at watts (docs/steady-state.md)",
    "mlenergy/1": "ML.ENERGY's: from when B requests have had a first token to when N − B − 1 of N are over (benchmark, RequestTracker)",
}


class Slice(NamedTuple):
    """What came between two looks of a steady window: the pieces that an interval is resampled from."""

    joules: float
    output_tokens: float
    input_tokens: float
    seconds: float


def whole(traffic: Traffic) -> list[Span]:
    """The rule "whole/1"."""
    return [traffic.span_ns]


def steady(counter: EnergyCounter, traffic: Traffic, largest_batch: int) -> list[Span]:
    """The rule "steady/1": each span from a look at the counter to the next, so that no reading is interpolated. `largest_batch` is how
    many requests can run at a time, 0 where it is not known."""
    edges = [look.t_ns for look in counter.looks]
    detector = SteadyStateDetector(largest_batch)
    activities = traffic.activities(edges, traffic.tokens(edges))
    return [(each.t0_ns, each.t1_ns) for each in activities if detector.feed(each) is Phase.STEADY]


def ml_energy(traffic: Traffic, batch: int) -> list[Span]:
    """The rule "mlenergy/1" for a batch of B; nothing where it is empty.

    Source: ml-energy/benchmark at c1d6557, mlenergy/benchmark/llm/benchmark.py, RequestTracker (lines 209-277): failures count as ended."""
    joins, ends = traffic.joins, traffic.ends
    left = len(ends) - batch - 1
    if len(joins) < batch or left < 1:
        return []
    t0_ns, t1_ns = joins[batch - 1], ends[left - 1]
    return [(t0_ns, t1_ns)] if t1_ns > t0_ns else []


def merged(spans: Sequence[Span]) -> list[Span]:
    """Neighbours joined."""
    found: list[Span] = []
    for t0_ns, t1_ns in spans:
        if found and found[-1][1] == t0_ns:
            found[-1] = (found[-1][0], t1_ns)
        else:
            found.append((t0_ns, t1_ns))
    return found


def counted(rule: str, spans: Sequence[Span], counter: EnergyCounter | None, traffic: Traffic) -> dict[str, Any] | None:
    """A window as the result shows it (docs/results.md); None where it is empty. Without a counter its joules are None."""
    spans = merged(spans)
    length_ns = sum(t1_ns - t0_ns for t0_ns, t1_ns in spans)
    if not length_ns:
        return None
    output_tokens = sum(traffic.tokens([t_ns for span in spans for t_ns in span])[::2])
    input_tokens = sum(traffic.prompt_tokens(*span) for span in spans)
    found: dict[str, Any] = {
        "t0_s": seconds(spans[0][0]), "t1_s": seconds(spans[-1][1]), "duration_s": seconds(length_ns), "spans": len(spans),
        "output_tokens": output_tokens, "input_tokens": input_tokens, "requests": sum(traffic.completed(*span) for span in spans),
        "avg_batch_size": sum(traffic.running_ns(*span) for span in spans) / length_ns,
        "output_throughput": output_tokens / seconds(length_ns), "rule": rule,
    }
    return found | _energies(spans, counter, output_tokens, input_tokens, seconds(length_ns))


def _energies(spans: Sequence[Span], counter: EnergyCounter | None, output_tokens: float, input_tokens: float,
              length_s: float) -> dict[str, Any]:
    keys = ("energy_j", "attributed_j", "idle_j", "unattributed_j", "energy_error_j", "avg_power_w", "energy_per_output_token",
            "energy_per_total_token", "tokens_per_joule")
    if counter is None or not any(a < t1_ns and t0_ns < b for t0_ns, t1_ns in spans for a, b in [_reach(counter)]):
        return dict.fromkeys(keys)
    drawn = [sum(parts) for parts in zip(*([b - a for a, b in zip(counter.at(t0_ns), counter.at(t1_ns), strict=True)]
                                           for t0_ns, t1_ns in spans), strict=True)]
    energy_j, *parts_j = (part / UJ_PER_J for part in drawn)
    attributed_j, idle_j, unattributed_j = parts_j if counter.divided else (None, None, None)
    error_j = sum(counter.error_uj(t_ns) for span in spans for t_ns in span) / UJ_PER_J
    tokens = output_tokens + input_tokens
    return dict(zip(keys, (energy_j, attributed_j, idle_j, unattributed_j, error_j, energy_j / length_s,
                           energy_j / output_tokens if output_tokens else None, energy_j / tokens if tokens else None,
                           output_tokens / energy_j if energy_j > 0 else None), strict=True))


def _reach(counter: EnergyCounter) -> Span:
    return counter.looks[0].t_ns, counter.looks[-1].t_ns


def slices(spans: Sequence[Span], counter: EnergyCounter, traffic: Traffic) -> list[Slice]:
    """A window cut at the looks inside it, in the order of time."""
    cut = [(a, b) for t0_ns, t1_ns in merged(spans)
           for a, b in pairwise(sorted({t0_ns, t1_ns, *(look.t_ns for look in counter.looks if t0_ns < look.t_ns < t1_ns)}))]
    edges = sorted({t_ns for span in cut for t_ns in span})
    tokens = dict(zip(pairwise(edges), traffic.tokens(edges), strict=True))
    return [Slice((counter.at(b)[0] - counter.at(a)[0]) / UJ_PER_J, tokens[a, b], traffic.prompt_tokens(a, b), seconds(b - a))
            for a, b in cut]


def trend(rows: Sequence[tuple[int, float]]) -> float:
    """How much a straight line through values over time rises from the first moment to the last (least squares); 0 for less than two."""
    if len(rows) < 2:
        return 0.0
    middle, mean = sum(t for t, _ in rows) / len(rows), sum(value for _, value in rows) / len(rows)
    spread = sum((t - middle) ** 2 for t, _ in rows)
    slope = sum((t - middle) * (value - mean) for t, value in rows) / spread if spread else 0.0
    return slope * (rows[-1][0] - rows[0][0])


def seconds_of(spans: Sequence[Span]) -> list[list[float]]:
    """Spans as a result shows them."""
    return [[t0_ns / NS_PER_S, t1_ns / NS_PER_S] for t0_ns, t1_ns in merged(spans)]
