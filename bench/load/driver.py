"""Drives a schedule from several client processes, all from one instant on, and yields each sample as its request ends."""

import asyncio
import contextlib
import os
import pickle
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Protocol

import orjson

from perjoule.bench.child import FailedError
from perjoule.bench.load.job import LENGTH_BYTES, Job, Prompter, Task
from perjoule.bench.load.sample import Sample
from perjoule.bench.load.schedule import Plan, Schedule, share
from perjoule.bench.workloads.workload import Workload
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

# what a process spends, and how much of a core it is to spend at most, so that it is there when something is due (docs/load.md)
REQUEST_S, CHUNK_S, CORE_SHARE = 100e-6, 20e-6, 0.25
TOKENS, TOKENS_PER_S = 200, 50  # of an answer, and of a stream, where nobody says
LEAD_NS = 200 * NS_PER_MS  # from when all are ready until the start
LINE_LIMIT = 1 << 26  # bytes of a sample
QUEUED = 1000  # samples that nobody has taken yet


class Link(Protocol):
    """A client process, wherever it runs; `clock_ns` is how far its monotonic clock is ahead of ours, `clock_error_ns` how far that may be
    off."""

    clock_ns: int
    clock_error_ns: int

    async def tell(self, data: bytes) -> None: ...
    def lines(self) -> AsyncIterator[bytes]: ...


class _Process:
    """One on this machine."""

    clock_ns = clock_error_ns = 0

    def __init__(self, process: asyncio.subprocess.Process, last_words: Callable[[], str]) -> None:
        self._process, self._last_words = process, last_words

    async def tell(self, data: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):  # it has ended (uvloop: RuntimeError), which `lines` tells
            self._process.stdin.write(data)
            await self._process.stdin.drain()

    async def lines(self) -> AsyncIterator[bytes]:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            yield line
        if await self._process.wait() != 0:
            raise FailedError(f"a client process ended: {self._last_words()}")


@asynccontextmanager
async def local(number: int) -> AsyncIterator[Link]:
    """A client process on this machine."""
    with tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "perjoule.bench.load.worker", stdin=PIPE, stdout=PIPE,
                                                       stderr=said, limit=LINE_LIMIT)

        def last_words() -> str:
            said.seek(0)
            return said.read().decode(errors="replace")[-2000:].strip()

        try:
            yield _Process(process, last_words)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.communicate()  # what nobody has read; its pipes are closed with it


