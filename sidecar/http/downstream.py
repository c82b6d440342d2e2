"""One client's connection: its requests one after the other, each to a handler that writes the answer to the transport itself.

httptools parses, strictly. A request is handed on as soon as its head has come, mostly with its whole body, since most come in one read;
of a longer one the handler reads the rest. Requests that come before the answer wait, and so does their client.
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import httptools

from perjoule.sidecar.http.heads import Fields

FIELD_LIMIT = 64 * 1024  # bytes of a line; vLLM takes heads of 4 MiB, nginx 32 KiB in all, and tokens in cookies grow
FIELDS_LIMIT = 256
HEAD_LIMIT = 256 * 1024  # bytes of a head, of trailers or of a chunk's line, that have come without an end
BODY_LIMIT = 256 * 1024  # bytes of a body that wait for the handler; the client waits with the rest
LINGER_S = 2.0  # who was refused in mid-body has so long to stop sending
AT_ONCE = struct.pack("ii", 1, 0)  # struct linger: on, 0 s
VERSIONS = {"1.1": (1, 1), "1.0": (1, 0), "2.0": (2, 0), "0.9": (0, 9)}  # that llhttp reads


class Writer(Protocol):
    """Whoever writes to a client's transport and must hear how it fares."""

    def client_writable(self, writable: bool) -> None: ...
    def client_gone(self) -> None: ...


class Keeper(Protocol):
    """Whose connections these are, and what is done with requests and with what is none."""

    slow_sender_s: float
    handle: Callable[["Request"], Awaitable[bool]]

    def made(self, client: "Downstream") -> None: ...
    def lost(self, client: "Downstream") -> None: ...
    def refusal(self, status: int, text: str) -> bytes: ...
    def failed(self, error: Exception) -> bytes: ...


