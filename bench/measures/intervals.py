"""How sure a number is: 95 % intervals of one run by resampling it in blocks of time, and of repeats by their own spread.

Requests that ran together share windows of the counter, and neighbours in time share the state of the machine, so single requests or
windows are not independent. What is resampled are blocks of neighbours (circular block bootstrap: Politis and Romano, 1992), as long as
the data ask for (Politis and White, 2004, with their flat-top window).
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import ceil, log10, sqrt
from operator import mul
from random import Random
from statistics import fmean, stdev
from typing import Any, NamedTuple

from perjoule.bench.measures.distribution import percentile

DRAWS = 1000
FEWEST = 16  # values; fewer say nothing of their own spread
BLOCKS = 8  # at least, of however long
MOST_BLOCKS = 500  # at most, since every draw takes all of them
QUIET = 5  # lags in a row that chance explains: further ones are not asked for
CALMEST = 0.05  # of what independent values would vary; where neighbours make up for each other, less is not told from none
REPEATS = 3  # fewer runs say nothing of how runs differ
# Student's t, 97.5 %, by degrees of freedom; between them the next lower is taken
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 11: 2.201, 12: 2.179,
         14: 2.145, 16: 2.120, 18: 2.101, 20: 2.086, 25: 2.060, 30: 2.042, 40: 2.021, 60: 2.000, 120: 1.980}

Column = Sequence[float]


class Interval(NamedTuple):
    """A 95 % interval and the standard error behind it."""

    low: float
    high: float
    error: float


def block_length(residuals: Column) -> int:
    """How many neighbours belong together, from their autocorrelation up to where it is lost in chance; at most an eighth of them. Of very
    many it is more than they ask for: longer blocks do no harm while there are `MOST_BLOCKS`."""
    n = len(residuals)
    least = max(1, n // MOST_BLOCKS)
    mean = fmean(residuals)
    centred = [x - mean for x in residuals]
    spread = sum(map(mul, centred, centred))
    if n < 2 * BLOCKS or not spread:
        return least
    chance, quiet, rhos = 2 * sqrt(log10(n) / n), 0, [1.0]
    while quiet < QUIET and len(rhos) < n // 4:
        rhos.append(sum(map(mul, centred, centred[len(rhos):])) / spread)
        quiet = quiet + 1 if abs(rhos[-1]) < chance else 0
    reach = 2 * (len(rhos) - 1 - quiet)  # twice the last lag that is more than chance; beyond half of it correlations fade out
    if not reach:
        return least
    fading = [min(1.0, 2 * (1 - lag / reach)) * rho for lag, rho in enumerate(rhos) if lag <= reach]
    pull, whole = 2 * sum(map(mul, range(len(fading)), fading)), 1 + 2 * sum(fading[1:])
    asked: float = (1.5 * n) ** (1 / 3) * abs(pull / max(whole, CALMEST)) ** (2 / 3)
    return max(least, min(ceil(asked), n // BLOCKS))


def resampled(columns: Sequence[Column], block: int, seed: int = 0, draws: int = DRAWS) -> list[tuple[float, ...]]:
    """For each draw the sum of every column over blocks of rows, drawn with replacement until there are as many rows again."""
    n, random = len(columns[0]), Random(seed)
    sums = [list(accumulate([*column, *column[:block - 1]], initial=0.0)) for column in columns]
    blocks = [[b - a for a, b in zip(column, column[block:], strict=False)] for column in sums]
    count, found = max(1, round(n / block)), []
    for _ in range(draws):
        places = [int(random.random() * n) for _ in range(count)]
        found.append(tuple(sum([each[place] for place in places]) for each in blocks))
    return found


def of_ratio(numerators: Column, denominators: Column, seed: int = 0) -> Interval | None:
    """The interval of Σ numerators / Σ denominators over rows in the order of time; None if there are too few to tell."""
    below = sum(denominators)
    if len(numerators) < FEWEST or below <= 0:
        return None
    ratio = sum(numerators) / below
    block = block_length([a - ratio * b for a, b in zip(numerators, denominators, strict=True)])
    return of_draws([a / b for a, b in resampled([numerators, denominators], block, seed) if b > 0])


def of_mean(values: Column, seed: int = 0) -> Interval | None:
    """The same for the mean of rows in the order of time."""
    return of_ratio(values, [1.0] * len(values), seed)


def of_draws(values: Column) -> Interval | None:
    """From what resampling gave."""
    if len(values) < DRAWS // 2:
        return None
    ordered = sorted(values)
    return Interval(percentile(ordered, 2.5), percentile(ordered, 97.5), stdev(ordered))


def t_975(freedom: int) -> float:
    """Student's t for a two-sided interval of 95 %, of one degree of freedom or more."""
    return T_975[max(df for df in T_975 if df <= freedom)]


def of_repeats(values: Column) -> Interval | None:
    """The interval of the mean of runs that repeat each other, by Student's t: of three runs, resampling would draw the same ones again and
    make too little of their spread. None for less than `REPEATS`."""
    if len(values) < REPEATS:
        return None
    error = stdev(values) / sqrt(len(values))
    half = t_975(len(values) - 1) * error
    return Interval(fmean(values) - half, fmean(values) + half, error)


def repeated(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Repeats as one: of each metric that all have, the mean over the runs, its interval, and their standard deviation.

    Raises ValueError for no result."""
    if not results:
        raise ValueError("got no results, expected at least one")
    metrics: dict[str, Any] = {}
    for key, first in results[0]["metrics"].items():
        entries = [result["metrics"].get(key) for result in results]
        values = [entry["value"] for entry in entries if entry and entry["value"] is not None and entry["formula"] == first["formula"]]
        if len(values) < len(results):
            continue
        interval = of_repeats(values)
        metrics[key] = {"value": fmean(values), "unit": first["unit"], "formula": first["formula"], "n": len(values),
                        "low": interval.low if interval else None, "high": interval.high if interval else None,
                        "std": stdev(values) if len(values) > 1 else None}
    return {"repeats": len(results), "run_ids": [result["run_id"] for result in results],
            "valid": all(result["valid"] for result in results), "metrics": metrics}
