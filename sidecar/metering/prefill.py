"""When each prompt was computed: engines take prompts in the order of arrival and fill their steps with them.

All prompts that wait are one row of tokens, and the engine's progress along that row is one rising curve. A first token says that
its prompt is done by then; a prompt whose first token has not come is not done; nothing is computed before it has arrived. Of all
curves that agree with this, the straightest one is taken. A large step computes the end of one prompt and the begin of the next
(chunked prefill, a step's token budget): the straight curve finds that by itself, without knowing the budget.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, nextafter

from perjoule.sidecar.metering.pace import Peak
from perjoule.sidecar.metering.taut_string import Gate, taut_string
from perjoule.sidecar.metering.told import Told
from perjoule.sidecar.metering.work import Work
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

PRIOR_PER_S = 10_000.0  # tokens; an 8B model does 45,000 on an H200, a tiny one 5,000 on two CPU cores
SAME_STEP_NS = 3 * NS_PER_MS  # first tokens that come this close together come from one step of the engine
LEAST = 1e-4  # tokens between two gates: nearer would be the same, with floats
TOUCH = 0.5  # tokens: nearer is the same, with floats
LEARN_TOKENS = 1024  # fewer say little about the rate: they wait for a step longer than they take
LONG_NS = NS_PER_S // 2  # a busy time is looked at in pieces of this length


@dataclass(slots=True)
class Placed:
    """A part of a prompt computed in a window; `done_ns` is when the prompt was done, None if it was not."""

    work: Work
    tokens: float
    done_ns: int | None


@dataclass(slots=True)
class Path:
    """Progress along the row: tokens by when, both rising; between, in proportion to what the engine told that it computed, or to time."""

    times: list[int]
    heights: list[float]
    told: Told | None
    place: int = 1  # of the first time that is not before the last moment asked for

    def height(self, t_ns: int) -> float:
        """How far it is by a moment that is not before the last one asked for."""
        times, i = self.times, self.place
        while i < len(times) - 1 and times[i] < t_ns:
            i += 1
        self.place = i
        y0, y1, x0_ns, x1_ns = self.heights[i - 1], self.heights[i], times[i - 1], times[i]
        if self.told is not None and x0_ns < t_ns < x1_ns:
            return y0 + (y1 - y0) * self.told.computed(x0_ns, t_ns) / self.told.computed(x0_ns, x1_ns)
        return y0 + (y1 - y0) * _part(t_ns, x0_ns, x1_ns)


class PrefillQueue:
    """The prompts that wait or are being computed, in the order of arrival."""

    def __init__(self) -> None:
        self.jobs: dict[Work, None] = {}
        self.per_s = Peak(PRIOR_PER_S)
        self._unseen: set[Work] = set()  # whose first token will be seen, or told
        self._busy_since_ns = 0  # since then there has always been one
        self._tokens = 0.0  # computed since then, of prompts that began since then

    def begin(self, job: Work, *, shows: bool) -> None:
        """A prompt has arrived; `shows` if it will be seen when it is done."""
        self.jobs[job] = None
        if shows:
            if not self._unseen:
                self._busy_since_ns, self._tokens = job.begin_ns, 0.0
            self._unseen.add(job)

    def goes_first(self, job: Work) -> None:
        """The engine has taken it before those that came earlier."""
        if job in self.jobs:
            self.jobs = {job: None} | self.jobs

    def gone(self, job: Work) -> None:
        """It has ended, and no token of it was seen."""
        self._unseen.discard(job)

    def seen(self, job: Work, t_ns: int) -> None:
        """Its first token has come."""
        if job not in self._unseen:
            return  # nobody counted on it
        self._unseen.remove(job)
        if job.begin_ns >= self._busy_since_ns:
            self._tokens += job.prompt_tokens
        busy_ns = t_ns - self._busy_since_ns
        if (not self._unseen or busy_ns > LONG_NS) and self._tokens >= LEARN_TOKENS:
            # All of these were computed in this time, so the rate is no less.
            self.per_s.learn(self._tokens, busy_ns / NS_PER_S)
        if busy_ns > LONG_NS:
            self._busy_since_ns, self._tokens = t_ns, 0.0

    def place(self, t0_ns: int, t1_ns: int, now_ns: int, step_ends_ns: Sequence[int] = (), told: Told | None = None) -> list[Placed]:
        """What was computed of each prompt in (t0, t1], as far as can be told by what was seen up to `now_ns`; `step_ends_ns` are ends
        of steps after t0 that others have shown, rising; `told` is what the engine said, if it does. Changes nothing."""
        order = _service_order([job for job in self.jobs if job.prompt_left > 0], told)
        if not order:
            return []
        ends: list[float] = []
        whole = 0.0
        for job in order:
            whole += self._size(job, t0_ns)
            ends.append(whole)
        path = self._path(order, ends, t0_ns, max(t1_ns, now_ns), told)
        placed: list[Placed] = []
        at, place, start = 0.0, 0, 0.0  # of the row: progress, and the first prompt that is not done, and where it starts
        for end_ns in self._steps(order, path, step_ends_ns):
            now = path.height(min(end_ns, t1_ns))
            until = now if end_ns <= t1_ns else path.height(end_ns)
            within = (now - at) / (until - at) if until > at else 0.0  # of the step, what the window has
            # All prompts of a step are computed side by side: each is as far as the step is, whichever comes first in the row.
            while place < len(order) and start < until - TOUCH:
                job, end = order[place], ends[place]
                tokens = (min(end, until) - max(start, at)) * within
                is_done = end <= until + TOUCH
                if tokens > 0 and job.begin_ns < t1_ns:
                    if not placed or placed[-1].work is not job:  # it may have been in the step before, too
                        placed.append(Placed(job, 0.0, None))
                    part = placed[-1]
                    part.tokens = min(job.prompt_left, part.tokens + tokens)
                    part.done_ns = end_ns if is_done and end_ns <= t1_ns else None
                if not is_done:
                    break
                place, start = place + 1, end
            at = until
            if end_ns >= t1_ns:
                break
        return placed

    def commit(self, placed: Sequence[Placed], t0_ns: int, t1_ns: int) -> None:
        """These parts have been charged."""
        for part in placed:
            part.work.prompt_left = 0.0 if part.done_ns is not None else part.work.prompt_left - part.tokens
        self.jobs = {job: None for job in self.jobs if job.prompt_left > 0 and (job.end_ns is None or job.end_ns > t1_ns)}

    def _steps(self, order: list[Work], path: Path, others_ns: Sequence[int]) -> list[int]:
        """When steps ended, as far as the path goes."""
        t0_ns, last_ns = path.times[0], path.times[-1]
        ends = [t for t in others_ns if t0_ns < t < last_ns]
        ends += [job.first_ns for job in order if job.first_ns is not None and t0_ns < job.first_ns < last_ns]
        ends.sort()
        ends.append(last_ns)
        return [t for i, t in enumerate(ends) if t == last_ns or ends[i + 1] - t > SAME_STEP_NS]

    def _size(self, job: Work, t0_ns: int) -> float:
        """Tokens of the row. Of a prompt whose client left before it was done, no more than there was time for."""
        if job.end_ns is None or job.first_ns is not None:
            return job.prompt_left
        time_ns = max(0, job.end_ns - max(t0_ns, job.begin_ns))
        return min(job.prompt_left, self.per_s.value * time_ns / NS_PER_S)

    def _path(self, order: list[Work], ends: list[float], t0_ns: int, now_ns: int, told: Told | None) -> Path:
        """The engine's progress along the row from `t0_ns` up to now, or until it was worked off."""
        overdue = 0.0  # whose first token came in a window that has been divided without knowing
        for place, job in enumerate(order):
            if job.first_ns is not None and job.first_ns <= t0_ns:
                overdue = ends[place]
        times = [job.begin_ns for job in order if job.begin_ns > t0_ns]
        times += [job.first_ns for job in order if job.first_ns is not None and job.first_ns > t0_ns]
        gates, low = [Gate(t0_ns, overdue, overdue)], overdue
        empty_ns, empty_at = t0_ns, overdue  # when the row was last worked off
        begun = done = undone = 0  # places in the order; each only moves on
        for t_ns in sorted(times):
            if t_ns == gates[-1].t:
                continue
            while begun < len(order) and order[begun].begin_ns < t_ns:
                begun += 1
            steps_end = False
            for place in range(done, len(order)):
                first_ns = order[place].first_ns
                if first_ns is not None:
                    if first_ns > t_ns:
                        break
                    done, steps_end = place + 1, steps_end or first_ns == t_ns
            undone = max(undone, done)
            while undone < len(order) and _may_be_done(order[undone], t_ns + SAME_STEP_NS, told):
                undone += 1
            low = max(low, ends[done - 1] if done else 0.0)
            high = arrived = max(low, ends[begun - 1] if begun else 0.0)
            if steps_end and undone < len(order):
                # Only where a step is seen to end is it sure that nothing more is done: within one, the next prompt may be, too.
                high = max(low, min(arrived, ends[undone]))
            gates.append(Gate(t_ns, low, high))
            if low >= arrived:
                empty_ns, empty_at = t_ns, low
        last = gates[-1]
        if last.t < now_ns:
            while undone < len(order) and _may_be_done(order[undone], now_ns, told):
                undone += 1
            if undone < len(order):  # nobody whose first token is still to be seen is done
                last = Gate(now_ns, low, max(low, ends[undone] - 1.0))
            else:  # all may be; at the rate that was learned they were, or will be, by then
                all_ns = empty_ns + round((ends[-1] - empty_at) / self.per_s.value * NS_PER_S)
                last = Gate(min(now_ns, max(all_ns, last.t + 1)), low, ends[-1])
            gates.append(last)
        counts = told if told is not None and told.counts_prompts else None
        computed = counts.computed(empty_ns, last.t) if counts is not None else self.per_s.value * (last.t - empty_ns) / NS_PER_S
        expected = min(max(empty_at + computed, last.low), last.high)
        gates[-1] = Gate(last.t, expected, expected)
        along = None if counts is None else _told_along(gates, counts)
        return Path([gate.t for gate in gates], taut_string(gates, along), counts)