@dataclass
class Drive:
    """A run that goes through a schedule: `async for sample in drive`. Raises FailedError where a client process fails.

    `skip` are indices that are done already: a run that broke off goes on at the schedule's time of what comes next, or at `begin_ns`.
    With `stop()` no more is sent, what is in flight is yielded as unfinished, and the iteration ends. Times of samples are since
    `start_ns`, which is `start_unix_ns` on the wall; both are 0 before the start."""

    schedule: Schedule
    workload: Workload
    url: str
    prompter: Prompter
    run_id: str
    processes: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 600.0
    ca_file: str | None = None
    skip: Collection[int] = frozenset()
    begin_ns: int | None = None
    link: Callable[[int], AbstractAsyncContextManager[Link]] = local
    start_ns: int = field(init=False, default=0)
    start_unix_ns: int = field(init=False, default=0)
    clocks: list[tuple[int, int]] = field(init=False, default_factory=list)  # of each client: how far ahead, and how far that may be off
    _lags: dict[int, int] = field(init=False, default_factory=lambda: defaultdict(int))
    _in_flight: dict[int, int] = field(init=False, default_factory=dict)
    _stopped: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        if self.processes is None:
            self.processes = processes_for(self.schedule, self.workload)
        elif self.processes < 1:
            raise ValueError(f"processes: got {self.processes}, expected 1 or more")
        if self.schedule.plan.concurrency is not None:
            self.processes = min(self.processes, self.schedule.plan.concurrency)

    def stop(self) -> None:
        """Break off."""
        self._stopped.set()

    def take_loop_lags(self) -> list[int]:
        """How late each client's event loop was at most since the last look, in ns."""
        lags = [self._lags[client] for client in range(self.processes or 0)]
        self._lags.clear()
        return lags

    @property
    def in_flight(self) -> int:
        """Requests under way, as last told."""
        return sum(self._in_flight.values())

    async def __aiter__(self) -> AsyncIterator[Sample]:
        jobs = self._jobs()
        samples: asyncio.Queue[Sample | None] = asyncio.Queue(QUEUED)
        async with AsyncExitStack() as stack:
            links = [await stack.enter_async_context(self.link(number)) for number in range(len(jobs))]
            lines = [link.lines() for link in links]
            self.clocks = [(link.clock_ns, link.clock_error_ns) for link in links]
            for link, job in zip(links, jobs, strict=True):
                data = pickle.dumps(job)
                await link.tell(len(data).to_bytes(LENGTH_BYTES, "big") + data)
            for line in lines:
                _said(await anext(line, b'{"failed":"a client process ended before it was ready"}'))
            begin_ns, now_ns = jobs[0].begin_ns, time.monotonic_ns()
            self.start_ns = now_ns + LEAD_NS - begin_ns
            self.start_unix_ns = time.time_ns() - (time.monotonic_ns() - self.start_ns)
            for link in links:
                await link.tell(b"start %d\n" % (self.start_ns + begin_ns + link.clock_ns))
            reading = asyncio.gather(*(self._read(number, line, samples) for number, line in enumerate(lines)))
            reading.add_done_callback(lambda _: None if samples.full() else samples.put_nowait(None))  # wakes who waits for one more
            stopping = asyncio.create_task(self._stop(links))
            try:
                while not (reading.done() and samples.empty()):
                    if (sample := await samples.get()) is not None:
                        yield sample
                await reading
            finally:
                stopping.cancel()
                reading.cancel()
                await asyncio.gather(stopping, reading, return_exceptions=True)

    async def _read(self, number: int, lines: AsyncIterator[bytes], samples: "asyncio.Queue[Sample | None]") -> None:
        async for line in lines:
            said = _said(line)
            if (sample := said.get("sample")) is not None:
                await samples.put(Sample(**sample))
            elif "lag" in said:
                self._lags[number] = max(self._lags[number], said["lag"])
                self._in_flight[number] = said["in_flight"]
        self._in_flight.pop(number, None)

    async def _stop(self, links: list[Link]) -> None:
        await self._stopped.wait()
        for link in links:
            await link.tell(b"stop\n")

    def _jobs(self) -> list[Job]:
        done, parts = frozenset(self.skip), self.processes or 1
        rows = [row for row in self.schedule.rows if row.index not in done]
        times = [row.intended_ns for row in rows if row.intended_ns is not None]
        begin_ns = self.begin_ns if self.begin_ns is not None else min(times) if times and done else 0
        plan = self.schedule.plan
        places = _places(plan)
        until_ns = round(plan.duration_s * NS_PER_S) if plan.mode == "closed" and plan.duration_s is not None else None
        return [Job(self.url, self.run_id, number, [Task(row, self.workload.turns[row.turn]) for row in share(rows, number, parts)],
                    self.prompter, tuple(places[number::parts]), self.headers, self.timeout_s, self.ca_file, begin_ns, until_ns)
                for number in range(parts)]


def drive(schedule: Schedule, workload: Workload, url: str, prompter: Prompter, run_id: str, **more: Any) -> Drive:
    """A run, ready to be iterated; what else it takes is in `Drive`."""
    return Drive(schedule, workload, url, prompter, run_id, **more)


def processes_for(schedule: Schedule, workload: Workload) -> int:
    """How many client processes a schedule gets, where nobody says: by what it will take them, and a core stays free if it can."""
    plan, heads = schedule.plan, [row.intended_ns for row in schedule.rows if row.intended_ns is not None]
    told = [turn.output_tokens for turn in workload.turns if turn.output_tokens is not None]
    tokens = sum(told) / len(told) if told else TOKENS
    if plan.concurrency is not None:
        busy = plan.concurrency * TOKENS_PER_S * (CHUNK_S + REQUEST_S / max(tokens, 1))
    else:
        rate = max(plan.request_rate or 0, plan.request_rate_end or 0) or len(schedule.rows) * NS_PER_S / max(heads[-1], NS_PER_S)
        busy = rate * (REQUEST_S + CHUNK_S * tokens)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(ceil(busy / CORE_SHARE), cores - 1))


def _places(plan: Plan) -> list[int]:
    """When each place of a closed loop opens; none for other loops."""
    count = plan.concurrency or 0
    return [round(number * plan.ramp_s * NS_PER_S / count) for number in range(count)]


def _said(line: bytes) -> dict[str, Any]:
    said: dict[str, Any] = orjson.loads(line)
    if "failed" in said:
        raise FailedError(f"a client process failed: {said['failed']}")
    return said

