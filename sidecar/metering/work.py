"""One request's computing as the engine's answer shows it: a prompt to be computed, then tokens, one in each step or hidden.

Some requests are all prompt: an embedding, and an image, whose prompt is the latent tokens of all its steps. That they are done is seen
when they end.

Amounts are counted up: what a window is charged with is what was computed by its end less what earlier windows were charged with,
so evidence that comes late counts in the next window, and what was guessed too high is not charged again.
"""

from bisect import bisect_right

from perjoule.sidecar.metering.steps import StepClock


class Work:
    """What is known of one request. Tokens are floats, since a step under way is a part of one."""

    __slots__ = ("base", "before_ns", "begin_ns", "cached", "charged_frames", "charged_tokens", "choices", "decodes", "decodes_from_ns",
                 "end_ns", "first_ns", "frames", "is_measured", "is_told", "output_tokens", "position", "prompt_left", "prompt_tokens",
                 "visible")

    def __init__(self, begin_ns: int, *, visible: bool, prompt_tokens: float, choices: int, decodes: bool = True) -> None:
        self.begin_ns, self.choices, self.decodes = begin_ns, choices, decodes
        self.visible = visible or not decodes  # whether it shows when its prompt is done
        self.prompt_tokens = self.prompt_left = prompt_tokens  # to be computed; not charged yet
        self.cached = 0.0
        self.is_measured = False  # somebody has counted the prompt's tokens; before that they are estimated
        self.first_ns: int | None = None  # when its first token came; of hidden tokens, when it must have
        self.is_told = False  # the engine itself said when that was
        self.decodes_from_ns: int | None = None  # of hidden tokens: when the prompt is thought to have been done
        self.end_ns: int | None = None
        self.output_tokens: int | None = None  # as the engine says at the end
        self.position = 0.0  # on the engine's step clock
        self.frames: list[int] = []  # arrivals after the last window that was charged
        self.base, self.before_ns = 0, begin_ns  # how many came before them, and when the last of these did
        self.charged_frames = self.charged_tokens = 0.0

    def know_prompt(self, tokens: float, cached: float) -> None:
        """The prompt's tokens, and those of them that were cached and cost nothing, from the engine."""
        charged, self.is_measured = self.prompt_tokens - self.prompt_left, True
        self.prompt_tokens, self.cached = max(0.0, tokens - cached), cached
        self.prompt_left = max(0.0, self.prompt_tokens - charged)

    @property
    def shown(self) -> int:
        """Frames with output so far."""
        return self.base + len(self.frames)

    @property
    def last_ns(self) -> int:
        """When the last frame came; when it began, before any did."""
        return self.frames[-1] if self.frames else self.before_ns

    @property
    def all_prompt_yet(self) -> bool:
        """Whether what was computed for it was prompt, as far as can be told."""
        return not self.decodes or (self.first_ns is None and self.visible)

    def ran_until(self, t_ns: int) -> int:
        """When it ended, if that was before `t_ns`."""
        end_ns = self.end_ns
        return t_ns if end_ns is None or end_ns > t_ns else end_ns

    def is_known_until(self, t_ns: int) -> bool:
        """Whether waiting a little would tell nothing more of the time up to `t_ns`."""
        if self.end_ns is not None or not self.visible or not self.decodes:
            return True
        return self.first_ns is not None and self.last_ns >= t_ns

    def frames_by(self, t_ns: int, clock: StepClock) -> float:
        """Frames computed by `t_ns`: those that came, a part of the one on its way, and a step's worth if none has come yet."""
        frames, base = self.frames, self.base
        i = bisect_right(frames, t_ns)
        if i < len(frames):
            before_ns = frames[i - 1] if i else self.before_ns
            span_ns = frames[i] - before_ns
            return base + i + ((t_ns - before_ns) / span_ns if span_ns > 0 and t_ns > before_ns else 0.0)
        if self.first_ns is None or self.end_ns is not None:
            return base + i
        return base + i + (clock.at(t_ns) - clock.at(self.last_ns)) * self.choices

    def owed_tokens(self, frames: float, tokens_per_frame: float) -> float:
        """Output tokens by then that no window has been charged with, for so many frames by then."""
        fresh = frames - self.charged_frames
        if self.output_tokens is None or self.end_ns is None:
            return max(0.0, fresh * tokens_per_frame)
        left, whole = self.output_tokens - self.charged_tokens, self.shown - self.charged_frames
        if left <= 0:
            return 0.0
        return left * min(max(fresh, 0.0) / whole, 1.0) if whole > 0 else left

    def context(self, tokens: float) -> float:
        """What each of the next so many output tokens looks at, on average: the prompt, and the answer before it."""
        return self.prompt_tokens + self.cached + (self.charged_tokens + tokens / 2) / self.choices

    def charge(self, t_ns: int, frames: float, tokens: float) -> None:
        """A window up to `t_ns` has been charged with these tokens, and with all frames up to `frames`."""
        self.charged_frames = max(self.charged_frames, frames)
        self.charged_tokens += tokens
        if self.frames and self.frames[0] <= t_ns:
            i = bisect_right(self.frames, t_ns)
            self.before_ns = self.frames[i - 1]
            self.base += i
            del self.frames[:i]
