"""aiohttp's server as the front: its strict parser, limits, keep-alive and TLS, with hooks on the client's transport.

The answer does not go through aiohttp: an exchange writes it to the transport as the engine's bytes arrive. What aiohttp gets
back from the handler is a `Relayed`, which has nothing left to write.
"""

import asyncio
import http
import socket
import struct
from typing import Any, Protocol

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

# aiohttp's defaults are 8 KiB a header; vLLM takes heads of 4 MiB, nginx 32 KiB in all, and tokens in cookies grow.
FIELD_LIMIT = 64 * 1024
AT_ONCE = struct.pack("ii", 1, 0)  # struct linger: on, 0 s


class Writer(Protocol):
    """Whoever writes to a client's transport and must hear how it fares."""

    def client_writable(self, writable: bool) -> None: ...
    def client_gone(self) -> None: ...


class Downstream(RequestHandler):
    """One client connection; the exchange that writes to it is told of backpressure and of its end, without a task between."""

    __slots__ = ("exchange",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.exchange: Writer | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.exchange is not None:
            self.exchange.client_writable(False)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.exchange is not None:
            self.exchange.client_writable(True)

    def connection_lost(self, exc: BaseException | None) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()
        super().connection_lost(exc)

    def reset(self) -> None:
        """End the connection so that it cannot be taken for the end of a body: with RST, not with FIN."""
        if self.transport is not None:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            self.transport.abort()

    def handle_error(self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None,
                     message: str | None = None) -> web.StreamResponse:
        """What aiohttp refuses (a malformed head, a head too large) is refused in the API's own error shape."""
        if status >= 500:
            self.log_exception("a request could not be handled", exc_info=exc)
        text = message or (str(exc) if status < 500 and exc is not None else http.HTTPStatus(status).phrase)
        response = web.Response(status=status, body=error_body(status, text), content_type="application/json")
        response.force_close()
        return response


class Front(web.Server):
    """Makes a Downstream for every client."""

    def __call__(self) -> RequestHandler:
        return Downstream(self, loop=self._loop, **self._kwargs)


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


def json_answer(status: int, body: bytes, *, keep_alive: bool = True) -> bytes:
    """A JSON body of the sidecar's own as a whole HTTP/1.1 answer."""
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    if not keep_alive:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body


def error_answer(status: int, message: str, kind: str = "", *, keep_alive: bool = True) -> bytes:
    """An error of the sidecar's own as a whole HTTP/1.1 answer."""
    return json_answer(status, error_body(status, message, kind), keep_alive=keep_alive)


def make_front(handler: Any) -> Front:
    """aiohttp's server over `handler`, transparent where aiohttp would rather help: no decompression, no access log."""
    return Front(handler, access_log=None, auto_decompress=False, max_line_size=FIELD_LIMIT, max_field_size=FIELD_LIMIT,
                 max_headers=256, keepalive_timeout=75.0, handler_cancellation=False, loop=asyncio.get_running_loop())
