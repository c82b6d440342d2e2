"""`perjoule meter` while it runs: reads one host's counter and tells every sidecar that is connected what it saw.

A sidecar that does not take what it is told is cut off; it connects again, and knows by the times that it missed something.
"""

import asyncio
import hmac
import logging
import signal
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from socket import socket

from perjoule.sidecar.http.sockets import HANDSHAKE_S, stop_listening
from perjoule.sidecar.ports import EnergyCounter, Reading
from perjoule.sidecar.process import readings as wire
from perjoule.sidecar.process.sampler import Sampler

FIRST_WORD_S = 10.0  # who has not said what he wants by then is closed
MOST_SIDECARS = 256
MOST_SAID = 8192  # bytes of a sidecar's line; a token has at most 4096
MOST_WAITING = 1 << 20  # bytes for one that does not read: some minutes

logger = logging.getLogger("perjoule")


def boot_id() -> str:
    """Names this start of this kernel; empty where the kernel does not tell."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


class Publisher:
    """One counter, and who hears of it."""

    def __init__(self, counter: EnergyCounter, poll_ns: int, token: str | None) -> None:
        self._counter, self._token = counter, token
        self._sampler = Sampler(counter, self._read, poll_ns, self._failed)
        self._hello = wire.hello(counter, boot_id())
        self._hearing: set[asyncio.StreamWriter] = set()
        self._callers = 0
        self._latest, self._latest_s = b"", 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, listening: socket, tls: ssl.SSLContext | None, announce: Callable[[], None]) -> None:
        """Until SIGTERM or SIGINT."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop = loop
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        server = await asyncio.start_server(self._serve, sock=listening.dup(), limit=MOST_SAID, ssl=tls,
                                            ssl_handshake_timeout=HANDSHAKE_S if tls is not None else None)
        self._sampler.start()
        quiet = loop.create_task(self._break_silence())
        try:
            announce()
            await stop.wait()
        finally:
            quiet.cancel()
            server.close()
            stop_listening(listening)
            for writer in [*self._hearing]:
                writer.close()
            self._sampler.stop()

    # in the sampler's thread

    def _read(self, looks: tuple[Reading, ...]) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._tell, wire.rows(looks))

    def _failed(self, text: str) -> None:
        logger.warning("the counter cannot be read: %s", text)
        assert self._loop is not None
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._tell, wire.line({"failing": text}))

    # on the event loop

    def _tell(self, text: bytes) -> None:
        self._latest, self._latest_s = text, time.monotonic()
        for writer in [*self._hearing]:
            if writer.transport.get_write_buffer_size() > MOST_WAITING:
                logger.warning("a sidecar does not read what it is told, and is cut off")
                self._hearing.discard(writer)
                writer.transport.abort()
            else:
                writer.write(text)

    async def _break_silence(self) -> None:
        """A counter that is looked at seldom, or hangs, must not look like a meter that is gone."""
        while True:
            await asyncio.sleep(wire.QUIET_S)
            if self._latest and time.monotonic() - self._latest_s >= wire.QUIET_S:
                for writer in self._hearing:
                    writer.write(wire.line({"quiet": True}))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._callers += 1
        try:
            if self._callers > MOST_SIDECARS:
                writer.write(wire.line({"refused": f"there are {MOST_SIDECARS} others"}))
            elif await self._lets_in(reader, writer):
                writer.write(self._hello + self._latest)
                self._hearing.add(writer)
                while text := await reader.readline():
                    sent = wire.parse(text).get("ping")
                    writer.write(wire.line({"pong": sent, "t": time.monotonic_ns()}))
                    await writer.drain()
            await writer.drain()
        except (OSError, ValueError, TimeoutError) as error:  # it is gone, or no sidecar
            logger.debug("a sidecar left: %r", error)
        finally:
            self._callers -= 1
            self._hearing.discard(writer)
            writer.close()

    async def _lets_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        async with asyncio.timeout(FIRST_WORD_S):
            asked = wire.parse(await reader.readline())
        if asked.get("perjoule_meter") != wire.VERSION:
            writer.write(wire.line({"refused": f"got version {asked.get('perjoule_meter')!r:.20}, expected {wire.VERSION}"}))
            return False
        told = str(asked.get("token", "")).encode("utf-8", "replace")
        if self._token is not None and not hmac.compare_digest(told, self._token.encode()):
            writer.write(wire.line({"refused": "the token is not the one that this meter asks for (--energy-token-file)"}))
            return False
        return True
