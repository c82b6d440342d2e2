"""What readings of an energy counter say about the sensor: how often it has news, how finely, and whether to trust it.

Pure: lists of readings in, findings out. The rules stand in docs/sensors.md: the counter is checked against the
integral of instant power, and against itself polled at other rates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from perjoule.sidecar.ports import Reading
from perjoule.sidecar.record import Status
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S, power_w

Points = Sequence[tuple[int, int]]  # (t_ns, value)

FINE_NS = 10 * NS_PER_MS  # polled this often, instant power can be integrated
REFUSED = 0.03  # a counter this far from the integral, or from itself at another poll rate, is not to be trusted
DOUBTED = 0.01
DOUBTED_RATES = 0.005
STEADY = 0.05  # poll rates are compared one after another, so only while the load stays within this
LONG_ENOUGH_NS = 5 * NS_PER_S  # mean power over less is noise
LONG_PERIOD_NS = 250 * NS_PER_MS


class Answer(StrEnum):
    """Can the joules be trusted here?"""

    YES = "yes"
    CARE = "with care"
    NO = "no"


@dataclass(frozen=True, slots=True)
class Span:
    """One device polled at one rate: its readings, and every look at its instant power, (t_ns, mW)."""

    poll_ns: int
    readings: Sequence[Reading]
    powers: Points = ()


@dataclass(frozen=True, slots=True)
class Findings:
    """A sensor as measured; None is what could not be seen. Shares are of one: 0.003 is 0.3 %."""

    measured_ns: int  # at the finest rate, from the first change to the last
    period_ns: int | None  # median time between new values of the counter
    period_p5_ns: int | None
    period_p95_ns: int | None
    quantum_uj: int | None  # the largest step that all steps are multiples of
    call_median_ns: int
    call_p99_ns: int
    backwards: bool
    power_period_ns: int | None
    power_skipped: float | None  # share of those periods in which instant power showed nothing new
    counter_w: float | None
    integral_w: float | None  # of instant power, over the same time
    disagreement: float | None
    rates: tuple[tuple[int, float | None], ...]  # (poll_ns, mean power by the counter)
    rate_spread: float | None  # largest over smallest less one; None while the load moved


def changes(points: Points) -> list[tuple[int, int]]:
    """Each new value and when it was first seen; the value at the start is no news."""
    return [(t1, v1) for (_, v0), (t1, v1) in pairwise(points) if v1 != v0]


def study(spans: Sequence[Span]) -> Findings:
    """The findings on one device from spans at rising poll intervals, of which each begins and ends with a change."""
    finest = spans[0]
    seen = [changes([(r.t_before_ns, r.energy_uj) for r in span.readings]) for span in spans]
    gaps = sorted(t1 - t0 for (t0, _), (t1, _) in pairwise(seen[0]))
    steps = [v1 - v0 for each in seen for (_, v0), (_, v1) in pairwise(each)]
    calls = sorted(r.t_after_ns - r.t_before_ns for r in finest.readings)
    power_seen = changes(finest.powers)
    power_gaps = sorted(t1 - t0 for (t0, _), (t1, _) in pairwise(power_seen))
    power_period_ns = _quantile(power_gaps, 0.5)
    counter = [_counter_w(each) for each in seen]
    integral = [_integral_w(span.powers, each) for span, each in zip(spans, seen, strict=True)]
    fine = [k for k, span in enumerate(spans) if span.poll_ns <= FINE_NS]
    counter_w, integral_w = _mean([counter[k] for k in fine]), _mean([integral[k] for k in fine])
    return Findings(
        measured_ns=seen[0][-1][0] - seen[0][0][0] if seen[0] else 0,
        period_ns=_quantile(gaps, 0.5), period_p5_ns=_quantile(gaps, 0.05), period_p95_ns=_quantile(gaps, 0.95),
        quantum_uj=math.gcd(*steps) or None,
        call_median_ns=calls[len(calls) // 2], call_p99_ns=calls[int(0.99 * (len(calls) - 1))],
        backwards=any(step < 0 for step in steps),
        power_period_ns=power_period_ns,
        power_skipped=max(0.0, 1 - len(power_gaps) * power_period_ns / sum(power_gaps)) if power_period_ns else None,
        counter_w=counter_w, integral_w=integral_w,
        disagreement=counter_w / integral_w - 1 if counter_w and integral_w else None,
        rates=tuple((span.poll_ns, watts) for span, watts in zip(spans, counter, strict=True)),
        rate_spread=_rate_spread(counter, integral),
    )


def judge(findings: Findings, status: Status, processes: int | None = None) -> tuple[Answer, list[str]]:
    """Can the joules of this device be trusted, and if not wholly, why; `processes` is how many compute on it."""
    refused, doubted = _against(findings), _doubts(findings)
    if status is Status.SIMULATED:
        refused.append("simulated: no sensor of this machine stands behind these joules")
    if status is Status.ESTIMATED:
        doubted.append("the vendor estimates these joules and does not measure them")
    if processes is not None and processes > 1:
        doubted.append(f"{processes} processes compute on this board, and its counter sees them all")
    return Answer.NO if refused else Answer.CARE if doubted else Answer.YES, refused + doubted


def _against(f: Findings) -> list[str]:
    reasons = []
    if f.counter_w is None:
        reasons.append("the counter did not move")
    if f.backwards:
        reasons.append("the counter went backwards")
    if f.disagreement is not None and abs(f.disagreement) > REFUSED:
        reasons.append(f"the counter is {f.disagreement:+.1%} off instant power's integral, more than {REFUSED:.0%}")
    if f.rate_spread is not None and f.rate_spread > REFUSED:
        reasons.append(f"polled at other rates the counter differs by {f.rate_spread:.1%}, more than {REFUSED:.0%}")
    return reasons


def _doubts(f: Findings) -> list[str]:
    reasons = []
    if f.measured_ns < LONG_ENOUGH_NS * 0.9:
        reasons.append(f"measured for {f.measured_ns / NS_PER_S:.1f} s at the finest rate, less than 5 s")
    if f.disagreement is None:
        reasons.append("no instant power to check the counter against")
    elif DOUBTED < abs(f.disagreement) <= REFUSED:
        reasons.append(f"the counter is {f.disagreement:+.1%} off instant power's integral")
    if f.rate_spread is None:
        reasons.append("the load moved by more than 5 %, so poll rates were not compared: repeat when idle or steady")
    elif DOUBTED_RATES < f.rate_spread <= REFUSED:
        reasons.append(f"polled at other rates the counter differs by {f.rate_spread:.1%}")
    if f.period_ns is not None and f.period_ns > LONG_PERIOD_NS:
        reasons.append(f"a new value only every {f.period_ns / NS_PER_MS:.0f} ms: short requests share coarse windows")
    return reasons


def _rate_spread(counter: Sequence[float | None], integral: Sequence[float | None]) -> float | None:
    """How far the counter's mean power differs between poll rates, the load's own drift taken out by instant power."""
    drift = _spread(integral)
    if drift is None:
        return _spread(counter)
    if drift > STEADY:
        return None
    return _spread([c / i if c and i else None for c, i in zip(counter, integral, strict=True)])


def _spread(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value]
    return max(known) / min(known) - 1 if len(known) == len(values) else None


def _counter_w(seen: Points) -> float | None:
    """Mean power from the first change to the last."""
    if len(seen) < 2:
        return None
    (t0, e0), (t1, e1) = seen[0], seen[-1]
    return power_w(e1 - e0, t1 - t0)


def _integral_w(powers: Points, seen: Points) -> float | None:
    """Mean instant power over the same time, each value held until the next look."""
    if len(seen) < 2 or not powers:
        return None
    begin, end = seen[0][0], seen[-1][0]
    held = [(max(begin, t), mw) for t, mw in powers if t < end] + [(end, 0)]
    total = sum(mw * max(0, t1 - t0) for (t0, mw), (t1, _) in pairwise(held))
    return total / (end - begin) / 1000


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _quantile(ordered: Sequence[int], quantile: float) -> int | None:
    return ordered[int(quantile * (len(ordered) - 1))] if ordered else None
