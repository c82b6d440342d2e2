"""What another host's clock shows, in ours: each answer says between which two moments of ours it was made.

So the offset lies between two bounds, and between the nearest of the last minute's; their middle is taken, and half of what is between
them is how far off it may be. Where both clocks are the same one, the offset is zero and nothing is off.
"""

from collections import deque

KEPT = 60  # one a second; clocks drift apart by some microseconds meanwhile


class Clock:
    """`offset_ns` is theirs less ours, `uncertainty_ns` how far off that may be at most; None before the first answer."""

    def __init__(self, *, is_shared: bool) -> None:
        """`is_shared`: both say that they run on the same kernel, which is believed as long as no answer speaks against it."""
        self._is_shared = is_shared
        self._bounds: deque[tuple[int, int]] = deque(maxlen=KEPT)
        self.offset_ns, self.answers = 0, 0
        self.uncertainty_ns: int | None = None

    def answered(self, sent_ns: int, theirs_ns: int, received_ns: int) -> None:
        """They said `theirs_ns` between these two moments of ours."""
        self._bounds.append((theirs_ns - received_ns, theirs_ns - sent_ns))
        least, most = max(low for low, _ in self._bounds), min(high for _, high in self._bounds)
        if least > most:  # they have drifted, or one was set
            self._bounds = deque([self._bounds[-1]], KEPT)
            least, most = self._bounds[0]
        self.answers += 1
        self._is_shared = self._is_shared and least <= 0 <= most
        self.offset_ns, self.uncertainty_ns = (0, 0) if self._is_shared else ((least + most) // 2, (most - least + 1) // 2)

    def ours(self, theirs_ns: int) -> int:
        """A moment of theirs."""
        return theirs_ns - self.offset_ns
