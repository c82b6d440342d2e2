"""Is a window steady, ramping, draining or idle: a batch that is full, or traffic that has stopped changing.

ML.ENERGY calls the time steady in which the batch is at its maximum. Open traffic never need fill the batch, so here a window
is also steady when, over the trailing two seconds, neither the number of running requests nor the token rate differs by more
than a tenth between the first half and the second.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from perjoule.sidecar.units import NS_PER_S

HORIZON_NS = 2 * NS_PER_S
TOLERANCE = 0.1


class Phase(StrEnum):
    """What a window is part of."""

    STEADY = "steady"
    RAMP = "ramp"
    DRAIN = "drain"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Activity:
    """A window's traffic: when, the time integral of running requests, and output tokens (in any unit)."""

    t0_ns: int
    t1_ns: int
    running_ns: int
    tokens: int

    @property
    def running(self) -> float:
        """Requests running, on average."""
        return self.running_ns / (self.t1_ns - self.t0_ns)


class SteadyStateDetector:
    """Feed it every window of one device in order; it answers each one's phase from what it has seen up to then."""

    def __init__(self, max_num_seqs: int = 0) -> None:
        self._full = max_num_seqs
        self._trail: deque[Activity] = deque()

    def feed(self, activity: Activity) -> Phase:
        """The phase of this window."""
        trail = self._trail
        trail.append(activity)
        while trail[0].t1_ns <= activity.t1_ns - HORIZON_NS:
            trail.popleft()
        if activity.running_ns == 0:
            trail.clear()
            return Phase.IDLE
        if self._full and activity.running >= self._full * 0.99:
            return Phase.STEADY
        middle_ns = (trail[0].t0_ns + activity.t1_ns) // 2
        early = [a for a in trail if a.t1_ns <= middle_ns]
        late = [a for a in trail if a.t1_ns > middle_ns]
        before, after = _rates(early), _rates(late)
        if activity.t1_ns - trail[0].t0_ns >= HORIZON_NS and all(_close(a, b) for a, b in zip(before, after, strict=True)):
            return Phase.STEADY
        return Phase.RAMP if after[0] >= before[0] else Phase.DRAIN


def _rates(activities: list[Activity]) -> tuple[float, float]:
    """Running requests and tokens a nanosecond, on average."""
    span_ns = sum(a.t1_ns - a.t0_ns for a in activities) or 1
    return sum(a.running_ns for a in activities) / span_ns, sum(a.tokens for a in activities) / span_ns


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= TOLERANCE * max(a, b)
