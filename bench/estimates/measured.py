"""An estimate from results of replay: what tokens cost at the concurrencies that were run, and between them."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean

from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.costs import GAIN_SD, Doubt
from perjoule.bench.estimates.estimate import Estimate
from perjoule.bench.estimates.points import Point

UNTOLD_SD = 0.25  # of an interpolation that nothing can check: fewer than three concurrencies
SAME_LENGTHS = 1.25  # mean lengths that differ by more than this factor are said


def at(points: Sequence[Point], concurrency: float) -> Point:
    """Between two neighbours, straight in logarithms; beyond the ends, as at the end."""
    if concurrency <= points[0].concurrency:
        return points[0]
    for low, high in pairwise(points):
        if concurrency <= high.concurrency:
            share = math.log(concurrency / low.concurrency) / math.log(high.concurrency / low.concurrency)
            return Point(concurrency, *(_between(a, b, share) for a, b in zip(low[1:], high[1:], strict=True)))
    return points[-1]


def concurrency_for(points: Sequence[Point], output_tokens_s: float) -> float:
    """The concurrency at which as many tokens a second come out as are wanted (Little's law); the largest measured one where that is too
    few, the smallest where it is too many."""
    for low, high in pairwise(points):
        if output_tokens_s <= low.output_tokens_s:
            return low.concurrency
        if low.output_tokens_s < output_tokens_s <= high.output_tokens_s:
            share = math.log(output_tokens_s / low.output_tokens_s) / math.log(high.output_tokens_s / low.output_tokens_s)
            return _between(low.concurrency, high.concurrency, share)
    return points[-1].concurrency


def by_results(asked: Sequence[Asked], points: Sequence[Point], concurrency: int | None, idle_w: float = 0.0) -> Estimate:
    """Joules at the concurrency of a closed loop, or at the one that the requests' times lead to. `idle_w` is what all boards draw while
    nothing runs, which times may leave room for."""
    prompts, outputs = sum(one.prompt - one.cached for one in asked), sum(one.output for one in asked)
    times = [one.at_s for one in asked if one.at_s is not None]
    span_s = max(times) - min(times) if times and concurrency is None else 0.0
    warnings = []
    if concurrency is None:
        wanted = outputs / span_s if span_s else math.inf
        level = concurrency_for(points, wanted)
        if span_s and wanted > points[-1].output_tokens_s * 1.01:
            warnings.append(f"got {wanted:.0f} output tokens a second to serve, but no result has more than "
                            f"{points[-1].output_tokens_s:.0f}: requests queue, and the whole lasts longer")
    else:
        level = float(min(concurrency, len(asked)))
        if not points[0].concurrency / 1.05 <= level <= points[-1].concurrency * 1.05:
            warnings.append(f"got a concurrency of {level:g}, measured are {points[0].concurrency:.3g} to {points[-1].concurrency:.3g}: "
                            "the nearest of them is taken")
    point = at(points, level)
    for name, mine, theirs in (("prompts", fmean(one.prompt for one in asked), point.prompt),
                               ("answers", fmean(one.output for one in asked), point.output)):
        if theirs and not 1 / SAME_LENGTHS <= mine / theirs <= SAME_LENGTHS:
            warnings.append(f"{name} are {mine:.0f} tokens on average, those of the results {theirs:.0f}: a token's cost changes with that")
    requests = [(one.prompt - one.cached) * point.prompt_token_j + one.output * point.output_token_j for one in asked]
    parts = {"prompts_j": prompts * point.prompt_token_j, "outputs_j": outputs * point.output_token_j}
    busy_s = sum(requests) / point.power_w
    idle_s = max(0.0, span_s - busy_s)
    parts["idle_j"] = idle_s * idle_w
    doubts = (Doubt("gain", GAIN_SD, "boards of one name and their sensors differ, from one to the next and from day to day"),
              left_out(points, prompts, outputs))
    return Estimate("results", sum(parts.values()), parts, tuple(requests), busy_s + idle_s, point.concurrency, doubts, asked,
                    tuple(warnings))


def left_out(points: Sequence[Point], prompts: int, outputs: int) -> Doubt:
    """How far each point between two others is from what they say of it, for these tokens."""
    def cost(point: Point) -> float:
        return prompts * point.prompt_token_j + outputs * point.output_token_j
    if len(points) < 3:
        return Doubt("interpolation", UNTOLD_SD, f"assumed: {len(points)} concurrencies do not tell, expected three or more")
    off = [math.log(cost(at([*points[:i], *points[i + 1:]], points[i].concurrency)) / cost(points[i])) for i in range(1, len(points) - 1)]
    return Doubt("interpolation", math.sqrt(fmean(each**2 for each in off)), "each point between two others left out, and told from them")


def _between(a: float, b: float, share: float) -> float:
    return math.exp((1 - share) * math.log(a) + share * math.log(b)) if a > 0 and b > 0 else (1 - share) * a + share * b


def described(points: Sequence[Point]) -> list[Mapping[str, float]]:
    """For JSON."""
    return [point._asdict() for point in points]
