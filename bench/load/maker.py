"""A process that makes the requests of a client process: a long prompt takes milliseconds, in which nothing could be stamped or sent.

On standard input come the job, as the client got it, and the indices of the requests that are wanted, a line each; on standard output go
the requests, in their order, each behind its length (8 bytes; below 0: an error, and what it says).

    python -m perjoule.bench.load.maker
"""

import asyncio
import contextlib
import os
import pickle
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from perjoule.bench.load.job import LENGTH_BYTES, Job, Task
from perjoule.bench.load.request import Requests

NICE = 5  # the client's stamps come first
BUFFER_BYTES = 4 << 20


class MakerError(Exception):
    """A request could not be made; the text says what the prompter raised."""


class Maker:
    """The client's side of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def __call__(self, batch: Sequence[Task]) -> list[bytes]:
        """The requests of these tasks. Raises MakerError."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError, RuntimeError):  # it has ended (uvloop: RuntimeError), which the answer tells
            self._process.stdin.write(b"".join(b"%d\n" % task.row.index for task in batch))
        return [await self._next() for _ in batch]

    async def _next(self) -> bytes:
        assert self._process.stdout is not None
        try:
            length = int.from_bytes(await self._process.stdout.readexactly(LENGTH_BYTES), "big", signed=True)
            data = await self._process.stdout.readexactly(abs(length))
        except asyncio.IncompleteReadError:
            raise MakerError("the process that makes requests ended") from None
        if length < 0:
            raise MakerError(data.decode())
        return data


@asynccontextmanager
async def maker(job: bytes) -> AsyncIterator[Maker]:
    """Such a process while the block runs, for a job as it was pickled."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "perjoule.bench.load.maker", stdin=PIPE, stdout=PIPE,
                                                   limit=BUFFER_BYTES)
    assert process.stdin is not None
    try:
        process.stdin.write(len(job).to_bytes(LENGTH_BYTES, "big") + job)
        yield Maker(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with its standard input
    os.nice(NICE)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a prompter prints must not get between the requests
    source = sys.stdin.buffer
    job: Job = pickle.loads(source.read(int.from_bytes(source.read(LENGTH_BYTES), "big")))  # noqa: S301 - our parent's
    make, tasks = Requests(job), {task.row.index: task for task in job.tasks}
    for line in source:
        try:
            data = make(tasks[int(line)])
            length = len(data)
        except Exception as error:  # the prompter is anybody's
            data = f"{type(error).__name__}: {error}".encode()
            length = -len(data)
        out.write(length.to_bytes(LENGTH_BYTES, "big", signed=True) + data)
        out.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
