"""The energy counter as a run's observations show it: its value at any moment, and how far that may be off."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from perjoule.bench.load.sample import Observation

PARTS = ("measured_uj", "requests_uj", "idle_uj", "unattributed_uj")


class Looked(NamedTuple):
    """The sidecar's balance at one moment, in microjoules; a part that it does not tell is 0."""

    t_ns: int
    measured_uj: int
    requests_uj: int
    idle_uj: int
    unattributed_uj: int


class EnergyCounter:
    """`looks` are the balances that were answered, in the order of time; `resets` is how often the counter began anew (it goes on here
    from where it was); `still_ns` is the longest time without an answer, or without a microjoule more. Raises ValueError for less than
    two looks.

    `divided` is whether every look told the parts, too.

    A balance tells of the windows that have been divided by then. Where it says until when that is (`until_unix_ns`), its moment is
    that, else the look's."""

    def __init__(self, observations: Sequence[Observation]) -> None:
        seen: list[Looked] = []
        self.resets, self.still_ns = 0, 0
        last, base = (0, 0, 0, 0), (0, 0, 0, 0)
        moved_ns = observations[0].t_ns if observations else 0
        self.divided = True
        for look in observations:
            if (now := _parts(look)) is None:
                continue
            if now[0] < last[0]:
                self.resets += 1
                base = tuple(a + b for a, b in zip(base, last, strict=True))  # type: ignore[assignment]
            t_ns = _moment(look)
            if not seen or t_ns > seen[-1].t_ns:
                if seen and now != last:
                    self.still_ns, moved_ns = max(self.still_ns, t_ns - moved_ns), t_ns
                seen.append(Looked(t_ns, *(a + b for a, b in zip(base, now, strict=True))))
                last = now
                self.divided &= PARTS[1] in (look.balance or {})
        if len(seen) < 2:
            raise ValueError(f"got {len(seen)} answers of the sidecar's balance, expected at least 2")
        self.still_ns = max(self.still_ns, observations[-1].t_ns - moved_ns)
        self.looks = seen
        self._times = [look.t_ns for look in seen]

    @property
    def drawn(self) -> Looked:
        """From the first look to the last."""
        first, last = self.looks[0], self.looks[-1]
        return Looked(*(b - a for a, b in zip(first, last, strict=True)))

    def at(self, t_ns: int) -> tuple[float, ...]:
        """The four amounts at a moment, interpolated between looks; beyond the looks as the first or last one has it."""
        t_ns = min(max(t_ns, self._times[0]), self._times[-1])
        a, b = self._around(t_ns)
        part = (t_ns - a.t_ns) / (b.t_ns - a.t_ns)
        return tuple(x + (y - x) * part for x, y in zip(a[1:], b[1:], strict=True))

    def error_uj(self, t_ns: int) -> float:
        """How far `measured_uj` at a moment may be off by interpolation, if the power changed once between the two looks around it, from
        the highest to the lowest of what it was before, between and after them."""
        if not self._times[0] < t_ns < self._times[-1]:
            return 0.0
        i = bisect_right(self._times, t_ns)
        around = self.looks[max(i - 2, 0):i + 2]
        powers = [(y.measured_uj - x.measured_uj) / (y.t_ns - x.t_ns) for x, y in pairwise(around)]
        a, b = self._times[i - 1], self._times[i]
        return (t_ns - a) * (b - t_ns) / (b - a) * (max(powers) - min(powers))

    def _around(self, t_ns: int) -> tuple[Looked, Looked]:
        i = min(max(bisect_right(self._times, t_ns), 1), len(self._times) - 1)
        return self.looks[i - 1], self.looks[i]


def _parts(look: Observation) -> tuple[int, int, int, int] | None:
    balance = look.balance or {}
    if not isinstance(balance.get("measured_uj"), int):
        return None
    a, b, c, d = (value if isinstance(value := balance.get(part), int) else 0 for part in PARTS)
    return a, b, c, d


def _moment(look: Observation) -> int:
    until = (look.balance or {}).get("until_unix_ns")
    return look.t_ns + min(until - look.unix_ns, 0) if isinstance(until, int) else look.t_ns
