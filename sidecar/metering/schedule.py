"""What one engine is thought to have been doing: which prompts it computed, whom it gave tokens, and how many shared each step.

Evidence goes in as it is seen (arrivals, frames, ends); out comes, for any window, how much of each term of the energy model every
request accounts for. With continuous batching all running sequences advance together: who shows his tokens tells how fast those
advance who hide theirs.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from perjoule.sidecar.metering.pace import Pace
from perjoule.sidecar.metering.prefill import Placed, PrefillQueue
from perjoule.sidecar.metering.steps import Moment, StepClock
from perjoule.sidecar.metering.terms import Terms
from perjoule.sidecar.metering.told import Told
from perjoule.sidecar.metering.work import Work
from perjoule.sidecar.ports import Step
from perjoule.sidecar.units import NS_PER_S, nearest

NEVER = Moment()  # of those who are given nothing


@dataclass(slots=True)
class Look:
    """What was computed in a window. Of each request that ran in it, in the order of arrival: what it accounts for, for how many
    nanoseconds it was there, from when on it was given tokens, and how far its answer was at the end; and of all, which prompts, and
    how long anybody was there."""

    works: list[Work]
    amounts: list[Terms]
    ran_ns: list[int]
    decoding_ns: list[int]
    frames: list[float]
    placed: list[Placed]
    busy_ns: int


class Schedule:
    """One engine core: a row of prompts, and a clock of steps."""

    def __init__(self, pace: Pace | None = None) -> None:
        self.pace = pace or Pace()
        self.queue = PrefillQueue()
        self.clock = StepClock()
        self.told = Told()
        self.believes = False  # what is told of steps: then frames say nothing of them
        self.works: dict[Work, None] = {}  # in the order of arrival; who ended stays until `forget`
        self._running, self._busy_since_ns = 0, 0  # of them, those that have not ended; since when there has always been one
        self._showing = 0  # sequences that decode in view
        self._hiding = 0  # requests that run and show nothing
        self._late: Work | None = None  # the one that a window was last found to wait for

    # evidence

    def begin(self, work: Work) -> None:
        """It has arrived, and waits for its prompt to be computed."""
        if not self.works:
            self.clock.rest(work.begin_ns)
        self.works[work] = None
        if not self._running:
            self._busy_since_ns = work.begin_ns
        self._running += 1
        self.told.missing[work] = work.choices
        self.queue.begin(work, shows=work.visible or (self.believes and self.told.says_who))
        self._hiding += not work.visible

    def show(self, work: Work, t_ns: int, count: int) -> None:
        """`count` frames of its output have arrived. Called for every frame of every stream: the shortest way comes first."""
        if work.first_ns is None:
            self._first(work, t_ns)
        else:
            work.position += count / work.choices
            clock = self.clock
            if work.position > clock.count and t_ns > clock.last_ns and not self.believes:
                clock.advance(t_ns, work.position)
        work.frames.append(t_ns)
        if count > 1:
            work.frames.extend([t_ns] * (count - 1))

    def _first(self, work: Work, t_ns: int) -> None:
        """Its prompt is done, and it joins those who get a token in each step."""
        clock = self.clock
        if not self._showing and t_ns > clock.last_ns and not self.believes:
            if self._hiding:
                clock.coast(t_ns, self.pace.step_ns)
            else:
                clock.rest(work.begin_ns)
                clock.advance(t_ns, clock.count + 1)
        work.first_ns = work.before_ns = t_ns
        work.position = clock.count
        self._showing += work.choices
        self.queue.seen(work, t_ns)

    def step(self, step: Step) -> None:
        """The engine has told of a step."""
        told, goes_on = self.told, self.believes and self._busy_since_ns <= self.told.last_ns
        told.take(step, self._busy_since_ns if self._running else step.t_ns)
        self._forget_steps(step.t_ns)
        self.believes = self._is_believed(step.t_ns)
        if not self.believes:
            return
        if step.steps:
            self.clock.tell(step.t_ns, step.steps, goes_on=goes_on)
        done = [work for arrival_ns in sorted(step.first_arrivals_ns) if (work := told.whose(arrival_ns)) is not None]
        told.measure(step, done)
        for work in done:
            if work.first_ns is None and not work.visible and step.t_ns > work.begin_ns:
                work.first_ns = work.before_ns = step.t_ns
                work.is_told = True
                self.queue.seen(work, step.t_ns)

    def end(self, work: Work, t_ns: int, output_tokens: int | None, *, failed: bool, done: bool = True) -> None:
        """It has ended, having been given so many tokens, if the engine said; `done` unless its client left before its answer came."""
        work.end_ns, work.output_tokens = t_ns, 0 if failed or not work.decodes else output_tokens
        self._hiding -= not work.visible
        self._running -= 1
        is_untold = self.believes and self.told.waits_for(work)
        if not is_untold or not output_tokens or failed:
            self.told.missing.pop(work, None)
        if work.first_ns is not None:
            self._showing -= work.choices if work.visible and work.decodes else 0
            return
        if not work.decodes and done:
            work.first_ns = t_ns
            self.queue.seen(work, t_ns)
            return
        self.queue.gone(work)
        if failed:
            work.prompt_left = 0.0
        elif output_tokens is not None:  # each token took a step, and before the first of them the prompt was done
            steps, clock = output_tokens / work.choices, self.clock
            if is_untold:  # what is told of a step may come after the answer: the prompt was done in one of which nothing was told yet
                since_ns = max(self.told.last_ns, t_ns - nearest((steps - 1) * self.pace.step_ns))
            else:
                took_ns = nearest(steps * self.pace.step_ns)
                since_ns = clock.when(clock.at(t_ns) - steps) if self._showing or self.believes else t_ns - took_ns
            work.first_ns = min(max(work.begin_ns, since_ns), t_ns)
            self.queue.per_s.is_at_least(work.prompt_tokens, (t_ns - work.begin_ns) / NS_PER_S)  # it took no longer

    # answers

    def is_known_until(self, t_ns: int) -> bool:
        """Whether waiting a little would tell nothing more of the time up to `t_ns`."""
        if self.believes and self._running and self.told.last_ns < t_ns:
            return False
        late = self._late
        if late is not None and late.begin_ns < t_ns and not late.is_known_until(t_ns):
            return False
        self._late = next((w for w in self.works if w.begin_ns < t_ns and not w.is_known_until(t_ns)), None)
        return self._late is None

    def look(self, t0_ns: int, t1_ns: int, now_ns: int) -> Look:
        """What each request that ran in (t0, t1] accounts for, as far as can be told by what was seen up to now. Charges nobody."""
        here = [w for w in self.works if w.begin_ns < t1_ns and (w.end_ns is None or w.end_ns > t0_ns)]
        if not here:
            return Look([], [], [], [], [], [], 0)
        placed = self._place(t0_ns, t1_ns, now_ns)
        prompts = {part.work: part for part in placed}
        parts = [prompts.get(work) for work in here]
        if not self._showing and not self.believes and any(not work.visible for work in here):
            self.clock.coast(t1_ns, self.pace.step_ns)
        moments: dict[int, Moment] = {}
        ran_ns, decoding_ns, begins, ends = [], [], [], []
        busy_ns, upto_ns = 0, t0_ns
        for i, work in enumerate(here):
            begin_ns, until_ns = max(work.begin_ns, t0_ns), work.ran_until(t1_ns)
            since_ns = _decodes_from(work, parts[i], t0_ns, t1_ns)
            ran_ns.append(until_ns - begin_ns)
            decoding_ns.append(since_ns)
            if until_ns > upto_ns:
                busy_ns, upto_ns = busy_ns + until_ns - max(begin_ns, upto_ns), until_ns
            is_given = since_ns < until_ns
            begins.append(_moment(moments, since_ns, work.choices) if is_given else NEVER)
            ends.append(_moment(moments, until_ns, -work.choices) if is_given else NEVER)
        self.clock.share(moments)
        amounts, frames = [], []
        for i, work in enumerate(here):
            part, since, until = parts[i], begins[i], ends[i]
            prefill, steps, by, tokens = part.tokens if part else 0.0, 0.0, 0.0, 0.0
            if since is not NEVER:
                steps = work.choices * (until.share - since.share)
                by, tokens = self._given(work, since.count, until.count, work.ran_until(t1_ns), t1_ns)
            amounts.append(Terms(prefill, steps, tokens, tokens * work.context(tokens)))
            frames.append(by)
        return Look(here, amounts, ran_ns, decoding_ns, frames, placed, busy_ns)

    def glance(self, work: Work, t0_ns: int, t1_ns: int) -> Terms:
        """What one request accounts for in (t0, t1], quickly: its steps are shared with those who are here now."""
        part = self._prompt_part(work, t0_ns, t1_ns) if work.prompt_left > 0 else None
        since_ns, until_ns = _decodes_from(work, part, t0_ns, t1_ns), work.ran_until(t1_ns)
        prefill = part.tokens if part else 0.0
        if since_ns >= until_ns:
            return Terms(prefill, 0.0, 0.0, 0.0)
        clock = self.clock
        if not self._showing and not self.believes:
            clock.coast(until_ns, self.pace.step_ns)
        since, until = clock.at(since_ns), clock.at(until_ns)
        steps = work.choices * (until - since)
        _, tokens = self._given(work, since, until, until_ns, t1_ns)
        return Terms(prefill, steps / max(self._showing + self._hiding, work.choices), tokens, tokens * work.context(tokens))

    def commit(self, look: Look, t0_ns: int, t1_ns: int) -> None:
        """The window has been charged by this look: what it held will not be charged again."""
        for work, terms, by in zip(look.works, look.amounts, look.frames, strict=True):
            if by or terms.decode:
                work.charge(t1_ns, by, terms.decode)
        for part in look.placed:
            if part.done_ns is not None:
                part.work.decodes_from_ns = part.done_ns
        self.queue.commit(look.placed, t0_ns, t1_ns)
        if look.works:
            self.clock.pin(t1_ns)
        self.clock.forget(t0_ns)
        self.told.forget(t0_ns)

    def forget(self, settled: Iterable[Work]) -> None:
        """These have been settled."""
        for work in settled:
            del self.works[work]
            if work in self.queue.jobs:
                del self.queue.jobs[work]
            if work in self.told.missing:
                del self.told.missing[work]
        self._forget_steps(self.clock.last_ns)

    # inside

    def _forget_steps(self, t_ns: int) -> None:
        """Nobody who is here needs those before he came; done by the way, also where no window is ever divided."""
        oldest = next(iter(self.works), None)
        since_ns = t_ns if oldest is None else oldest.begin_ns
        self.clock.forget(since_ns)
        self.told.forget(since_ns)

    def _is_believed(self, t_ns: int) -> bool:
        return self.told.is_believed(t_ns, self._busy_since_ns)

    def _place(self, t0_ns: int, t1_ns: int, now_ns: int) -> list[Placed]:
        """What was computed of each prompt."""
        self.believes = self.believes and self._is_believed(now_ns)
        told = self.told if self.believes else None
        return self.queue.place(t0_ns, t1_ns, now_ns, (told or self.clock).ends_after(t0_ns), told)

    def _prompt_part(self, work: Work, t0_ns: int, t1_ns: int) -> Placed | None:
        """What was computed of its prompt in (t0, t1]. After its first token that was all of it, whenever the others had their turn; who
        hides his tokens is asked about when his answer is there, and thousands may have been before him in the window."""
        if work.first_ns is not None and work.first_ns <= t1_ns:
            return Placed(work, work.prompt_left, work.first_ns)
        if not work.visible and (not self.believes or self.told.hides(work)):
            done_ns = max(work.begin_ns, t0_ns) + nearest(work.prompt_left / self.queue.per_s.value * NS_PER_S)
            return Placed(work, work.prompt_left, done_ns) if done_ns <= t1_ns else None
        return next((part for part in self._place(t0_ns, t1_ns, t1_ns) if part.work is work), None)

    def _given(self, work: Work, since: float, until: float, until_ns: int, t1_ns: int) -> tuple[float, float]:
        """How far its answer was at `t1_ns` in frames, and the output tokens that no window has been charged with: it had steps
        `since` to `until`, the last of them at `until_ns`."""
        if work.frames or work.base:
            by = work.frames_by(t1_ns, self.clock)
            return by, work.owed_tokens(by, self.pace.tokens_per_frame.value)
        return 0.0, self._hidden_tokens(work, since, until, until_ns)

    def _hidden_tokens(self, work: Work, since: float, until: float, until_ns: int) -> float:
        """Output tokens of a request that shows none: one a step; at its end, what the engine says, spread over its steps."""
        end_ns, fresh = work.end_ns, until - since
        if end_ns is None or work.output_tokens is None:
            return work.choices * fresh
        left, whole = max(0.0, work.output_tokens - work.charged_tokens), (until if end_ns == until_ns else self.clock.at(end_ns)) - since
        return left * fresh / whole if whole > 0 else left


def _decodes_from(work: Work, part: Placed | None, t0_ns: int, t1_ns: int) -> int:
    """From when in (t0, t1] it was given tokens; t1 if it was not."""
    since_ns = work.first_ns
    if not (work.frames or work.base or work.is_told):
        gets_tokens = bool(work.output_tokens) or (work.output_tokens is None and not work.visible)
        since_ns = work.decodes_from_ns if gets_tokens else None
        if gets_tokens and since_ns is None:
            since_ns = part.done_ns if part is not None else work.begin_ns if work.prompt_left <= 0 else None
    return t1_ns if since_ns is None else t0_ns if since_ns < t0_ns else since_ns


def _moment(moments: dict[int, Moment], t_ns: int, sequences: int) -> Moment:
    """That moment, from which on so many more decode."""
    moment = moments.get(t_ns)
    if moment is None:
        moment = moments[t_ns] = Moment()
    moment.change += sequences
    return moment
