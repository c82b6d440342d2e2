"""The engine's steps, counted from the frames that clients see: with continuous batching every running sequence gets one a step.

Each stream's frames advance its own position; the engine is as far as the stream that is furthest. A stream joins at the engine's
position, so jitter cannot make steps up, and one that is late (or was preempted) holds nothing back.
"""

from bisect import bisect_right
from dataclasses import dataclass

from perjoule.sidecar.units import NS_PER_MS, nearest

PRIOR_STEP_NS = 20 * NS_PER_MS
KEEP = 0.95  # of the usual duration of a step, at each new one
LONG_STEP = 4.0  # times the usual: a step that computed much of a prompt, which says nothing about the usual


@dataclass(slots=True)
class Moment:
    """One at which sequences join those that decode, or leave them."""

    change: int = 0  # sequences that join, less those that leave
    count: float = 0.0  # steps so far
    share: float = 0.0  # the sum over them, since the first of the moments, of 1 / (sequences in the step)


class StepClock:
    """Steps by when: an amount that never falls, linear between its knots."""

    __slots__ = ("_counts", "_times", "_told", "count", "last_ns", "usual_ns")

    def __init__(self) -> None:
        self._times, self._counts = [0], [0.0]
        self.count, self.last_ns = 0.0, 0
        self._told = 0.0  # the count at the last step that the engine told
        self.usual_ns = float(PRIOR_STEP_NS)

    def advance(self, t_ns: int, count: float) -> None:
        """By `t_ns` the engine has made `count` steps, more than before."""
        took_ns = (t_ns - self.last_ns) / (count - self.count)
        self.usual_ns = KEEP * self.usual_ns + (1 - KEEP) * min(took_ns, LONG_STEP * self.usual_ns)
        self._knot(t_ns, count)

    def tell(self, t_ns: int, steps: int, *, goes_on: bool) -> None:
        """The engine says that by `t_ns` it has made so many more steps; `goes_on` if it told of all those before them."""
        told = self._told if goes_on else self.count
        self._told = max(self.count, told + steps)  # of the step under way a part may have been counted
        if t_ns > self.last_ns > 0 and self._told > self.count:  # when the very first began is not known
            self.advance(t_ns, self._told)
        else:
            self._knot(t_ns, self._told)

    def rest(self, until_ns: int) -> None:
        """Nobody was decoding up to `until_ns`: no step until then."""
        self._knot(until_ns, self.count)

    def coast(self, t_ns: int, step_ns: float) -> None:
        """Somebody may be decoding up to `t_ns` whose frames nobody sees: steps of that duration."""
        if t_ns > self.last_ns:
            self._knot(t_ns, self.count + (t_ns - self.last_ns) / step_ns)

    def pin(self, t_ns: int) -> None:
        """What `at` says of this moment has been charged, and stays so."""
        if t_ns > self.last_ns:
            self._knot(t_ns, self.at(t_ns))

    def at(self, t_ns: int) -> float:
        """Steps by `t_ns`. After the last one that was seen, a step is under way, and it is one, however long it takes."""
        if t_ns >= self.last_ns:
            return self.count + min((t_ns - self.last_ns) / self.usual_ns, 1.0)
        return self._between(bisect_right(self._times, t_ns), t_ns)

    def share(self, moments: dict[int, Moment]) -> None:
        """Find the steps of each moment, which are counted as by `at`, and their shares."""
        times, share, before, sequences = self._times, 0.0, 0.0, 0
        order = sorted(moments)
        i = bisect_right(times, order[0]) if order else 0
        for t_ns in order:
            while i < len(times) and times[i] <= t_ns:
                i += 1
            moment = moments[t_ns]
            moment.count = self._between(i, t_ns) if i < len(times) else self.at(t_ns)
            if sequences:
                share += (moment.count - before) / sequences
            moment.share, before = share, moment.count
            sequences += moment.change

    def ends_after(self, t_ns: int) -> list[int]:
        """When the steps after `t_ns` ended, up to the last one that was seen."""
        return self._times[bisect_right(self._times, t_ns):]

    def when(self, count: float) -> int:
        """When the engine had made so many steps; the oldest moment still known for a number before that."""
        i = bisect_right(self._counts, count)
        if i == 0:
            return self._times[0]
        if i == len(self._counts):
            return self.last_ns
        c0, t0 = self._counts[i - 1], self._times[i - 1]
        return t0 + nearest((self._times[i] - t0) * (count - c0) / (self._counts[i] - c0))

    def forget(self, t_ns: int) -> None:
        """Nothing before `t_ns` will be asked for; done now and then."""
        if len(self._times) > 4096:
            keep = max(bisect_right(self._times, t_ns) - 1, 0)
            del self._times[:keep], self._counts[:keep]

    def _between(self, i: int, t_ns: int) -> float:
        """Steps by `t_ns`, which is before knot `i` and not before the one that precedes it."""
        if i == 0:
            return self._counts[0]
        t0, c0 = self._times[i - 1], self._counts[i - 1]
        return c0 + (self._counts[i] - c0) * (t_ns - t0) / (self._times[i] - t0)

    def _knot(self, t_ns: int, count: float) -> None:
        if t_ns > self.last_ns:
            self._times.append(t_ns)
            self._counts.append(count)
            self.last_ns = t_ns
        else:
            self._counts[-1] = max(self._counts[-1], count)
        self.count = self._counts[-1]
