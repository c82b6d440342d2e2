"""A lean connection to the engine: httptools parses, whole reads are handed on at once, idle connections are kept warm.

aiohttp's client would wake a task for every chunk and rebuild header objects for every answer; here `data_received` ends in
one call of the exchange, which writes to the client's transport in the same tick.
"""

import asyncio
import ssl
import time
from collections import deque
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

from perjoule.sidecar.heads import Head

# uvicorn, and so vLLM, closes a connection that was idle for 5 s: one that was idle for longer than this is not worth a try.
IDLE_LIMIT_S = 4.0
HEAD_LIMIT = 256 * 1024  # bytes of an answer's head; nginx's default buffers hold 32 KiB, vLLM's own limit is 4 MiB of request
NO_BODY = frozenset({204, 304})


class UpstreamError(Exception):
    """The engine could not be reached, or broke off; `status` is what to answer where nothing has been answered yet."""

    def __init__(self, kind: str, text: str, status: int = 502) -> None:
        super().__init__(text)
        self.kind, self.status = kind, status


class Receiver(Protocol):
    """What a connection hands an answer to. After `received(..., ended=True)` or `lost(...)` nothing more comes."""

    def received(self, head: Head | None, body: bytes, ended: bool) -> None: ...
    def lost(self, error: UpstreamError) -> None: ...


class Connection(asyncio.Protocol):
    """One connection; it serves one exchange at a time and goes back to its pool after a clean end."""

    __slots__ = ("_answered", "_body", "_done", "_extra", "_head", "_head_size", "_headers", "_keeps", "_parser", "_pool", "_receiver",
                 "_request_is_head", "_status_line", "idle_since", "transport", "used")

    def __init__(self, pool: "Upstream") -> None:
        self._pool = pool
        self._receiver: Receiver | None = None
        self.transport: asyncio.Transport | None = None
        self._head: Head | None = None
        self._answered = False
        self.idle_since = 0.0
        self.used = False  # an answer has come over it before: it may have gone stale in the meantime

    @property
    def answered(self) -> bool:
        """Whether a byte of the answer to the present request has come."""
        return self._answered

    def begin(self, receiver: Receiver, request: bytes, *, is_head: bool) -> None:
        """Send one whole request; its answer goes to `receiver`."""
        assert self.transport is not None
        self._receiver, self._request_is_head = receiver, is_head
        self._parser = httptools.HttpResponseParser(self)
        self._head = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._answered = self._done = self._extra = self._keeps = False
        self._head_size = 0
        self._status_line = b""
        self.transport.write(request)

    def abandon(self) -> None:
        """Close at once and tell nobody: the engine notices by the closed socket, and stops."""
        self._receiver = None
        if self.transport is not None:
            self.transport.abort()

    def pause(self) -> None:
        if self.transport is not None:
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:  # an idle connection that speaks is broken
            self._close()
            return
        self._answered = True
        head_before = self._head
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(UpstreamError("upstream_protocol", "the engine switched protocols, which was not asked for"))
            return
        except httptools.HttpParserError as error:
            if not self._done:
                self._fail(UpstreamError("upstream_protocol", f"the engine's answer is not HTTP/1.1: {error}"))
                return
            self._extra = True  # bytes after the end: the answer is whole, the connection is not
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        head = self._head if head_before is None else None
        if head is None and head_before is None:
            self._head_size += len(data)
            if self._head_size > HEAD_LIMIT:
                self._fail(UpstreamError("upstream_protocol", f"the head of the engine's answer exceeds {HEAD_LIMIT} bytes"))
            return
        if self._done:
            self._finish(receiver, head, body)
        elif head is not None or body:
            receiver.received(head, body, False)

    def eof_received(self) -> None:
        return None  # and so the transport closes; connection_lost says the rest

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._pool.forget(self)
        receiver = self._receiver
        if receiver is None:
            return
        head = self._head
        if exc is None and head is not None and head.length is None and not head.chunked:
            self._receiver = None
            receiver.received(None, b"", True)  # a body without a length ends with its connection (RFC 9112 6.3)
            return
        what = "before it answered" if not self._answered else "in the middle of its answer"
        self._receiver = None
        receiver.lost(UpstreamError("upstream_closed", f"the engine closed the connection {what}" + (f" ({exc})" if exc else "")))

    # httptools

    def on_message_begin(self) -> None:
        if self._done:
            self._extra = True

    def on_status(self, reason: bytes) -> None:
        if not self._done:
            self._status_line += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._done:
            return
        if self._head is not None:
            self._head.trailers.append((name, value))
            return
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._done:
            return
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, []
        reason, self._status_line = self._status_line, b""
        if status < 200:
            return  # an interim answer; the final one follows
        head = Head(status, reason, headers)
        for name, value in headers:
            lowered = name.lower()
            if lowered == b"content-length":
                head.length = int(value)
            elif lowered == b"transfer-encoding":
                head.chunked = value.lower().endswith(b"chunked")
        head.bodyless = self._request_is_head or status in NO_BODY
        self._head = head
        if self._request_is_head:  # llhttp does not know what was asked: it would wait for a body
            self.on_message_complete()

    def on_body(self, data: bytes) -> None:
        if not self._done:
            self._body.append(data)

    def on_message_complete(self) -> None:
        if self._head is not None and not self._done:
            self._done = True
            self._keeps = self._parser.should_keep_alive()  # asked later, llhttp would speak of the next message

    # ends

    def _finish(self, receiver: Receiver, head: Head | None, body: bytes) -> None:
        self._receiver = None
        if self._keeps and not self._extra and self.transport is not None and not self.transport.is_closing():
            self.used = True
            self._pool.give_back(self)
        else:
            self._close()
        receiver.received(head, body, True)

    def _fail(self, error: UpstreamError) -> None:
        receiver, self._receiver = self._receiver, None
        self._close()
        if receiver is not None:
            receiver.lost(error)

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class Upstream:
    """The engine's address and the idle connections to it, the latest used first."""

    def __init__(self, url: str, connect_timeout_s: float, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self.host, self.prefix = parts.hostname, parts.path.rstrip("/").encode()
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.url = url
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        self._connect_timeout_s = connect_timeout_s
        self._idle: deque[Connection] = deque()

    async def connection(self, *, fresh: bool = False) -> Connection:
        """A connection that is ready for a request: a warm one, unless `fresh`. Raises UpstreamError."""
        now = time.monotonic()
        while self._idle and not fresh:
            connection = self._idle.pop()
            if connection.transport is not None and not connection.transport.is_closing() and now - connection.idle_since < IDLE_LIMIT_S:
                return connection
            connection.abandon()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, made = await loop.create_connection(lambda: Connection(self), self.host, self.port, ssl=self._tls)
        except TimeoutError:
            raise UpstreamError("upstream_timeout", f"{self.url} did not accept a connection in {self._connect_timeout_s} s", 504) from None
        except OSError as error:
            raise UpstreamError("upstream_unreachable", f"cannot connect to {self.url}: {error.strerror or error}") from error
        return made

    def give_back(self, connection: Connection) -> None:
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        while self._idle and connection.idle_since - self._idle[0].idle_since >= IDLE_LIMIT_S:
            self._idle.popleft().abandon()

    def forget(self, connection: Connection) -> None:
        """It is gone: never hand it out again."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().abandon()
