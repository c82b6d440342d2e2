"""Connections to the engine: kept alive, the latest used first; every read is stamped at once, and parsed when all that came was stamped.

An engine writes the chunks of a whole batch in one go. If each were parsed before the next one is read, the last would be stamped by
the work on all others, milliseconds late."""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Mapping
from typing import Protocol, cast

import httptools

from perjoule.sidecar.units import NS_PER_S

# uvicorn, and so vLLM, closes a connection that was idle for 5 s: one that was idle for longer than this is not worth a try.
IDLE_LIMIT_NS = 4 * NS_PER_S
CONNECT_LIMIT_S = 30.0
WARM_AT_ONCE = 16
SPARE = 2  # connections that are opened before they are needed, so that a send need not wait for a handshake


class Receiver(Protocol):
    """What a connection hands an answer to; times are monotonic. After `ended` or `lost` nothing more comes."""

    def head(self, status: int, fields: Mapping[bytes, bytes]) -> None: ...
    def body(self, data: bytes, now_ns: int) -> None: ...
    def ended(self, now_ns: int) -> None: ...
    def lost(self, error: str, now_ns: int) -> None: ...


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    __slots__ = ("_fields", "_has_head", "_is_eof", "_now_ns", "_parser", "_pool", "_reads", "_receiver", "idle_since_ns", "transport")

    def __init__(self, pool: "Pool") -> None:
        self._pool, self._reads = pool, pool.reads
        self._parser = httptools.HttpResponseParser(self)
        self._receiver: Receiver | None = None
        self._fields: dict[bytes, bytes] = {}
        self._has_head = self._is_eof = False
        self._now_ns = self.idle_since_ns = 0
        self.transport: asyncio.Transport | None = None

    def ask(self, request: bytes, receiver: Receiver) -> None:
        """Send one whole request; its answer goes to the receiver."""
        assert self.transport is not None
        self._receiver, self._fields, self._has_head = receiver, {}, False
        self.transport.write(request)

    def abandon(self) -> None:
        """Close at once and tell nobody."""
        self._receiver = None
        if self.transport is not None:
            self.transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._reads:
            self._pool.parse_soon()
        self._reads.append((self, time.monotonic_ns(), data))

    def parse(self, now_ns: int, data: bytes) -> None:
        """What was read at that time."""
        if self._receiver is None:  # it speaks without having been asked
            self.abandon()
            return
        self._now_ns = now_ns
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._lose("the answer is not HTTP/1.1")

    def eof_received(self) -> None:
        self._is_eof = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._pool.parse()
        self._pool.forget(self)
        receiver, self._receiver = self._receiver, None
        if receiver is None:
            return
        now_ns = time.monotonic_ns()
        if self._is_eof and exc is None and self._has_head and not {b"content-length", b"transfer-encoding"} & self._fields.keys():
            receiver.ended(now_ns)  # a body without a length ends with its connection (RFC 9112 6.3)
        elif exc is not None:
            receiver.lost(text_of(exc), now_ns)
        else:
            receiver.lost("connection closed " + ("in the answer" if self._has_head else "before the answer"), now_ns)

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # an interim answer: the final one follows
            self._fields = {}
        elif self._receiver is not None:
            self._has_head = True
            self._receiver.head(status, self._fields)

    def on_body(self, data: bytes) -> None:
        if self._receiver is not None:
            self._receiver.body(data, self._now_ns)

    def on_message_complete(self) -> None:
        receiver = self._receiver
        if not self._has_head or receiver is None:
            return
        self._receiver = None
        if self._parser.should_keep_alive() and self.transport is not None and not self.transport.is_closing():
            self._pool.give_back(self, self._now_ns)
        elif self.transport is not None:
            self.transport.close()
        receiver.ended(self._now_ns)

    def _lose(self, error: str) -> None:
        receiver, self._receiver = self._receiver, None
        self.abandon()
        if receiver is not None:
            receiver.lost(error, self._now_ns)


def text_of(error: Exception) -> str:
    """A few words for what went wrong with a connection, the same for the same thing."""
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "connection reset"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    return f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"


class Pool:
    """The idle connections to one address. It keeps some to spare: those are open before their request is due."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None, server_name: str | None = None) -> None:
        self._host, self._port, self._tls, self._server_name = host, port, tls, server_name
        self._idle: list[Connection] = []
        self.reads: deque[tuple[Connection, int, bytes]] = deque()  # stamped, and not parsed yet
        self._opening: set[asyncio.Task[None]] = set()

    def take(self, now_ns: int) -> Connection | None:
        """An idle connection, None where there is none: `connect` then."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if now_ns - connection.idle_since_ns >= IDLE_LIMIT_NS:
                connection.abandon()
            elif connection.transport is not None and not connection.transport.is_closing():
                if len(idle) + len(self._opening) < SPARE:
                    self._open_a_spare()
                return connection
        return None

    async def connect(self) -> Connection:
        """A new one. Raises OSError, and TimeoutError."""
        async with asyncio.timeout(CONNECT_LIMIT_S):
            _, made = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self), self._host, self._port, ssl=self._tls, server_hostname=self._server_name)
        if made.transport is not None and (peer := made.transport.get_extra_info("peername")):
            self._host = peer[0]  # a name is looked up once
        return made

    async def warm(self, count: int) -> None:
        """Open so many connections ahead of the first requests; of those that fail, the requests will tell."""
        for begun in range(0, count, WARM_AT_ONCE):
            await asyncio.gather(*(self._spare() for _ in range(min(WARM_AT_ONCE, count - begun))))

    def parse_soon(self) -> None:
        """When the loop has read everything that is there."""
        asyncio.get_running_loop().call_soon(self.parse)

    def parse(self) -> None:
        """Parse what was read, in its order."""
        reads = self.reads
        while reads:
            connection, now_ns, data = reads.popleft()
            connection.parse(now_ns, data)

    def give_back(self, connection: Connection, now_ns: int) -> None:
        """It may serve another request."""
        connection.idle_since_ns = now_ns
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        for task in self._opening:
            task.cancel()
        while self._idle:
            self._idle.pop().abandon()

    def _open_a_spare(self) -> None:
        task = asyncio.get_running_loop().create_task(self._spare())
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _spare(self) -> None:
        try:
            self.give_back(await self.connect(), time.monotonic_ns())
        except OSError:
            return  # whoever needs a connection will see that, and say so
