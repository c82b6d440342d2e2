"""One client process: it gets its part of a schedule on standard input, keeps to it, and tells each sample as a line of JSON.

Lines that it prints: {"ready"}, {"sample"}, {"lag": ns, "t_ns", "in_flight"} twice a second, {"failed": why}, {"end"}. On standard input
come the job (8 bytes of length, a pickle), `start NS` (an instant of this machine's monotonic clock) and `stop`; its end is a stop, too.

    python -m perjoule.bench.load.worker
"""

import asyncio
import contextlib
import heapq
import os
import pickle
import signal
import sys
import time
from collections import deque
from typing import Any

import orjson
import uvloop

from perjoule.bench.load.ahead import Ahead
from perjoule.bench.load.alarm import Alarm
from perjoule.bench.load.client import Client
from perjoule.bench.load.connection import SPARE
from perjoule.bench.load.job import LENGTH_BYTES, Job, Task
from perjoule.bench.load.maker import Maker, MakerError, maker
from perjoule.bench.load.sample import Sample
from perjoule.sidecar.process.interpreter import settle
from perjoule.sidecar.units import NS_PER_S

LAG_S, LAGS_EACH = 0.01, 50  # the event loop's lateness is looked at so often, and its greatest told after so many looks


class Worker:
    """Sends what is due, in the order of the schedule's time; late or not, everything is sent."""

    def __init__(self, job: Job, make: Maker, out: asyncio.WriteTransport) -> None:
        self._job, self._out = job, out
        self._client = Client(job, self._landed)
        self._chains: dict[int, deque[Task]] = {}
        for task in job.tasks:
            self._chains.setdefault(task.row.chain, deque()).append(task)
        self._left = len(job.tasks)
        heads = [chain.popleft() for chain in self._chains.values()]
        self._waiting = deque(heads if job.places else ())  # of a closed loop: for a place
        begin_ns = job.begin_ns  # for the turns of a session whose first ones are done already
        self._due = [] if job.places else [
            (begin_ns if task.row.intended_ns is None else task.row.intended_ns, task.row.index, task) for task in heads]
        heapq.heapify(self._due)
        self._late: dict[int, int] = {}  # due, but not made yet: when it was due
        self._ahead = Ahead(make, heads if job.places else [task for _, _, task in sorted(self._due)], self._made_late)
        self._over = asyncio.Event()
        self._stops = False
        self._alarm = Alarm(self._pump)

    async def prepare(self) -> None:
        """Make the first requests, and open the first connections."""
        await self._ahead.fill()
        await self._client.warm(max(SPARE, len(self._job.places)))

    async def run(self, start_ns: int) -> None:
        """From the instant at which the schedule's `begin_ns` is, until everything has ended or it was stopped."""
        self._client.start_ns = start_ns - self._job.begin_ns
        for opens_ns in self._job.places:
            self._take_place(max(opens_ns, self._job.begin_ns))
        if not self._left:
            return
        making, lags = asyncio.create_task(self._keep_making()), asyncio.create_task(self._lags())
        self._set_alarm()
        await self._over.wait()
        for task in (making, lags):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._alarm.close()
        self._client.stop()

    def stop(self) -> None:
        """Send no more, and tell what is in flight as unfinished."""
        self._stops = True
        self._over.set()
        self._client.stop()

    def tell(self, **what: Any) -> None:
        if not self._out.is_closing():  # else nobody is there any more
            self._out.write(orjson.dumps(what) + b"\n")

    # what is due

    def _pump(self) -> None:
        due, start_ns = self._due, self._client.start_ns
        while due and not self._stops and due[0][0] <= time.monotonic_ns() - start_ns:
            at_ns, index, task = heapq.heappop(due)
            request = self._ahead.take(task)
            if request is None:
                self._late[index] = at_ns
            else:
                self._send(task, at_ns, request)
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._due and not self._stops:
            self._alarm.set(self._client.start_ns + self._due[0][0])

    def _made_late(self, task: Task, request: bytes) -> None:
        if not self._stops:
            self._send(task, self._late.pop(task.row.index), request)

    def _send(self, task: Task, at_ns: int, request: bytes) -> None:
        self._client.send(task, at_ns, request)
        if chain := self._chains[task.row.chain]:
            self._ahead.soon(chain[0])

    def _take_place(self, at_ns: int) -> None:
        """A place of the closed loop is free: the next chain begins, if there is time for another."""
        if self._job.until_ns is not None and at_ns >= self._job.until_ns:
            self._left -= sum(1 + len(self._chains[task.row.chain]) for task in self._waiting)
            self._waiting.clear()
        elif self._waiting:
            task = self._waiting.popleft()
            heapq.heappush(self._due, (at_ns, task.row.index, task))

    def _landed(self, task: Task, sample: Sample) -> None:
        self._left -= 1
        self.tell(sample=sample)
        if self._stops:
            return
        end_ns = sample.end_ns or 0
        if chain := self._chains[task.row.chain]:
            follower = chain.popleft()
            heapq.heappush(self._due, (end_ns + follower.row.think_ns, follower.row.index, follower))
        elif self._job.places:
            self._take_place(end_ns)
        if not self._left:
            self._over.set()
            return
        self._pump()

    async def _keep_making(self) -> None:
        try:
            await self._ahead.keep()
        except MakerError as error:
            self.tell(failed=str(error))
            self.stop()

    async def _lags(self) -> None:
        """Tell how late the event loop was at most."""
        while True:
            worst_ns = 0
            for _ in range(LAGS_EACH):
                due_ns = time.monotonic_ns() + round(LAG_S * NS_PER_S)
                await asyncio.sleep(LAG_S)
                worst_ns = max(worst_ns, time.monotonic_ns() - due_ns)
            self.tell(lag=worst_ns, t_ns=time.monotonic_ns() - self._client.start_ns, in_flight=self._client.in_flight)


class _Out(asyncio.BaseProtocol):
    def __init__(self) -> None:
        self.closed = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)


async def serve(out_fd: int) -> None:
    """One job, from its pickle to its end."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    out, protocol = await loop.connect_write_pipe(_Out, os.fdopen(out_fd, "wb"))
    pickled = await reader.readexactly(int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big"))
    job: Job = pickle.loads(pickled)  # noqa: S301 - our parent's
    try:
        async with maker(pickled) as make:
            worker = Worker(job, make, out)
            await worker.prepare()
            settle()
            worker.tell(ready=True)
            if (line := await reader.readline()).startswith(b"start "):
                listening = asyncio.create_task(_until_told(reader, worker))
                await worker.run(int(line.split()[1]))
                listening.cancel()
            worker.tell(end=True)
    except (MakerError, ValueError, OSError) as error:
        out.write(orjson.dumps({"failed": str(error)}) + b"\n")
    out.close()
    await protocol.closed


async def _until_told(reader: asyncio.StreamReader, worker: Worker) -> None:
    await reader.readline()  # `stop`, or nothing any more
    worker.stop()


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says what becomes of us
    out_fd = os.dup(1)
    os.dup2(2, 1)  # what a prompter prints must not get between the lines
    uvloop.run(serve(out_fd))
    return 0


if __name__ == "__main__":
    sys.exit(main())
