"""By how much a metric of one run differs from another's, and how sure that is: requests paired by the schedule, runs paired as repeats.

Two runs of one thing differ by more than their requests tell: temperature, clocks, placement. Of three or more repeats that shows. Of one
it cannot, so something is assumed (`RUN_TO_RUN`), with the weight of `BELIEF` repeats; what repeats show is weighed against it as in
Smyth's moderated t (2004).
"""

from collections.abc import Mapping, Sequence
from math import expm1, log, sqrt
from statistics import fmean, stdev, variance
from typing import Any, NamedTuple

from perjoule.bench.measures.comparable import same_work
from perjoule.bench.measures.formulas import FORMULAS
from perjoule.bench.measures.intervals import FEWEST, block_length, resampled, t_975

# The standard deviation of the difference of two runs of one thing. Of joules: the recorded coalitions of an H200 differ by 1–2 %. Of
# times: three repeats each at 32 and 128 in flight (bench/results/h200-replay.md).
RUN_TO_RUN = 0.01
RUN_TO_RUN_OF = {"ttft": 0.13, "tpot": 0.03, "e2e": 0.03}
BELIEF = 8  # degrees of freedom
# Metrics that requests say one by one: Σ of the first over Σ of the second column, in the order of the schedule.
PAIRED = {"energy_per_output_token": ("energy_j", "output_tokens"), "energy_per_response": ("energy_j", None),
          "ttft": ("ttft_ms", None), "tpot": ("tpot_ms", None), "e2e": ("e2e_ms", None)}
Z_975 = 1.96
Result = Mapping[str, Any]


class Pair(NamedTuple):
    """One run beside another: the values, the logarithm of their ratio and its standard error within the runs. `requests` is how many were
    paired, 0 where none could be (`paired_by`) and each one's own interval was taken."""

    a: float
    b: float
    log_ratio: float
    error: float
    requests: int


class Change(NamedTuple):
    """How much larger a metric is in the second run, as parts of the first, with a 95 % interval."""

    metric: str
    a: float
    b: float
    change: float
    low: float
    high: float
    pairs: int
    requests: int
    run_to_run: float  # what was assumed

    def verdict(self, tolerance: float) -> str:
        """"regression" or "improvement" where the interval excludes none and the change is beyond the tolerance, else "no difference"."""
        if abs(self.change) <= tolerance or self.low <= 0 <= self.high:
            return "no difference"
        return "regression" if (self.change > 0) is (FORMULAS[self.metric].better == "lower") else "improvement"


def change(metric: str, a: Sequence[Result], b: Sequence[Result], run_to_run: float | None = None) -> Change:
    """Of one run or several repeats on each side, paired in their order; what one side has more is left out. `run_to_run` is what is
    assumed instead of what is usual for the metric.

    Raises ValueError for a metric that one of them lacks, or that has neither values of requests nor an interval."""
    if metric not in FORMULAS or not FORMULAS[metric].better:
        raise ValueError(f"metric: got {metric!r}, expected one of {', '.join(comparable_metrics(a[0]))}")
    pairs = [pair(metric, x, y) for x, y in zip(a, b, strict=False)]
    ratios = [each.log_ratio for each in pairs]
    assumed = RUN_TO_RUN_OF.get(metric, RUN_TO_RUN) if run_to_run is None else run_to_run
    prior = assumed ** 2 + fmean(each.error ** 2 for each in pairs)
    seen = variance(ratios) if len(ratios) > 1 else 0.0
    freedom = BELIEF + len(ratios) - 1
    error = sqrt((BELIEF * prior + (len(ratios) - 1) * seen) / freedom / len(ratios))
    middle, half = fmean(ratios), t_975(freedom) * error
    return Change(metric, fmean(each.a for each in pairs), fmean(each.b for each in pairs), expm1(middle), expm1(middle - half),
                  expm1(middle + half), len(pairs), sum(each.requests for each in pairs), assumed)


