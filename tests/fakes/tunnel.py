"""Both ends of a tunnel in raw bytes: an engine that consents to a WebSocket, a client that asks for one, the sidecar between."""

import asyncio
import base64
import contextlib
import gc
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from perjoule.sidecar.dialects.websocket import accept_of
from perjoule.sidecar.relay.tunnel import Tunnel
from tests.fakes.sidecar import Running, sidecar
from tests.fakes.upstream import answer

End = tuple[asyncio.StreamReader, asyncio.StreamWriter]

KEY = base64.b64encode(b"sixteen bytes ok")
SWITCHING = ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             f"Sec-WebSocket-Accept: {accept_of(KEY).decode()}\r\n")
CONSENT = f"{SWITCHING}X-Engine: Yes\r\n\r\n".encode()
CHUNK = 65536
MOST_HELD = 100_000_000  # bytes that the kernel may take on two connections, before nobody takes any more
SOON_S = 5.0  # a busy machine may take its time for what happens at once


def hello(path: str = "/ws", *fields: str, method: str = "GET", version: str = "1.1", upgrade: str = "websocket",
          connection: str = "Upgrade") -> bytes:
    """A request for a WebSocket."""
    lines = [f"{method} {path} HTTP/{version}", "Host: sidecar", f"Upgrade: {upgrade}", f"Connection: {connection}",
             f"Sec-WebSocket-Key: {KEY.decode()}", "Sec-WebSocket-Version: 13", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def event(**payload: Any) -> bytes:
    """An event of a realtime session as a text frame."""
    data = json.dumps(payload).encode()
    return b"\x81" + (bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack("!H", len(data))) + data


COMMIT = event(type="input_audio_buffer.commit")
BEGUN = event(type="session.created", session={"id": "sess_1", "model": "m"}) + event(type="response.created", response={"id": "r"})


class RawEngine:
    """Consents to a WebSocket (and answers what comes before), says `first` in the same breath, and leaves its ends to the test."""

    def __init__(self, first: bytes = b"", consent: asyncio.Event | None = None) -> None:
        """`consent` is waited for, if there is one."""
        self.first, self.consent, self.url = first, consent, ""
        self.heads: list[bytes] = []
        self.ends: asyncio.Queue[End] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError):  # a sidecar that only wants to know whether it is up
            await self._consent(reader, writer)

    async def _consent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        while b"\r\nUpgrade: websocket\r\n" not in self.heads[-1]:
            writer.write(answer(b"an ordinary answer"))
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        if self.consent is not None:
            await self.consent.wait()
        writer.write(CONSENT + self.first)
        self.ends.put_nowait((reader, writer))


@asynccontextmanager
async def raw_engine(first: bytes = b"", consent: asyncio.Event | None = None) -> AsyncIterator[RawEngine]:
    """A RawEngine that listens on a port of its own."""
    engine = RawEngine(first, consent)
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    engine.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield engine
    finally:
        server.close()
        for writer in engine.writers:
            writer.transport.abort()


@asynccontextmanager
async def joined(first: bytes = b"", path: str = "/ws", behind: bytes = b"", **settings: Any) -> AsyncIterator[tuple[End, End, Running]]:
    """A raw client and a raw engine with a tunnel between: both ends, and the sidecar."""
    async with raw_engine(first) as engine, sidecar(engine.url, **settings) as front:
        reader, writer = await front.connect()
        writer.write(hello(path) + behind)
        assert await reader.readuntil(b"\r\n\r\n") == CONSENT
        ends = await asyncio.wait_for(engine.ends.get(), SOON_S)
        try:
            yield (reader, writer), ends, front
        finally:
            writer.transport.abort()
            ends[1].transport.abort()


async def flood(writer: asyncio.StreamWriter) -> int:
    """How many bytes somebody can send before nobody takes them any more."""
    sent, data = 0, b"a" * CHUNK
    while sent < 2 * MOST_HELD:
        writer.write(data)
        sent += len(data)
        try:
            await asyncio.wait_for(writer.drain(), 0.5)
        except (TimeoutError, ConnectionError):
            break
    return sent


async def end_of(reader: asyncio.StreamReader) -> None:
    """Waits until a connection has ended, whichever way."""
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), SOON_S)


async def idle(front: Running) -> None:
    """Waits until nothing is on its way any more; and neither a connection is remembered, nor by any timer a tunnel."""
    traffic = front.service.traffic
    async with asyncio.timeout(SOON_S):
        while traffic.active or traffic._front.clients:
            await asyncio.sleep(0.01)
    gc.collect()
    assert not [it for it in gc.get_objects() if isinstance(it, Tunnel)]
