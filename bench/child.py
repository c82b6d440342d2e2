"""A program as a process of its own, for as long as somebody needs it."""

import asyncio
import json
import os
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

START_S = 20.0
STOP_S = 5.0


class FailedError(Exception):
    """It did not start; the text says what it said."""


@asynccontextmanager
async def program(*command: str, stdout: int = DEVNULL, log: Path | None = None) -> AsyncIterator[tuple[Process, Callable[[], str]]]:
    """A command as a process while the block runs, and the end of what it has said on standard error so far; all of that stays in `log`.
    Raises OSError."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PERJOULE_")}
    with log.open("w+b") if log is not None else tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(*command, env=environ, stderr=said, stdout=stdout)

        def last_words() -> str:
            said.seek(0)
            return said.read().decode(errors="replace")[-2000:].strip()

        try:
            yield process, last_words
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()


@asynccontextmanager
async def child(module: str, *flags: str, python: Sequence[str] = (), log: Path | None = None) -> AsyncIterator[dict[str, Any]]:
    """A module of ours as a process while the block runs; yields the line of JSON that it prints when it is ready, and its `pid`.
    `python` are options of the interpreter. Raises FailedError, with the end of what it said on standard error."""
    async with program(sys.executable, *python, "-m", module, *flags, stdout=PIPE, log=log) as (process, last_words):
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_S):  # before Python 3.12, wait_for forgets a Ctrl-C that comes together with the line
                line = await process.stdout.readline()
        except TimeoutError:
            raise FailedError(f"{module} did not start within {START_S:g} s: {last_words()}") from None
        if not line:
            raise FailedError(f"{module} did not start: {last_words()}")
        yield json.loads(line) | {"pid": process.pid}