def comparable_metrics(result: Result) -> list[str]:
    """The metrics of a result that can be compared."""
    whole = [key for key, each in result["metrics"].items() if each["low"] is not None and FORMULAS[key].better]
    return [key for key in FORMULAS if key in whole or (key in PAIRED and _rows(PAIRED[key], result))]


def paired_by(a: Result, b: Result) -> str:
    """By what requests of one index belong together: "schedule" where they are the same, "lengths" where each is as long in both runs of
    one work, as those of another seed are, "" where they have nothing in common."""
    schedule = a["setting"].get("schedule_sha256")
    if schedule and schedule == b["setting"].get("schedule_sha256"):
        return "schedule"
    if not same_work(a, b):
        return ""
    one, other = _lengths(a), _lengths(b)
    return "lengths" if all(None not in one[i] and one[i] == other[i] for i in one.keys() & other.keys()) else ""


def pair(metric: str, a: Result, b: Result) -> Pair:
    """One run beside another. Raises ValueError as `change` does."""
    if metric in PAIRED and paired_by(a, b):
        found = _by_request(PAIRED[metric], a, b)
        if found is not None:
            return found
    values: list[float] = []
    errors: list[float] = []
    for result in (a, b):
        each = result["metrics"].get(metric) or {}
        value, low, high = (each.get(key) for key in ("value", "low", "high"))
        if value is None or low is None or value <= 0:
            raise ValueError(f"{metric}: got no interval of it from {result.get('name') or result.get('run_id')!r}, and no requests of one "
                             "schedule or of equal lengths, expected one of "
                             f"{', '.join(comparable_metrics(result)) or 'a run with joules'}")
        values.append(value)
        errors.append((high - low) / 2 / Z_975 / value)
    return Pair(values[0], values[1], log(values[1] / values[0]), sqrt(errors[0] ** 2 + errors[1] ** 2), 0)


def _by_request(names: tuple[str, str | None], a: Result, b: Result) -> Pair | None:
    """The ratio over the requests that both completed, and its error by blocks of neighbours; None if they are too few."""
    one, other = _rows(names, a), _rows(names, b)
    both = sorted((one[i][2], i) for i in one.keys() & other.keys())
    if len(both) < FEWEST:
        return None
    columns = [[rows[i][place] for _, i in both] for rows in (one, other) for place in (0, 1)]
    sums = [sum(column) for column in columns]
    if min(sums) <= 0:
        return None
    first, second = sums[0] / sums[1], sums[2] / sums[3]
    # how each request moves the logarithm of the ratio, to first order
    pull = [y / sums[2] - m / sums[3] - x / sums[0] + n / sums[1] for x, n, y, m in zip(*columns, strict=True)]
    draws = resampled(columns, block_length(pull))
    logs = [log(y * n / (m * x)) for x, n, y, m in draws if min(x, n, y, m) > 0]
    return Pair(first, second, log(second / first), stdev(logs), len(both))


def _lengths(result: Result) -> dict[int, tuple[int | None, int | None]]:
    """Prompt and output tokens of each completed request."""
    columns = result.get("requests") or {}
    rows = zip(*(columns.get(key, ()) for key in ("index", "input_tokens", "output_tokens", "outcome")), strict=True)
    return {i: (prompt, output) for i, prompt, output, outcome in rows if outcome == "completed"}


def _rows(names: tuple[str, str | None], result: Result) -> dict[int, tuple[float, float, float]]:
    """(value, what it is divided by, when it was to be sent) of each completed request, by its index in the schedule."""
    columns, (above, below) = result.get("requests") or {}, names
    if not columns:
        return {}
    counts = columns[below] if below else [1] * len(columns["index"])
    rows = zip(columns["index"], columns[above], counts, columns["intended_s"], columns["outcome"], strict=True)
    return {i: (value, count, at_s) for i, value, count, at_s, outcome in rows if outcome == "completed" and value is not None and count}
