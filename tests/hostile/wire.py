"""The requests and streams that the hostile tests send, and the waiting that they share."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from perjoule.bench.child import child
from perjoule.sidecar.http.downstream import AT_ONCE
from tests.fakes.sidecar import Running
from tests.fakes.upstream import sse

CHAT = "/v1/chat/completions"
INFER = b'{"model":"m","messages":[{"role":"user","content":"hello there"}]}'
STREAM = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hello there"}]}'
ASKED = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'

ID = '"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m"'
COUNTS = '"usage":{"prompt_tokens":9,"total_tokens":11,"completion_tokens":2},"system_fingerprint":"fp"'


def frame(content: str, finish: str = "null", extra: str = "", *, index: int = 0) -> str:
    """One frame of a chat stream, as vLLM writes it."""
    choice = f'{{"index":{index},"delta":{{"content":"{content}"}},"logprobs":null,"finish_reason":{finish}}}'
    return f'{{{ID},"choices":[{choice}]{extra}}}'


ROLE = f'{{{ID},"choices":[{{"index":0,"delta":{{"role":"assistant","content":""}},"logprobs":null,"finish_reason":null}}]}}'
ONE, TWO, LAST = frame("a"), frame("ü", '"stop"'), f'{{{ID},"choices":[],{COUNTS}}}'
WITH_USAGE = sse(ONE, TWO, LAST, "[DONE]")
WITHOUT_USAGE = sse(ONE, frame("ü", '"stop"', ',"system_fingerprint":"fp"'), "[DONE]")
COUNTED = b'{"id":"chatcmpl-1","model":"m","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}'


async def until(condition) -> None:
    """Wait for something that other tasks bring about."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def counting(front: Running) -> None:
    """Wait until the energy counter has begun to count."""
    await until(lambda: front.service.meter.balance.measured_uj > 0)


@asynccontextmanager
async def engine_of(handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """An engine that does with each connection what `handle` does, and closes it; yields its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await handle(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def rss_kb(pid: int | str = "self") -> int:
    """What a process holds in memory now, in KiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def reset_now(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    writer.transport.abort()


@asynccontextmanager
async def serving(engine: str, *flags: str, **how: Any) -> AsyncIterator[dict[str, Any]]:
    """`perjoule serve` as a process; yields what it says when it is ready, with its port."""
    off = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ledger", "off", "--calibrations", "off", "--engine", "vllm")
    async with child("perjoule.main", "serve", "--upstream", engine, "--energy", "simulated", *off, *flags, **how) as said:
        yield said | {"port": int(said["listen"].rpartition(":")[2])}
