"""Requests made before they are due, and no more of them than fit into a bound."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

from perjoule.bench.load.job import Task

MOST, MOST_BYTES = 256, 64 << 20  # of requests that wait to be sent
BATCH = 16  # asked for at a time


class Ahead:
    """Makes the requests of tasks in the order in which they are expected; `came` is called for one that was due before it was made."""

    def __init__(self, make: Callable[[Sequence[Task]], Awaitable[Sequence[bytes]]], tasks: Iterable[Task],
                 came: Callable[[Task, bytes], None]) -> None:
        self._make, self._came = make, came
        self._wanted = deque(tasks)
        self._urgent: deque[Task] = deque()
        self._ready: dict[int, bytes] = {}
        self._ready_bytes = 0
        self._asked: set[int] = set()  # were due, and are made as soon as can be
        self._wake = asyncio.Event()

    def soon(self, task: Task) -> None:
        """This one is needed next, before those that were expected: the turn before it has been sent."""
        self._urgent.append(task)
        self._wake.set()

    def take(self, task: Task) -> bytes | None:
        """The request; None if it is not made yet: `came` has it then, as soon as it is."""
        request = self._ready.pop(task.row.index, None)
        if request is None:
            self._asked.add(task.row.index)
        else:
            self._ready_bytes -= len(request)
        self._wake.set()
        return request

    async def fill(self) -> None:
        """Make requests until so many are ready as may be. Raises what making them does."""
        while batch := self._batch():
            for task, request in zip(batch, await self._make(batch), strict=True):
                if task.row.index in self._asked:
                    self._asked.discard(task.row.index)
                    self._came(task, request)
                else:
                    self._ready[task.row.index] = request
                    self._ready_bytes += len(request)

    async def keep(self) -> None:
        """The same, for as long as it takes."""
        while True:
            self._wake.clear()
            await self.fill()
            await self._wake.wait()

    def _batch(self) -> list[Task]:
        batch: list[Task] = []
        while len(batch) < BATCH and self._urgent:
            batch.append(self._urgent.popleft())
        while len(batch) < BATCH and self._wanted and (
                self._asked or (len(self._ready) + len(batch) < MOST and self._ready_bytes < MOST_BYTES)):
            batch.append(self._wanted.popleft())
        return batch
