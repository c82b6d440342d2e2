"""The expected joules of a workload and of each of its requests, with their error, beside what FLOPs and TDP alone would say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.batching import Batched, Limits, batched
from perjoule.bench.estimates.costs import SPEED_SD, Costs, Doubt
from perjoule.bench.estimates.shapes import ModelShape
from perjoule.sidecar.metering.terms import NOTHING, Terms
from perjoule.sidecar.units import J_PER_KWH

Z95 = 1.96
PARTS = ("prefill_j", "steps_j", "decode_j", "context_j", "static_j", "idle_j")
PARTS_IN_WORDS = {
    "prefill_j": "prompt tokens", "steps_j": "steps: reading all weights", "decode_j": "output tokens, beside their steps",
    "context_j": "keys and values that output tokens look at", "static_j": "idle draw while busy", "idle_j": "while nothing runs",
    "attributed_j": "prompts and outputs", "prompts_j": "prompts", "outputs_j": "outputs",
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """`energy_j` is all that the boards would draw from the first arrival to the last end, and `parts` add up to it; `requests_j` are
    each request's, which with `parts["idle_j"]` add up to it, too. `doubts` are independent of each other."""

    method: str
    energy_j: float
    parts: dict[str, float]
    requests_j: tuple[float, ...]
    duration_s: float
    batch: float
    doubts: tuple[Doubt, ...]
    asked: Sequence[Asked]
    warnings: tuple[str, ...] = ()

    @property
    def relative_sd(self) -> float:
        """Of the whole: all doubts together."""
        return math.sqrt(sum(doubt.relative_sd**2 for doubt in self.doubts))

    @property
    def interval_j(self) -> tuple[float, float]:
        """95 %, log-normal: what may be twice as much may be half as much."""
        factor = math.exp(Z95 * self.relative_sd)
        return self.energy_j / factor, self.energy_j * factor

    @property
    def output_tokens(self) -> int:
        """Of all answers."""
        return sum(one.output for one in self.asked)

    @property
    def avg_power_w(self) -> float:
        """Of all boards, over the duration."""
        return self.energy_j / self.duration_s if self.duration_s else 0.0

    @property
    def energy_kwh(self) -> float:
        """As on a bill."""
        return self.energy_j / J_PER_KWH


def estimated(asked: Sequence[Asked], costs: Costs, limits: Limits, shape: ModelShape | None = None) -> Estimate:
    """Simulate the batching, then count what its amounts cost. The batch depends on durations, which physics alone tells: what that may be
    off by shows in how the joules move when everything is slower and faster."""
    prompts = [shape.prompt_work(one.prompt, one.cached) for one in asked] if shape and costs.attention else None
    middle = batched(asked, costs.seconds, limits, prompts)
    slower, faster = (whole_j(batched(asked, Terms(*(each * factor for each in costs.seconds)), limits, prompts), costs)
                      for factor in (math.exp(SPEED_SD), math.exp(-SPEED_SD)))
    amounts = NOTHING
    for each in middle.shares:
        amounts = amounts.plus(each.amounts)
    parts = {name: amount * cost for name, amount, cost in zip(PARTS, amounts, costs.joules, strict=False)}
    parts |= {"static_j": middle.busy_s * costs.idle_w, "idle_j": middle.idle_s * costs.idle_w}
    whole = sum(parts.values())
    active = whole - parts["static_j"] - parts["idle_j"]
    share = active / whole
    doubts = [Doubt("coefficients", costs.coefficients_sd(amounts) * share, "what a prompt token, a step and an output token cost"),
              *(doubt._replace(relative_sd=doubt.relative_sd * share) for doubt in costs.doubts),
              Doubt("durations", abs(slower - faster) / 2 / whole, f"how long steps take, by physics within {SPEED_SD:.0%}: "
                    "idle draw, and how many share a step")]
    return Estimate(costs.method, whole, parts, tuple(requests_j(middle, costs)), middle.busy_s + middle.idle_s, middle.batch,
                    tuple(doubts), asked)


def requests_j(found: Batched, costs: Costs) -> list[float]:
    """Each request's amounts, and its part of the idle draw while the engine was busy."""
    return [share.amounts.dot(costs.joules) + share.busy_s * costs.idle_w for share in found.shares]


def whole_j(found: Batched, costs: Costs) -> float:
    """All requests, and the time between them."""
    return sum(requests_j(found, costs)) + found.idle_s * costs.idle_w


def percentiles(values: Sequence[float], at: Sequence[float]) -> list[float]:
    """By linear interpolation between neighbours, as a result's."""
    ranked = sorted(values)
    found = []
    for share in at:
        place = share * (len(ranked) - 1)
        low = math.floor(place)
        found.append(ranked[low] + (ranked[min(low + 1, len(ranked) - 1)] - ranked[low]) * (place - low))
    return found
