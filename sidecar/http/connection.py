"""One connection to the engine: httptools parses, and whole reads are handed on at once.

No task is woken and no object made for a piece: `data_received` ends in one call of the exchange, which writes to the client.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Protocol, cast

import httptools

from perjoule.sidecar.http.heads import Fields, Head, Names, chunk_opening, tokens

HEAD_LIMIT = 256 * 1024  # bytes of an answer's head; nginx's buffers hold 32 KiB
COPIED = 64 * 1024  # bytes: a longer body is not copied, to stand behind its head
NO_BODY = frozenset({204, 304})
FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class UpstreamError(Exception):
    """The engine could not be reached, or broke off; `status` is what to answer where nothing has been answered yet."""

    def __init__(self, kind: str, text: str, status: int = 502) -> None:
        super().__init__(text)
        self.kind, self.status = kind, status


class Receiver(Protocol):
    """What a connection hands an answer to. After `received(..., ended=True)` or `lost(...)` nothing more comes."""

    def received(self, head: Head | None, body: bytes, ended: bool) -> None: ...
    def passed(self, body: bytes, chunk: bytes) -> bool: ...  # a piece and its chunk: whether that was all
    def lost(self, error: UpstreamError) -> None: ...
    def interim(self, head: Head) -> None: ...


class Pool(Protocol):
    """Whose connections these are."""

    def give_back(self, connection: "Connection") -> None: ...
    def forget(self, connection: "Connection") -> None: ...


Switch = Callable[["Connection", Head, bytes], bool]
"""Takes a connection over on which the engine has switched protocols (101), with its first bytes; False if it must not have."""


class Connection(asyncio.Protocol):
    """One connection; it serves one exchange at a time and goes back to its pool after a clean end."""

    __slots__ = ("_answered", "_before", "_between", "_body", "_done", "_eof", "_extra", "_head", "_head_size", "_keeps", "_names",
                 "_parser", "_pool", "_receiver", "_request_is_head", "_status_line", "_switch", "_switched", "_values", "idle_since",
                 "transport", "used")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._receiver: Receiver | None = None
        self.transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._head: Head | None = None
        self._before: Names | None = None  # of the last head
        self._names: list[bytes] = []  # of the fields of a head that is not whole yet
        self._values: list[bytes] = []
        self._body: list[bytes] = []  # what of it has come in this read
        self._answered = self._eof = False
        self.idle_since = 0.0
        self.used = False  # an answer has come over it before: it may have gone stale in the meantime

    @property
    def answered(self) -> bool:
        """Whether a byte of the answer to the present request has come."""
        return self._answered

    def begin(self, receiver: Receiver, head: bytes, body: bytes = b"", *, is_head: bool, switch: Switch | None = None) -> None:
        """Send one request; its answer goes to `receiver`, and to `switch` if it is the change of protocols that was asked for."""
        assert self.transport is not None
        self._switch = switch
        self._switched: Head | None = None
        self._receiver, self._request_is_head = receiver, is_head
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self._head = None
        self._answered = self._between = self._done = self._extra = self._keeps = False
        self._head_size = 0
        self._status_line = b""
        if len(body) > COPIED:
            self.transport.writelines((head, body))
        else:
            self.transport.write(head + body)

    def abandon(self) -> None:
        """Close at once and tell nobody: the engine notices by the closed socket, and stops."""
        self._receiver = None
        if self.transport is not None:
            self.transport.abort()

    def hand_over(self, to: asyncio.Protocol) -> asyncio.Transport:
        """Another protocol takes the connection; it tells this one of its end, by `connection_lost`."""
        assert self.transport is not None
        self._receiver = None
        self.transport.set_protocol(to)
        return self.transport

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
        opening = chunk_opening(data)
        if self._between and opening and receiver.passed(data[opening:-2], data):
            return  # the parser is between two chunks, and need not see this one
        head_before = self._head
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._done:
                head = self._switched
                if head is None or self._switch is None or not self._switch(self, head, data[upgrade.args[0]:]):
                    self._fail(UpstreamError("upstream_protocol", "the engine switched protocols, which was not asked for"))
                return
        except httptools.HttpParserError as error:
            if not self._done:
                reason = error.__context__ or error  # what a callback below raised
                self._fail(UpstreamError("upstream_protocol", f"the engine's answer is not HTTP/1.1: {reason}"))
                return
            self._extra = True  # bytes after the end: the answer is whole, the connection is not
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        self._between = opening > 0 and len(body) == len(data) - opening - 2
        head = self._head if head_before is None else None
        if self._done:
            self._extra = self._extra or (self._request_is_head and not data.endswith(b"\r\n\r\n"))
            self._finish(receiver, head, body)
        elif head is not None or body:
            self._head_size = 0
            receiver.received(head, body, False)
        else:
            self._head_size += len(data)
            if self._head_size > HEAD_LIMIT:
                what = "a head" if self._head is None else "trailers, or the head of a chunk,"
                self._fail(UpstreamError("upstream_protocol", f"the engine's answer has {what} that exceeds {HEAD_LIMIT} bytes"))

    def eof_received(self) -> None:
        """The engine ended the connection itself; under TLS, with a close_notify. The transport closes by itself."""
        self._eof = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._parser = None  # which holds this
        self._pool.forget(self)
        receiver = self._receiver
        if receiver is None:
            return
        head = self._head
        if self._eof and exc is None and head is not None and head.length is None and not head.chunked:
            self._receiver = None
            receiver.received(None, b"", True)  # a body without a length ends with its connection (RFC 9112 6.3)
            return
        what = "before it answered" if not self._answered else "in the middle of its answer"
        self._receiver = None
        kind = "upstream_tls" if isinstance(exc, ssl.SSLError) else "upstream_closed"  # TLS 1.3 refuses our certificate as late as here
        receiver.lost(UpstreamError(kind, f"the engine closed the connection {what}" + (f" ({exc})" if exc else "")))

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
        self._names.append(name)
        self._values.append(value)

    def on_headers_complete(self) -> None:
        if self._done:
            return
        status = self._parser.get_status_code()
        fields = Fields(self._names, self._values, self._before)
        self._before, self._names, self._values = fields.names, [], []
        reason, self._status_line = self._status_line, b""
        if status < 100 or (103 < status < 200 and not FRAMING.isdisjoint(fields.names.places)):
            raise ValueError(f"status {status:03} with a body")  # llhttp would read one, and it would stand before the final answer's
        if status < 200:  # an interim answer; the final one follows, if it is not the last word of HTTP
            interim = Head(status, reason, fields)
            self._switched = interim if status == 101 else None
            if status > 101 and self._receiver is not None:  # 100 is nothing to relay: nothing was expected of the engine
                self._receiver.interim(interim)
            return
        head = Head(status, reason, fields)
        if (length := fields.first(b"content-length")) is not None:
            head.length = int(length)
        if codings := fields.all(b"transfer-encoding"):
            coding, version = b", ".join(codings), self._parser.get_http_version()
            if coding.strip().lower() != b"chunked" or version != "1.1":  # its end, or its text, would be a guess
                raise ValueError(f"Transfer-Encoding {coding.decode('latin-1')!r} in HTTP/{version}, expected one `chunked` in HTTP/1.1")
            head.chunked = True
        head.bodyless = self._request_is_head or status in NO_BODY
        self._head = head
        if self._request_is_head:  # llhttp does not know what was asked: it would wait for a body
            self.on_message_complete()

    def on_body(self, data: bytes) -> None:
        if self._done:
            self._extra = True
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        if self._head is not None and self._done:  # the answer to HEAD ends twice: when its head does, and when its body would have
            self._extra = self._extra or self._head.chunked
        elif self._head is not None:
            self._done = True
            # Asked later, llhttp would speak of the next message; in HTTP/1.0 it goes by `keep-alive` where both are said.
            self._keeps = self._parser.should_keep_alive() and b"close" not in tokens(self._head.headers, b"connection")

    # ends

    def _finish(self, receiver: Receiver, head: Head | None, body: bytes) -> None:
        self._receiver = None
        if self._keeps and not self._extra and self.transport is not None and not self.transport.is_closing():
            self.used = True
            if self._request_is_head:
                self._parser = None  # it waits for a body
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
