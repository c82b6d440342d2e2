"""One worker process: it relays what comes to its socket, and has its desk at the other end of a wire.

It is started by the crew with two open files: the wire, over which it is told everything else, and the socket on which it listens.
It minds no signals, since whoever started it does. With the wire it loses its meter: it finishes what runs, and ends.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from typing import Any, cast

from perjoule.sidecar.process import interpreter
from perjoule.sidecar.process.remote_desk import RemoteDesk
from perjoule.sidecar.process.traffic import Traffic
from perjoule.sidecar.process.wire import Kind, Messages, batch, message
from perjoule.sidecar.settings.config import Config
from perjoule.sidecar.settings.credentials import load

MOST_UNSENT = 64 << 20  # bytes told and not taken: a minute of 100,000 frames a second; a meter that far behind is none

logger = logging.getLogger("perjoule")


class Worker(asyncio.Protocol):
    """The worker's end of the wire. `over` is set when it has nothing left to do."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._messages = Messages()
        self._transport: asyncio.Transport | None = None
        self._desk = RemoteDesk(self._send)
        self._traffic: Traffic | None = None
        self._doing: asyncio.Task[None] | None = None  # one thing after the other
        self._at_once = asyncio.Event()
        self.over = asyncio.Event()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for kind, said in self._messages.feed(data):
            if kind == Kind.SETTINGS:
                self._then(self._go_by(*said))
            elif kind == Kind.DRAIN:
                self._then(self._drain())
            elif kind == Kind.CUT:
                self._at_once.set()
            else:
                self._desk.heard(kind, said)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._desk.lost()
        self._then(self._drain())

    # what it does

    async def _go_by(self, settings: dict[str, Any], tracing: bool, engine: str) -> None:
        config = Config(**settings)
        logging.getLogger().setLevel(config.log_level.upper())
        doors = load(config, os.environ).doors
        if self._traffic is None:
            self._traffic = Traffic(config, doors, self._desk, tracing=tracing, engine=engine)
            await self._traffic.open(self._listening)
            interpreter.settle()
            self._send(batch([message(Kind.LISTENING)]))
        else:
            self._traffic.know_engine(engine)
            await self._traffic.reconfigure(config, doors)

    async def _drain(self) -> None:
        if self._traffic is not None:
            await self._traffic.drain(self._at_once)
            await self._traffic.close()
        self._desk.flush()
        self._send(batch([message(Kind.DRAINED)]))
        self.over.set()

    def _then(self, what: Any) -> None:
        before = self._doing

        async def do() -> None:
            if before is not None:
                await asyncio.wait([before])
            await what

        self._doing = asyncio.ensure_future(do())

    def _send(self, data: bytes) -> None:
        if self._transport is None:
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MOST_UNSENT:
            logger.error("the meter does not listen any more; what this worker relays is not metered from here on")
            self._transport.abort()


async def _work(wire: socket.socket, listening: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)
    transport, worker = await loop.create_unix_connection(lambda: Worker(listening), sock=wire)
    await worker.over.wait()
    transport.close()


def main(wire: str, listening: str) -> None:
    """Work for whoever is at the other end of the open file `wire`, until told to stop."""
    import uvloop

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s", stream=sys.stderr)
    uvloop.run(_work(socket.socket(fileno=int(wire)), socket.socket(fileno=int(listening))))


if __name__ == "__main__":
    main(*sys.argv[1:])
