"""aiohttp's server as the front: its strict parser, limits, keep-alive and TLS, with hooks on the client's transport.

The answer does not go through aiohttp: an exchange writes it to the transport as the engine's bytes arrive. What aiohttp gets
back from the handler is a `Relayed`, which has nothing left to write.
"""

import asyncio
import fcntl
import http
import resource
import socket
import struct
import sys
import termios
from collections.abc import Iterable
from typing import Any, Protocol

import orjson
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler, _ErrInfo

# aiohttp's defaults are 8 KiB a header; vLLM takes heads of 4 MiB, nginx 32 KiB in all, and tokens in cookies grow.
FIELD_LIMIT = 64 * 1024
FIELDS_LIMIT = 256  # as vLLM's
MOST_FILES = 1_048_576  # Linux allows no more, unless fs.nr_open was raised
OTHER_FILES = 64  # the ledger, the collector, the operator's port, the driver
AT_ONCE = struct.pack("ii", 1, 0)  # struct linger: on, 0 s


class Writer(Protocol):
    """Whoever writes to a client's transport and must hear how it fares."""

    def client_writable(self, writable: bool) -> None: ...
    def client_gone(self) -> None: ...


def reset(transport: asyncio.Transport) -> None:
    """End a connection with RST, and what was not sent yet with it."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    transport.abort()


class Downstream(RequestHandler):
    """One client connection; the exchange that writes to it is told of backpressure and of its end, without a task between."""

    __slots__ = ("_front", "_head_timer", "exchange")

    def __init__(self, front: "Front", **kwargs: Any) -> None:
        super().__init__(front, **kwargs)
        self._front = front
        self._head_timer: asyncio.TimerHandle | None = None
        self.exchange: Writer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._front.connected += 1
        if self._front.connected > self._front.most_connections:
            self._close_with(503, f"{self._front.most_connections} clients are connected, which is all there is room for")

    def data_received(self, data: bytes) -> None:
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._stop_head_timer()
            self._check_body()
        elif self._head_timer is None and self._waits_for_a_head:  # and it has begun
            self._head_timer = self._loop.call_later(self._front.slow_sender_s, self._head_too_slow)

    def _check_body(self) -> None:
        """If the body that is being read turned out to be malformed, its reader must hear of it; aiohttp only refuses what follows."""
        if self._current_request is not None and isinstance(self._messages[-1][0], _ErrInfo):
            body = self._current_request.content
            if not body.is_eof():
                body.set_exception(ConnectionError("the rest of the body is malformed"))
                body.feed_eof()

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if self._waits_for_a_head:
            self._close_with(408, f"the request's head was not whole after {self._front.slow_sender_s:g} s (--slow-sender-s)")

    @property
    def _waits_for_a_head(self) -> bool:
        """Whether nothing is being served, nor about to be."""
        return self._waiter is not None and not self._waiter.done()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close_with(self, status: int, text: str) -> None:
        if self.transport is not None:
            self.transport.write(error_answer(status, text, keep_alive=False))
        self.force_close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.exchange is not None:
            self.exchange.client_writable(False)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.exchange is not None:
            self.exchange.client_writable(True)

    @property
    def at_upgrade(self) -> bool:
        """Whether the parser has stopped behind this request: if the upgrade is granted, what follows is not HTTP any more."""
        return self._upgraded and not self._messages

    def hand_over(self, to: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """Another protocol takes the connection, and what has come behind the request; it tells this one of its end."""
        assert self.transport is not None
        behind, self._message_tail = self._message_tail, b""
        self.transport.set_protocol(to)
        return self.transport, behind

    def connection_lost(self, exc: BaseException | None) -> None:
        self._front.connected -= 1
        self._stop_head_timer()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()
        super().connection_lost(exc)

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

    def handle_error(self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None,
                     message: str | None = None) -> Any:
        """What aiohttp refuses (a malformed head, a head too large) is refused in the API's own error shape, as HTTP/1.1."""
        text = http.HTTPStatus(status).phrase
        if status >= 500:
            self.log_exception("a request could not be handled", exc_info=exc)
        elif isinstance(exc, LineTooLong) or message == "Too many headers received":
            status, text = 431, f"the request's head exceeds {FIELD_LIMIT} bytes a line or {FIELDS_LIMIT} fields"
        elif message:
            text = message.partition("\n")[0].rstrip(":")  # behind it aiohttp quotes the request, which may hold a key
        if self.transport is not None:
            self.transport.write(error_answer(status, text, keep_alive=False))
        return Relayed(keep_alive=False)


class Front(web.Server):
    """Makes a Downstream for every client, as long as there is room; `slow_sender_s` is what a head may take."""

    def __init__(self, handler: Any, *, slow_sender_s: float, most_connections: int, **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self.slow_sender_s, self.most_connections, self.connected = slow_sender_s, most_connections, 0

    def __call__(self) -> RequestHandler:
        return Downstream(self, loop=self._loop, **self._kwargs)


def room_for_connections() -> int:
    """How many clients' connections this process may have: half of the files it may open, since each may need one to the engine.
    The soft limit is raised as far as it goes: it is low for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(1, (most - OTHER_FILES) // 2)


class Relayed:
    """An answer that has been written already; says only whether the connection may serve another request."""

    __slots__ = ("keep_alive",)

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Before the next request is served the client must have room again: who asks and never reads is not served ahead."""
        await request.protocol._drain_helper()

    async def write_eof(self) -> None:
        return None


def error_body(status: int, message: str, kind: str = "") -> bytes:
    """An error of the sidecar's own, in OpenAI's shape; `type` says that it was not the engine who spoke."""
    return orjson.dumps({"error": {"message": message, "type": kind or "perjoule_error", "param": None, "code": status}})


def json_answer(status: int, body: bytes, fields: Iterable[tuple[str, str]] = (), *, keep_alive: bool = True) -> bytes:
    """A JSON body of the sidecar's own as a whole HTTP/1.1 answer, with these fields beside."""
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", "Content-Type: application/json", f"Content-Length: {len(body)}",
             *(f"{name}: {value}" for name, value in fields)]
    if not keep_alive:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body


def error_answer(status: int, message: str, kind: str = "", fields: Iterable[tuple[str, str]] = (), *, keep_alive: bool = True) -> bytes:
    """An error of the sidecar's own as a whole HTTP/1.1 answer."""
    return json_answer(status, error_body(status, message, kind), fields, keep_alive=keep_alive)


def make_front(handler: Any, *, slow_sender_s: float = 30.0, max_connections: int = 0) -> Front:
    """aiohttp's server over `handler`, transparent where aiohttp would rather help: no decompression, no access log.
    Without a number of connections there is room for as many as the process may have open."""
    return Front(handler, slow_sender_s=slow_sender_s, most_connections=max_connections or room_for_connections(), access_log=None,
                 auto_decompress=False, max_line_size=FIELD_LIMIT, max_field_size=FIELD_LIMIT, max_headers=FIELDS_LIMIT,
                 keepalive_timeout=75.0, handler_cancellation=False, loop=asyncio.get_running_loop())
