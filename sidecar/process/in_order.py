"""Events of several processes given on in the order of their times: each is held for a moment, in case an earlier one is on its way."""

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Any


class InOrder:
    """A queue by time. One that comes too late counts at the time of the last that was given on: time never runs back."""

    __slots__ = ("_events", "_latest_ns", "_places")

    def __init__(self) -> None:
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._places = count()  # events of one time stay as they came
        self._latest_ns = 0

    def put(self, t_ns: int, event: Callable[..., None], *of: Any) -> None:
        """Something happened at `t_ns`: `event(t_ns, *of)` is due then."""
        heappush(self._events, (t_ns, next(self._places), event, of))

    def __len__(self) -> int:
        return len(self._events)

    def due(self, t_ns: int) -> Iterator[tuple[Callable[..., None], int, tuple[Any, ...]]]:
        """Take out all that happened by `t_ns`: the event, the time at which it counts, and what it is of."""
        events = self._events
        while events and events[0][0] <= t_ns:
            at_ns, _, event, of = heappop(events)
            self._latest_ns = max(self._latest_ns, at_ns)
            yield event, self._latest_ns, of
