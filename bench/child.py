"""A module of ours as a process of its own, for as long as somebody needs it."""

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

START_S = 20.0
STOP_S = 5.0


class FailedError(Exception):
    """It did not start; the text says what it said."""


@asynccontextmanager
async def child(module: str, *flags: str) -> AsyncIterator[dict[str, Any]]:
    """A module of ours as a process while the block runs; yields the line of JSON that it prints when it is ready.
    Raises FailedError, with the end of what it said on standard error."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PERJOULE_")}
    with tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, *flags, env=environ, stderr=said,
                                                       stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_S):
                line = await process.stdout.readline()
            if not line:
                said.seek(0)
                raise FailedError(f"{module} did not start: {said.read().decode(errors='replace')[-2000:].strip()}")
            yield json.loads(line)
        finally:
            if process.returncode is None:
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()
