"""What the engine itself has told of its steps: whose prompts are done, how far the row of prompts is, and for how long it is believed.

A step that was told outranks all that was inferred from frames. When no more are told while somebody runs, after `LAPSE_NS` the
inference goes on alone; the next step that is told is believed again.
"""

from bisect import bisect_right
from collections.abc import Sequence

from perjoule.sidecar.metering.work import Work
from perjoule.sidecar.ports import Step
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

LAPSE_NS = 2 * NS_PER_S  # a step of 8192 prompt tokens takes 200 ms, one of a busy CPU a second
KEEP = 0.9  # of the usual time between a request's arrival here and at the engine, at each new one
JITTER_NS = 100 * NS_PER_MS  # that time is not always the same: who is so near to it may be meant, and the first of them is
SAME_NS = 2 * NS_PER_MS  # the engine's clock of arrivals is the wall's, which is set now and then
PLAUSIBLE = 3.0  # times as long as was thought, or as short: more is another's prompt
FASTEST = 0.01  # prompt tokens a nanosecond: ten million a second
EVEN = 1e-9  # prompt tokens a nanosecond that are thought to be computed where none were told: next to nothing


class Told:
    """The evidence of one engine core."""

    __slots__ = ("_heights", "_lag_ns", "_ranks", "_rate", "_times", "counts_prompts", "missing", "says_who")

    def __init__(self) -> None:
        self.missing: dict[Work, int] = {}  # of whom the engine has not said that the prompt is done, and of how many choices
        self.says_who = False  # it says whose prompts are done
        self.counts_prompts = False  # it says of each step how many prompt tokens were computed
        self._ranks: set[int] = set()
        self._times: list[int] = []  # from the first step on, when steps began and ended
        self._heights: list[float] = []  # and how many prompt tokens had been computed by then
        self._rate = 0.0  # of them a nanosecond, in steps that compute any
        self._lag_ns = 0.0

    def take(self, step: Step, busy_since_ns: int) -> None:
        """A step has been told; the very first began, if it does not say when, as soon as there was anybody. If others were not told,
        prompts may have been done in them of which nobody will be told. One process of several may have outputs to tell of, and leave
        the step to another."""
        self.says_who = self.says_who or bool(step.first_arrivals_ns)
        if not step.steps:
            return
        if step.steps > 1:
            self.missing.clear()
        began_ns = step.t_ns - (step.took_ns or 0)
        if not self._ranks:
            first_ns = began_ns if step.took_ns else min(busy_since_ns, step.t_ns)
            self._times, self._heights = [first_ns], [0.0]
        self._ranks.add(step.rank)
        self.counts_prompts = step.prefill_tokens is not None
        tokens, before_ns = step.prefill_tokens or 0, self._times[-1]
        height, since_ns = self._heights[-1] + tokens, step.t_ns - before_ns
        if since_ns > 0:
            if tokens:
                rate = min(tokens / min(since_ns, step.took_ns or since_ns), FASTEST)
                self._rate = KEEP * self._rate + (1 - KEEP) * rate if self._rate else rate
            if before_ns < began_ns < step.t_ns:
                self._times.append(began_ns)
                self._heights.append(self._heights[-1])
            self._times.append(step.t_ns)
            self._heights.append(height)
        else:
            self._heights[-1] = height

    @property
    def last_ns(self) -> int:
        """When the last step ended, once there was one."""
        return self._times[-1] if self._times else 0

    def is_believed(self, t_ns: int, busy_since_ns: int) -> bool:
        """Whether steps are still being told at `t_ns`, if somebody has run since then. Two cores in one pool tell of two clocks."""
        return len(self._ranks) == 1 and t_ns - max(self.last_ns, busy_since_ns) <= LAPSE_NS

    def whose(self, arrival_ns: int) -> Work | None:
        """Whose prompt is done, by when it arrived at the engine: who has been on the way as long as is usual; of several the first."""
        best, nearest_ns = None, float("inf")
        for work in self.missing:
            if work.begin_ns > arrival_ns + SAME_NS:
                break
            off_ns = abs(arrival_ns - work.begin_ns - self._lag_ns)
            if off_ns < nearest_ns:
                best, nearest_ns = work, off_ns
            if off_ns <= JITTER_NS:
                best = work
                break
        if best is not None:
            self._lag_ns = KEEP * self._lag_ns + (1 - KEEP) * max(arrival_ns - best.begin_ns, 0)
            self.missing[best] -= 1
            if not self.missing[best]:
                del self.missing[best]
        return best

    def measure(self, step: Step, done: Sequence[Work]) -> None:
        """How long the prompts are that were done in a step, if all of them are known and what is told can be true of them."""
        guessed = [work for work in done if not work.is_measured]
        thought = sum((work.prompt_tokens for work in guessed), 0.0)
        if step.prompts_tokens is None or len(done) != len(step.first_arrivals_ns) or not thought:
            return
        known = sum((work.prompt_tokens + work.cached for work in done if work.is_measured), 0.0)
        scale = (step.prompts_tokens - known) / thought
        if 1 / PLAUSIBLE <= scale <= PLAUSIBLE:
            cached = min(step.cached_tokens / step.prompts_tokens, 1.0)
            for work in guessed:
                tokens = scale * work.prompt_tokens
                work.know_prompt(tokens, tokens * cached)

    def hides(self, work: Work) -> bool:
        """Whether nobody will say when its prompt is done."""
        return not work.visible and not self.waits_for(work)

    def waits_for(self, work: Work) -> bool:
        """Whether the engine is yet to say that the prompt of one that hides its tokens is done."""
        return not work.visible and self.says_who and work in self.missing

    def ends_after(self, t_ns: int) -> list[int]:
        """When the steps after `t_ns` ended, or one began after a pause."""
        return self._times[bisect_right(self._times, t_ns):]

    def computed(self, t0_ns: int, t1_ns: int) -> float:
        """Prompt tokens computed between two moments, after the last step as many as is usual while any are, and a trace for the time
        itself: it always rises."""
        return self._height(t1_ns) - self._height(t0_ns) + EVEN * (t1_ns - t0_ns)

    def forget(self, t_ns: int) -> None:
        """Nothing before `t_ns` will be asked for; done now and then."""
        if len(self._times) > 4096:
            keep = max(bisect_right(self._times, t_ns) - 1, 0)
            del self._times[:keep], self._heights[:keep]

    def _height(self, t_ns: int) -> float:
        i = bisect_right(self._times, t_ns)
        if i == 0:
            return self._heights[0] if self._heights else 0.0
        if i == len(self._times):
            return self._heights[-1] + self._rate * (t_ns - self._times[-1])
        t0_ns, t1_ns = self._times[i - 1], self._times[i]
        return self._heights[i - 1] + (self._heights[i] - self._heights[i - 1]) * (t_ns - t0_ns) / (t1_ns - t0_ns)
