"""One request's tokens as curves over time: how much of its prompt and of its answer had been computed by when.

Amounts are integers, a millionth of a token. A curve is final up to `frozen_ns`, since the windows up to there have been
divided by it; what is learned later about earlier work counts from there on.
"""

from bisect import bisect_right

MICRO = 1_000_000  # of a token


class Curve:
    """An amount that never falls, linear between its knots, 0 before the first."""

    __slots__ = ("_amounts", "_times")

    def __init__(self, t_ns: int) -> None:
        self._times, self._amounts = [t_ns], [0]

    @property
    def total(self) -> int:
        return self._amounts[-1]

    def grow(self, t0_ns: int, t1_ns: int, amount: int) -> None:
        """Add `amount` evenly over (t0, t1]; what lies before the last knot is moved up to it."""
        last_ns = self._times[-1]
        t0_ns = max(t0_ns, last_ns)
        if amount <= 0:
            return
        if t0_ns > last_ns:
            self._times.append(t0_ns)
            self._amounts.append(self._amounts[-1])
        self._times.append(max(t0_ns, t1_ns))
        self._amounts.append(self._amounts[-1] + amount)

    def lift(self, t0_ns: int, t1_ns: int, amount: int) -> None:
        """Add `amount` evenly over (t0, t1] on top of the knots that lie there already."""
        if amount <= 0:
            return
        if t1_ns <= t0_ns or t0_ns >= self._times[-1]:
            self.grow(t0_ns, t1_ns, amount)
            return
        at_start = self.at(t0_ns)
        first = bisect_right(self._times, t0_ns)
        times = [t0_ns, *self._times[first:]]
        amounts = [at_start, *self._amounts[first:]]
        if times[-1] < t1_ns:
            times.append(t1_ns)
            amounts.append(amounts[-1])
        span = t1_ns - t0_ns
        self._times[first:] = times
        self._amounts[first:] = [a + amount * min(t - t0_ns, span) // span for t, a in zip(times, amounts, strict=True)]

    def at(self, t_ns: int) -> int:
        """The amount by `t_ns`."""
        i = bisect_right(self._times, t_ns)
        if i == 0:
            return 0
        if i == len(self._times):
            return self._amounts[-1]
        t0, t1 = self._times[i - 1], self._times[i]
        a0, a1 = self._amounts[i - 1], self._amounts[i]
        return a0 + (a1 - a0) * (t_ns - t0) // (t1 - t0)

    def between(self, t0_ns: int, t1_ns: int) -> int:
        """The amount in (t0, t1]."""
        return self.at(t1_ns) - self.at(t0_ns)

    def forget(self, t_ns: int) -> None:
        """Drop knots that no window after `t_ns` needs; done now and then, so that a long stream stays small."""
        if len(self._times) > 256:
            keep = max(bisect_right(self._times, t_ns) - 1, 0)
            del self._times[:keep], self._amounts[:keep]


class Work:
    """What is known of one request's computing. `prompt_left` has not been placed in time yet; `ahead` was placed by estimate."""

    __slots__ = ("_last_ns", "ahead", "begin_ns", "choices", "decode", "end_ns", "first_ns", "frozen_ns", "prefill", "prompt",
                 "prompt_left", "seen", "visible")

    def __init__(self, begin_ns: int, *, visible: bool, prompt_tokens: float, choices: int) -> None:
        self.begin_ns, self.visible, self.choices = begin_ns, visible, choices
        self.prefill, self.decode = Curve(begin_ns), Curve(begin_ns)
        self.prompt = self.prompt_left = round(prompt_tokens * MICRO)
        self.seen = 0  # output tokens that frames have shown
        self.ahead = 0
        self.first_ns: int | None = None
        self._last_ns = begin_ns
        self.end_ns: int | None = None
        self.frozen_ns = begin_ns

    def know_prompt(self, tokens: int) -> None:
        """The prompt's tokens that had to be computed, from the engine."""
        placed = self.prompt - self.prompt_left
        self.prompt = tokens * MICRO
        self.prompt_left = max(0, self.prompt - placed)

    def show(self, t_ns: int, tokens: float, prefill_start_ns: int) -> None:
        """Output tokens have become visible at `t_ns`; the first of them says that the prompt is done."""
        amount = round(tokens * MICRO)
        if self.first_ns is None:
            self.first_ns = t_ns
            self.prefill.grow(max(prefill_start_ns, self.frozen_ns), t_ns, self.prompt_left)
            self.prompt_left = 0
            self._last_ns = max(prefill_start_ns, self.begin_ns)
        self.seen += amount
        used = min(self.ahead, amount)
        self.ahead -= used
        self.decode.grow(max(self._last_ns, self.frozen_ns), t_ns, amount - used)
        self._last_ns = t_ns

    def finish(self, t_ns: int, output_tokens: int | None, *, prefill_per_s: float, decode_per_s: float, failed: bool) -> None:
        """It has ended; what the engine says it computed is placed in what is not frozen yet, and where it says nothing, what
        these rates say."""
        self.end_ns = t_ns
        if failed:
            self.prompt_left = 0
        elif self.first_ns is None:  # none of its tokens was seen: it hides them, or it left while its prompt was computed
            start_ns = max(self.begin_ns, self.frozen_ns)
            done_ns = start_ns + self.prefill_ns(prefill_per_s)
            placed = self.prompt_left
            if output_tokens is None and done_ns > t_ns:
                placed = placed * (t_ns - start_ns) // (done_ns - start_ns)
            done_ns = min(t_ns, done_ns)
            self.prefill.grow(start_ns, done_ns, placed)
            self.prompt_left = 0
            if output_tokens is not None:
                self.decode.grow(done_ns, t_ns, output_tokens * MICRO - self.decode.total)
            elif not self.visible:
                self.decode.grow(done_ns, t_ns, round(decode_per_s * self.choices * (t_ns - done_ns) / 1000))
        elif output_tokens is not None:
            self.decode.lift(max(self.frozen_ns, self.first_ns), t_ns, output_tokens * MICRO - self.decode.total)

    def prefill_ns(self, prefill_per_s: float) -> int:
        """How long the rest of the prompt takes at that rate."""
        return round(self.prompt_left / prefill_per_s * 1000)  # micro-tokens over tokens a second, in nanoseconds

    def freeze(self, t0_ns: int, t1_ns: int, guessed_prefill: int, guessed_decode: int) -> None:
        """A window has been divided: its guesses become part of the curves, and what lies before its end is final."""
        start_ns, stop_ns = self.unseen(t0_ns, t1_ns)
        self.prefill.grow(start_ns, stop_ns, guessed_prefill)
        self.decode.grow(start_ns, stop_ns, guessed_decode)
        self.prompt_left -= guessed_prefill
        if self.visible:
            self.ahead += guessed_decode
        self.frozen_ns = max(self.frozen_ns, t1_ns)
        self.prefill.forget(t0_ns)
        self.decode.forget(t0_ns)

    def is_known_until(self, t_ns: int) -> bool:
        """Whether nothing more can be learned about the time up to `t_ns` by waiting a little."""
        return self.end_ns is not None or not self.visible or (self.first_ns is not None and self._last_ns >= t_ns)

    def unseen(self, t0_ns: int, t1_ns: int) -> tuple[int, int]:
        """The part of (t0, t1] of which nothing is known yet: after the last visible token, or the last estimate."""
        start = max(t0_ns, self.begin_ns, self.frozen_ns, self._last_ns if self.first_ns is not None else 0)
        return start, min(t1_ns, self.end_ns if self.end_ns is not None else t1_ns)

    @property
    def shown(self) -> int:
        """Output tokens that have become visible, rounded."""
        return self.seen // MICRO

    @property
    def mean_decode_per_s(self) -> float | None:
        """Its own rate so far, once two tokens have been seen."""
        if self.first_ns is None or self._last_ns <= self.first_ns:
            return None
        return self.seen / (self._last_ns - self.first_ns) * 1000
