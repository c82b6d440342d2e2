"""Distributions of what was measured: mean, spread, percentiles and histograms, by value or by how often each value came."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from math import floor, sqrt
from statistics import fmean
from typing import Any

PERCENTILES = (50, 90, 95, 99)
BINS = 50
NARROWEST = 1e-9  # values closer than this are one


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of values in order, interpolated between neighbours (as numpy does by default). Raises IndexError where there are none."""
    place = (len(ordered) - 1) * percent / 100
    below = floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def distribution(values: Iterable[float | None]) -> dict[str, Any] | None:
    """n, mean, std (of the sample), min, percentiles and max of those that are known; None where none is."""
    ordered = sorted(value for value in values if value is not None)
    if not ordered:
        return None
    mean = fmean(ordered)
    std = sqrt(sum((value - mean) ** 2 for value in ordered) / (len(ordered) - 1)) if len(ordered) > 1 else 0.0
    return {"n": len(ordered), "mean": mean, "std": std, "min": ordered[0],
            **{f"p{p}": percentile(ordered, p) for p in PERCENTILES}, "max": ordered[-1]}


def weighted(weights: Mapping[float, float]) -> dict[str, Any] | None:
    """The same of values that came so often (a weight may be a fraction); a percentile is the least value that as many do not exceed."""
    ordered = sorted((value, weight) for value, weight in weights.items() if weight > 0)
    if not ordered:
        return None
    below = list(accumulate(weight for _, weight in ordered))
    n = below[-1]
    mean = sum(value * weight for value, weight in ordered) / n
    variance = sum(weight * (value - mean) ** 2 for value, weight in ordered) / (n - 1) if n > 1 else 0.0
    found: dict[str, Any] = {"n": round(n), "mean": mean, "std": sqrt(variance), "min": ordered[0][0]}
    place = 0
    for percent in PERCENTILES:
        while below[place] < n * percent / 100 * (1 - 1e-12):
            place += 1
        found[f"p{percent}"] = ordered[place][0]
    return found | {"max": ordered[-1][0]}


def histogram(weights: Mapping[float, float]) -> dict[str, list[float]] | None:
    """`BINS` equal bins from the least value to the largest, the last one with its end; None where there is nothing."""
    known = {value: weight for value, weight in weights.items() if weight > 0}
    if not known:
        return None
    low, high = min(known), max(known)
    if high - low < NARROWEST:
        high = low + max(abs(low), 1.0)
    width = (high - low) / BINS
    counts = [0.0] * BINS
    for value, weight in known.items():
        counts[min(int((value - low) / width), BINS - 1)] += weight
    return {"edges": [low + i * width for i in range(BINS)] + [high], "counts": [round(count) for count in counts]}
