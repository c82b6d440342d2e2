"""The engine behind every relay of bench/relay.py: it computes nothing and answers prepared bytes, framed as vLLM frames them.

The prompt says what to answer (`Wish`): so many frames, so far apart, or a body of so many bytes. Every frame carries the time at
which it was written, so that whoever reads it knows how long it was on its way.

    python -m perjoule.bench.relay_upstream [--port 8000]
"""

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from typing import NamedTuple, cast

import httptools
import uvloop

MODEL = "m"
CREATED = 1_760_000_000
STAMP = re.compile(rb'"content":"t(\d{19})')  # of a frame with a token, whoever relays it
STAMP_BYTES = len(b'"content":"t') + 19
LOOK_BYTES = 4096  # of a body: within so many is the wish


class Wish(NamedTuple):
    """What a prompt asks for: `frames` tokens, each `gap_ms` after the one before, or with none of them a body with so much text."""

    frames: int
    gap_ms: int = 0
    answer_bytes: int = 0

    def __str__(self) -> str:
        return f"@{self.frames}/{self.gap_ms}/{self.answer_bytes}@"


WISH = re.compile(rb"@(\d+)/(\d+)/(\d+)@")


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(choices: bytes, more: bytes = b"") -> bytes:
    """One server-sent event, with the fields of vLLM's chat.completion.chunk in their order."""
    return (b'data: {"id":"chatcmpl-8a4c2f1e9b7d4f6a8c3e5b7d9f1a2c4e","object":"chat.completion.chunk","created":%d,"model":"%b",'
            b'"choices":[%b]%b}\n\n' % (CREATED, MODEL.encode(), choices, more))


def token(stamp: bytes) -> bytes:
    """The frame of one token."""
    return chunk(event(b'{"index":0,"delta":{"content":"t%b"},"logprobs":null,"finish_reason":null}' % stamp))


def usage(tokens: int) -> bytes:
    return b'"usage":{"prompt_tokens":16,"total_tokens":%d,"completion_tokens":%d}' % (16 + tokens, tokens)


BEFORE, AFTER = token(b"0" * 19).split(b"0" * 19)
OPENING = (b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
           + chunk(event(b'{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}')))
LAST = chunk(event(b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}'))
DONE = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
PAGES = {b"/v1/models": {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "vllm", "root": MODEL}]},
         b"/version": {"version": "0.25.1"}}


def whole(body: bytes, status: str = "200 OK") -> bytes:
    """An answer with a length."""
    head = f"HTTP/1.1 {status}\r\nserver: uvicorn\r\ncontent-length: {len(body)}\r\ncontent-type: application/json\r\n\r\n"
    return head.encode() + body


class Engine(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""
        self._body = b""
        self._left = self._frames = self._gap_ms = 0
        self._due_s = 0.0
        self._waits = self._asks_usage = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    # httptools

    def on_url(self, url: bytes) -> None:
        self._path, self._body = url, b""

    def on_body(self, body: bytes) -> None:
        if len(self._body) < LOOK_BYTES:
            self._body += body[:LOOK_BYTES]

    def on_message_complete(self) -> None:
        assert self._transport is not None
        found = WISH.search(self._body)
        if found is None:
            page = PAGES.get(self._path)
            self._transport.write(whole(json.dumps(page).encode()) if page else whole(b'{"detail":"Not Found"}', "404 Not Found"))
            return
        wish = Wish(*map(int, found.groups()))
        if not wish.frames:
            self._transport.write(answer(wish.answer_bytes))
            return
        self._left = self._frames = wish.frames
        self._gap_ms = wish.gap_ms
        self._asks_usage = b'"include_usage":true' in self._body.replace(b" ", b"")
        self._transport.write(OPENING)
        self._due_s = asyncio.get_running_loop().time()
        self._next()

    # a stream

    def pause_writing(self) -> None:
        self._waits = True

    def resume_writing(self) -> None:
        self._waits = False
        if self._left:
            self._next()

    def _next(self) -> None:
        """Write a frame, and see to the next one."""
        if self._transport is None or self._waits or not self._left:
            return
        self._transport.write(b"%b%019d%b" % (BEFORE, time.monotonic_ns(), AFTER))
        self._left -= 1
        loop = asyncio.get_running_loop()
        if not self._left:
            closing = chunk(event(b"", b"," + usage(self._frames))) if self._asks_usage else b""
            self._transport.write(LAST + closing + DONE)
        elif self._gap_ms:
            self._due_s += self._gap_ms / 1000
            loop.call_at(self._due_s, self._next)
        else:
            loop.call_soon(self._next)


def answer(size: int) -> bytes:
    """An answer that is not streamed, with a text of so many bytes; made once for each size."""
    if size not in _answers:
        _answers[size] = whole(
            b'{"id":"chatcmpl-8a4c2f1e9b7d4f6a","object":"chat.completion","created":%d,"model":"%b","choices":[{"index":0,"message":'
            b'{"role":"assistant","content":"%b"},"logprobs":null,"finish_reason":"stop"}],%b}'
            % (CREATED, MODEL.encode(), b"x" * size, usage(size // 4)))
    return _answers[size]


_answers: dict[int, bytes] = {}


async def serve(port: int, engine: Callable[[], Engine] = Engine) -> None:
    """Answer until the process is told to end; prints where, as JSON. Several may share a port (SO_REUSEPORT)."""
    server = await asyncio.get_running_loop().create_server(engine, "127.0.0.1", port, backlog=4096, reuse_port=True)
    print(json.dumps({"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}), flush=True)
    await server.serve_forever()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    uvloop.run(serve(parser.parse_args().port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
