"""A quantity that holds for a time, and then another: the mean over any stretch, and for how much of it a value is known."""

from bisect import bisect_right
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple


class Mean(NamedTuple):
    """The time-weighted mean over what is known of a stretch (None where nothing is), and how many ns of it are known."""

    value: Fraction | None
    known_ns: int


class Step(NamedTuple):
    """A value and the time for which it holds, half-open: [start, end)."""

    begin_unix_ns: int
    until_unix_ns: int
    value: Fraction


class Steps:
    """Values in order of time; one that begins ends the one before it. Where no step is, nothing is known."""

    def __init__(self, steps: Iterable[Step]) -> None:
        ordered = sorted({step.begin_unix_ns: step for step in steps}.values())
        ends = [step.begin_unix_ns for step in ordered[1:]]
        self._steps = [step._replace(until_unix_ns=min(step.until_unix_ns, end))
                       for step, end in zip(ordered, [*ends, *(step.until_unix_ns for step in ordered[-1:])], strict=True)]
        self._starts = [step.begin_unix_ns for step in self._steps]

    def mean(self, begin_unix_ns: int, until_unix_ns: int) -> Mean:
        """Over [start, end), which is not empty."""
        weighted, known_ns = Fraction(0), 0
        first = max(bisect_right(self._starts, begin_unix_ns) - 1, 0)
        for step in self._steps[first:bisect_right(self._starts, until_unix_ns - 1)]:
            span_ns = min(step.until_unix_ns, until_unix_ns) - max(step.begin_unix_ns, begin_unix_ns)
            if span_ns > 0:
                weighted += step.value * span_ns
                known_ns += span_ns
        return Mean(weighted / known_ns if known_ns else None, known_ns)

    def is_hourly(self) -> bool:
        """Whether values change on full hours (UTC) only."""
        return all(edge % 3_600_000_000_000 == 0 for step in self._steps for edge in step[:2])
