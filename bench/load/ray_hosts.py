"""Client processes on other machines, through Ray: the same workers, started by an actor on each host, and each host's clock measured.

    ray.init(address="auto")
    async for sample in drive(…, processes=2 * len(hosts()), link=on(hosts())): …

Every host needs this version of perjoule. Start and stop are told as on one machine; only the instant of the start is worded in the
host's own monotonic clock, which is as exact as half the shortest of some round trips (`Drive.clocks` has both)."""

import asyncio
import contextlib
import importlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from perjoule.bench.child import FailedError
from perjoule.bench.load.driver import Link, local

ROUND_TRIPS = 50
TAKE_S = 0.05  # a host hands over what its client has said so often


class Host:
    """A client process on the host where this actor lives."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._lines: list[bytes] = []
        self._link: Link | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self, number: int) -> None:
        self._link = await self._stack.enter_async_context(local(number))
        self._reading = asyncio.create_task(self._read(self._link))

    async def clock(self) -> int:
        return time.monotonic_ns()

    async def tell(self, data: bytes) -> None:
        assert self._link is not None
        await self._link.tell(data)

    async def take(self) -> tuple[list[bytes], bool]:
        """The lines since the last time, and whether they were the last. Raises FailedError as the client's process does."""
        assert self._reading is not None
        await asyncio.wait((self._reading,), timeout=TAKE_S)
        over, lines = self._reading.done(), self._lines
        self._lines = []
        if over and not lines:
            await self._reading
        return lines, over

    async def close(self) -> None:
        await self._stack.aclose()

    async def _read(self, link: Link) -> None:
        async for line in link.lines():
            self._lines.append(line)


class _Remote:
    """The link to one."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self.clock_ns = self.clock_error_ns = 0

    async def measure_clock(self) -> None:
        """How far its clock is ahead of ours, from the shortest round trip."""
        best_ns = None
        for _ in range(ROUND_TRIPS):
            sent_ns = time.monotonic_ns()
            there_ns = await self._actor.clock.remote()
            took_ns = time.monotonic_ns() - sent_ns
            if best_ns is None or took_ns < best_ns:
                best_ns = took_ns
                self.clock_ns, self.clock_error_ns = there_ns - sent_ns - took_ns // 2, -(-took_ns // 2)

    async def tell(self, data: bytes) -> None:
        await self._actor.tell.remote(data)

    async def lines(self) -> AsyncIterator[bytes]:
        over = False
        while not over:
            lines, over = await self._actor.take.remote()
            for line in lines:
                yield line


def hosts() -> list[str]:
    """The ids of the nodes of the cluster that Ray is connected to."""
    return sorted(node["NodeID"] for node in _ray().nodes() if node["Alive"])


def on(nodes: Sequence[str]) -> Callable[[int], AbstractAsyncContextManager[Link]]:
    """For `drive(link=…)`: client processes on these nodes, by turns. Raises FailedError where Ray cannot start one."""
    @asynccontextmanager
    async def link(number: int) -> AsyncIterator[Link]:
        ray = _ray()
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        there = strategies.NodeAffinitySchedulingStrategy(nodes[number % len(nodes)], soft=False)
        actor = ray.remote(Host).options(num_cpus=0, scheduling_strategy=there).remote()
        try:
            await actor.start.remote(number)
            remote = _Remote(actor)
            await remote.measure_clock()
            yield remote
        except ray.exceptions.RayError as error:
            raise FailedError(f"client {number}, on {nodes[number % len(nodes)]}: {error}") from None
        finally:
            with contextlib.suppress(ray.exceptions.RayError):
                await actor.close.remote()
            ray.kill(actor)
    return link


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise FailedError(f"several hosts: got no Ray ({error}), expected it: pip install ray") from None