def _told_along(gates: Sequence[Gate], told: Told) -> list[float]:
    """Where the gates are along the tokens that the engine told that it computed: the path that is straight along these is the one that
    agrees with it, as far as first tokens and the prompts' lengths let it."""
    along = [0.0]
    for before, gate in pairwise(gates):
        along.append(max(along[-1] + told.computed(before.t, gate.t), nextafter(along[-1] + LEAST, inf)))
    return along


def _service_order(jobs: list[Work], told: Told | None) -> list[Work]:
    """Prompts in the order in which the engine has taken, or will take them: in that of arrival, but who has shown a first token
    was before those who have not, though theirs would show. Who hides his tokens is where his arrival puts him."""
    ready = sorted([job for job in jobs if job.first_ns is not None], key=lambda job: (job.first_ns, job.begin_ns))
    others = [job for job in jobs if job.first_ns is None]
    hiding = [job for job in others if _hides(job, told)]
    earliest_ns = min([job.begin_ns for job in hiding], default=0)
    order: list[Work] = []
    for job in ready:
        if hiding and earliest_ns < job.begin_ns:
            ahead = [other for other in hiding if other.begin_ns < job.begin_ns]
            order += ahead
            others = [other for other in others if other not in ahead]
            hiding = [other for other in hiding if other not in ahead]
            earliest_ns = min([other.begin_ns for other in hiding], default=0)
        order.append(job)
    return order + others


def _may_be_done(job: Work, t_ns: int, told: Told | None) -> bool:
    """Whether its prompt may have been done by then: of one that hides its tokens nobody but the engine can say that it was not."""
    return job.end_ns is not None or _hides(job, told) if job.first_ns is None else job.first_ns <= t_ns


def _hides(job: Work, told: Told | None) -> bool:
    return told.hides(job) if told is not None else not job.visible


def _part(x: float, x0: float, x1: float) -> float:
    """How far between the two it lies, 0 to 1."""
    return min((x - x0) / (x1 - x0), 1.0) if x1 > x0 else 0.0
