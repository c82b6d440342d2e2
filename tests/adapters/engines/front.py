"""The real `perjoule serve` in front of a server of the test suite, which runs in a thread of its own; what it sends is kept on the way."""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from tests.engines.serving import Sidecar, start
from tests.engines.vllm_cpu import end_group
from tests.engines.wire import Tap, exchange


@contextmanager
def in_thread(make: Callable[[], web.Application]) -> Iterator[str]:
    """A server, made in its own loop; who leaves is noticed at once. Yields its URL."""
    loop, urls = asyncio.new_event_loop(), []
    ready, over = threading.Event(), asyncio.Event()

    async def run() -> None:
        runner = web.AppRunner(make(), access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        ready.set()
        await over.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(30), "the server did not start"
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)
        loop.close()


@dataclass(frozen=True)
class Front:
    """A sidecar, the server behind it, and the wire between."""

    sidecar: Sidecar
    tap: Tap
    engine: str

    def asked(self, path, payload, name):
        """One request of that name: the client's answer, the engine's, and the record."""
        before, name = len(self.tap.answers), re.sub("[^a-z0-9]", "-", name)
        got = exchange(self.sidecar.listen, path, payload, {"X-Request-Id": name})
        return got, self.tap.answers[before], self.sidecar.record(name)


@contextmanager
def front_of(make: Callable[[], web.Application], folder: Path, *flags: str) -> Iterator[Front]:
    """All of it, with simulated joules."""
    with in_thread(make) as engine, Tap(engine) as tap:
        sidecar = start(tap.url, folder, "--energy", "simulated", *flags)
        try:
            yield Front(sidecar, tap, engine)
        finally:
            end_group(sidecar.process)
