"""The traffic port of one process: the front that takes clients, the relay that serves them, and the way to the engine."""

import asyncio
import socket
import time

from perjoule.sidecar.access.doors import Doors
from perjoule.sidecar.http.front import Front
from perjoule.sidecar.http.sockets import Listener, limit_silence, listening_socket, url_of
from perjoule.sidecar.http.upstream import Upstream
from perjoule.sidecar.process import interpreter
from perjoule.sidecar.relay.handler import AnyDesk, Relay
from perjoule.sidecar.settings.config import Config

LAST_ANSWERS_S = 1.0  # after draining, for handlers that still write
LOOK_EVERY_S = 0.02


class Traffic:
    """Opened once, drained, closed."""

    def __init__(self, config: Config, doors: Doors, desk: AnyDesk, *, tracing: bool, engine: str) -> None:
        self.relay = Relay(config, Upstream(config.upstream, config.connect_timeout_s, config.upstream_tls()), desk, doors, tracing=tracing,
                           engine=engine)
        self._front: Front | None = None
        self._listener: Listener | None = None
        self._tidying: asyncio.Task[None] | None = None

    @property
    def alive(self) -> dict[str, int]:
        """Nothing to say: it lives in this process."""
        return {}

    @property
    def active(self) -> int:
        """Requests between their arrival and the end of their answer."""
        return self._front.busy if self._front is not None else 0

    async def open(self, listening: socket.socket | None = None) -> str:
        """Take clients, at this socket or at `--listen`; answers the URL. Raises OSError if the port cannot be had."""
        config = self.relay.config
        self._front = Front(self.relay.handle, slow_sender_s=config.slow_sender_s, max_connections=config.max_connections)
        self._listener = Listener(listening or listening_socket(config.address("listen"), mode=int(config.socket_mode, 8)))
        limit_silence(self._listener.listening, config.slow_reader_s)
        tls = config.front_tls()
        await self._listener.serve(self._front, tls)
        self._tidying = asyncio.ensure_future(interpreter.give_back())
        return url_of(self._listener.listening, tls=tls is not None)

    def know_engine(self, name: str) -> None:
        """The upstream was found to be this."""
        self.relay.engine = name

    async def reconfigure(self, config: Config, doors: Doors) -> None:
        """Go by these from the next request on, and by their certificates from the next connection on."""
        self.relay.config, self.relay.doors = config, doors
        self.relay.upstream.tls = config.upstream_tls()
        if self._listener is not None and self._front is not None:
            limit_silence(self._listener.listening, config.slow_reader_s)
            await self._listener.serve(self._front, config.front_tls())

    async def drain(self, at_once: asyncio.Event) -> None:
        """No new connections, and running requests to their end, for `--drain-s` or until `at_once`."""
        self.relay.draining = True
        self._stop_listening()
        deadline = time.monotonic() + self.relay.config.drain_s
        while self.active and time.monotonic() < deadline and not at_once.is_set():
            await asyncio.sleep(LOOK_EVERY_S)

    async def close(self) -> None:
        """Cut what still runs."""
        self._stop_listening()
        if self._tidying is not None:
            self._tidying.cancel()
        if self._front is not None:
            await self._front.close(LAST_ANSWERS_S)
        self.relay.upstream.close()

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
