"""Readings that have come and were not looked at yet: as few as say all that a look at the counter itself would have said.

A change of the counter is dated by the last look that did not see it and the first that did. So of the looks between two changes the
last is kept, and of those that saw a change the first.
"""

from collections import deque

from perjoule.sidecar.ports import Reading

MOST = 16  # who looks too seldom loses the oldest: what was drawn is the same, the dates are coarser


class Told:
    """In the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Reading, ...]] = deque()
        self._newest: tuple[Reading, ...] | None = None
        self._changed = False  # whether the newest was the first to see a change
        self.latest: tuple[Reading, ...] | None = None  # of those that were taken

    def put(self, looks: tuple[Reading, ...]) -> None:
        """One has come."""
        changed = self._newest is None or any(one.energy_uj != other.energy_uj for one, other in zip(self._newest, looks, strict=True))
        if self._waiting and not changed and not self._changed:
            self._waiting.pop()
        self._waiting.append(looks)
        self._newest, self._changed = looks, changed
        if len(self._waiting) > MOST:
            self._waiting.popleft()

    def take(self) -> tuple[Reading, ...] | None:
        """The oldest that waits, else the latest again; None if none ever came."""
        if self._waiting:
            self.latest = self._waiting.popleft()
        return self.latest

    def __bool__(self) -> bool:
        return bool(self._waiting)
