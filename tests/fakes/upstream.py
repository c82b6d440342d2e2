"""An engine made of bytes: a real socket that reads one request at a time and answers with what it was told to."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from perjoule.sidecar.http.downstream import AT_ONCE

CUT = "FIN"  # in a script: close the connection here
RESET = "RST"  # in a script: reset it
PAUSE = 0.0  # in a script: let the other side read what has been sent


def sse(*datas: str) -> bytes:
    """Server-sent events as vLLM frames them."""
    return b"".join(f"data: {data}\n\n".encode() for data in datas)


def chunked(*pieces: bytes) -> bytes:
    """The pieces as chunks, with the last one."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def answer(body: bytes, *fields: str, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    """A whole answer with a length."""
    lines = [f"HTTP/1.1 {status}", f"content-type: {content_type}", f"content-length: {len(body)}", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def stream_head(*fields: str) -> bytes:
    """The head of a stream, as uvicorn sends it."""
    lines = ["HTTP/1.1 200 OK", "content-type: text/event-stream; charset=utf-8", "transfer-encoding: chunked", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@dataclass
class ScriptedEngine:
    """`scripts[i]` answers the i-th request, the last one all further ones: bytes to send, a pause in seconds, CUT or RESET."""

    scripts: Sequence[Sequence[bytes | float | str]]
    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)  # a client closed its connection while we were sending

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
                self.requests.append(head + await reader.readexactly(length))
                for step in self.scripts[min(len(self.requests), len(self.scripts)) - 1]:
                    if isinstance(step, str):
                        if step is RESET:
                            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                            writer.transport.abort()
                        return
                    if isinstance(step, float):
                        watch = asyncio.ensure_future(reader.read(1))
                        done, _ = await asyncio.wait([watch], timeout=step)
                        watch.cancel()
                        await asyncio.gather(watch, return_exceptions=True)
                        if done:
                            self.closed.set()
                            return
                    else:
                        if writer.is_closing():
                            raise ConnectionResetError
                        writer.write(step)
                        await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            self.closed.set()
        finally:
            writer.close()


@asynccontextmanager
async def scripted(*scripts: Sequence[bytes | float | str]) -> AsyncIterator[ScriptedEngine]:
    """A ScriptedEngine that listens on a port of its own."""
    engine = ScriptedEngine(scripts)
    server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    engine.port = server.sockets[0].getsockname()[1]
    async with server:
        yield engine