def reset(transport: asyncio.Transport) -> None:
    """End a connection with RST, and what was not sent yet with it."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    transport.abort()


class HeadTooLargeError(Exception):
    """A line, or their number, exceeds what is taken."""


class Fault(NamedTuple):
    """Bytes that are no request, and what their sender is told, in its turn."""

    status: int
    text: str


class Body:
    """What follows a head. `length` is None where the client said none, `whole` is whether all of it has come."""

    __slots__ = ("_client", "_failed", "_pieces", "_size", "_waiter", "exists", "length", "whole")

    def __init__(self, client: "Downstream", length: int | None, exists: bool) -> None:
        self._client, self.length, self.exists = client, length, exists
        self._pieces: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._failed = False
        self.whole = False

    async def some(self) -> bytes:
        """What has come since the last call, at least a byte; nothing at the end. Raises ConnectionError if that will never come."""
        while not self._pieces and not self.whole:
            if self._failed:
                raise ConnectionError("the rest of the body will not come")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.taken()

    def taken(self) -> bytes:
        """What has come since the last call."""
        pieces, self._pieces = self._pieces, []
        if self._size > BODY_LIMIT:
            self._client.listen(True)
        self._size = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def feed(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > BODY_LIMIT:
            self._client.listen(False)
        self._wake()

    def end(self) -> None:
        self.whole = True
        self._wake()

    def fail(self) -> None:
        self._failed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@dataclass(slots=True)
class Request:
    """One request; `keep_alive` is whether its client wants to send another one over the same connection."""

    client: "Downstream"
    method: str
    target: str
    version: tuple[int, int]
    headers: Fields
    keep_alive: bool
    body: Body


class Downstream(asyncio.Protocol):
    """The connection; the exchange that writes to it is told of backpressure and of its end, without a task between."""

    __slots__ = ("_behind", "_body", "_deaf", "_fields", "_full", "_head_timer", "_in_head", "_keeper", "_listens", "_parser", "_serving",
                 "_stalled", "_url", "_waiting", "exchange", "idle_since", "transport")

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self.transport: asyncio.Transport | None = None
        self.exchange: Writer | None = None
        self.idle_since = 0.0  # since when nothing is asked; of the event loop's clock
        self._parser: Any = httptools.HttpRequestParser(self)
        self._waiting: deque[Request | Fault] = deque()
        self._serving: asyncio.Task[None] | None = None
        self._body: Body | None = None  # of the request whose end has not come
        self._in_head = self._deaf = False
        self._listens = True
        self._stalled = 0  # bytes since the last that were of any use
        self._behind: bytes | None = None  # what came after a request to change the protocol; not parsed
        self._full: asyncio.Future[None] | None = None  # while the client takes nothing
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def serving(self) -> asyncio.Task[None] | None:
        """Who is at work on its requests; None while it asks nothing."""
        return self._serving

    @property
    def at_upgrade(self) -> bool:
        """Whether the parser has stopped behind this request: if the upgrade is granted, what follows is not HTTP any more."""
        return self._behind is not None and not self._waiting

    def hand_over(self, to: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """Another protocol takes the connection, and what has come behind the request; it tells this one of its end."""
        assert self.transport is not None
        behind, self._behind = self._behind or b"", None
        self.transport.set_protocol(to)
        self.listen(True)
        return self.transport, behind

    def listen(self, on: bool) -> None:
        """Whether to take bytes from it."""
        if on is self._listens or self.transport is None or self.transport.is_closing():
            return
        self._listens = on
        if on:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def refuse(self, status: int, text: str) -> None:
        """Tell the client why, and hang up; what it is still sending is not read as requests any more."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        transport.write(self._keeper.refusal(status, text))
        self._hang_up()

    def untaken(self) -> int:
        """Bytes that have been written and that the client has not acknowledged: those in this process and those in the kernel."""
        if self.transport is None:
            return 0
        in_kernel = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))  # tcp(7), SIOCOUTQ
        return self.transport.get_write_buffer_size() + int.from_bytes(in_kernel, sys.byteorder)

    def reset(self) -> None:
        """End the connection so that it cannot be taken for the end of a body: with RST, not with FIN."""
        if self.transport is not None:
            reset(self.transport)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.idle_since = asyncio.get_running_loop().time()
        self._keeper.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._parser = None  # which holds this
        self._stop_head_timer()
        self._waiting.clear()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()
        if self._body is not None:
            self._body.fail()
        self.resume_writing()
        self._keeper.lost(self)

    def pause_writing(self) -> None:
        self._full = asyncio.get_running_loop().create_future()
        if self.exchange is not None:
            self.exchange.client_writable(False)

    def resume_writing(self) -> None:
        full, self._full = self._full, None
        if full is not None and not full.done():
            full.set_result(None)
        if self.exchange is not None:
            self.exchange.client_writable(True)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._behind is not None:
            self._behind += data
            if len(self._behind) > BODY_LIMIT:
                self.listen(False)
            return
        self._stalled += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._behind = data[upgrade.args[0]:]
        except httptools.HttpParserError as error:
            self._stop_at(error)
        if self._stalled > HEAD_LIMIT and (self._in_head or self._body is not None):
            self._stop_at(HeadTooLargeError())
        if self._waiting:
            self._serve_next()
        if self._in_head and self._serving is None:
            if self._head_timer is None:
                self._head_timer = asyncio.get_running_loop().call_later(self._keeper.slow_sender_s, self._head_too_slow)
        elif self._head_timer is not None:
            self._stop_head_timer()

    # httptools

    def on_message_begin(self) -> None:
        self._in_head = True
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > FIELD_LIMIT:
            raise HeadTooLargeError

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._fields) == FIELDS_LIMIT:
            raise HeadTooLargeError
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, Fields(self._fields)
        if self._stalled > FIELD_LIMIT and any(len(b"".join(field)) > FIELD_LIMIT for field in headers):
            raise HeadTooLargeError
        named, version = headers.named, VERSIONS[parser.get_http_version()]
        hosts = len(named.get(b"host", ()))
        if hosts > 1 or (hosts == 0 and version == (1, 1)):
            raise ValueError(f"got {hosts} Host fields, expected one")
        self._in_head = False
        self._stalled = 0
        length = int(named[b"content-length"][0]) if b"content-length" in named else None
        self._body = body = Body(self, length, exists=bool(length) or b"transfer-encoding" in named)
        method, target = parser.get_method().decode(), self._url.decode()
        self._waiting.append(Request(self, method, target, version, headers, parser.should_keep_alive(), body))

    def on_body(self, data: bytes) -> None:
        self._stalled = 0
        if self._body is not None:
            self._body.feed(data)

    def on_message_complete(self) -> None:
        self._stalled = 0
        if self._body is not None:
            self._body.end()
            self._body = None

    # requests

    def _stop_at(self, error: Exception) -> None:
        """What has come cannot be read, and nothing after it."""
        reason = error.__context__ or error
        if isinstance(reason, HeadTooLargeError):
            fault = Fault(431, f"the request's head exceeds {FIELD_LIMIT} bytes a line, {FIELDS_LIMIT} fields or {HEAD_LIMIT} bytes in all")
        else:
            fault = Fault(400, f"the request is not HTTP/1.1: {reason}")
        self._deaf, self._in_head = True, False
        self._waiting.append(fault)
        if self._body is not None:
            self._body.fail()

    def _serve_next(self) -> None:
        if self._serving is None:
            self._serving = asyncio.get_running_loop().create_task(self._serve(self._waiting.popleft()))
        else:
            self.listen(False)  # it has asked before it was answered: it may wait

    async def _serve(self, asked: Request | Fault) -> None:
        """Serve this and those that wait, each when the one before has been answered and its client has taken that."""
        try:
            while await self._is_kept(asked):
                if self._full is not None:
                    await self._full
                if self._behind and not self._waiting:
                    self._parse_on()
                self.listen(True)
                if not self._waiting:
                    break
                asked = self._waiting.popleft()
        finally:
            self._serving = None
            self.idle_since = asyncio.get_running_loop().time()

    def _parse_on(self) -> None:
        """The protocol was not changed: what came behind the request is HTTP after all."""
        behind, self._behind = self._behind or b"", None
        self._parser = httptools.HttpRequestParser(self)
        self.data_received(behind)

    async def _is_kept(self, asked: Request | Fault) -> bool:
        """Answer it. Whether the connection goes on."""
        if isinstance(asked, Fault):
            self.refuse(*asked)
            return False
        try:
            keep = await self._keeper.handle(asked)
        except Exception as error:
            keep = False
            if self.transport is not None and not self.transport.is_closing():
                self.transport.write(self._keeper.failed(error))
        if keep and (asked.body.whole or self._deaf):  # who is not listened to has a fault waiting, and is told of it
            return True
        self._hang_up()
        return False

    def _hang_up(self) -> None:
        """Close, once the client has what was written. While it is still sending that is not at once: its system would throw it away."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self._body is None and self._listens and not self._deaf:
            transport.close()
            return
        self._deaf = True
        if transport.can_write_eof():
            transport.write_eof()
        self.listen(True)
        asyncio.get_running_loop().call_later(LINGER_S, transport.close)

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if self._in_head and self._serving is None:
            self.refuse(408, f"the request's head was not whole after {self._keeper.slow_sender_s:g} s (--slow-sender-s)")

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
