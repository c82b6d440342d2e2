"""A golden server: answers of known tokens at known times, as engines frame them, with every fault that a client must tell apart.

A body says what it wants under `golden` (`Script`); one without gets what the flags say, and as many tokens as its `max_tokens`. Every
chunk with content carries the instant of its write, and the server keeps these, and the arrival of each request:
`GET /golden/log` is a line of JSON for each since the last look.

    python -m perjoule.bench.load.golden [--port 0] [--tokens 16] [--gap-ms 10] [--first-ms 0]
"""

import argparse
import asyncio
import json
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import httptools
import orjson
import uvloop

from perjoule.sidecar.dialects.endpoints import endpoint_of

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n%b\r\n"
LETTERS = "é€𝄞"  # of two, three and four bytes


@dataclass(frozen=True, slots=True)
class Script:
    """What one answer is: `tokens` in chunks of `per_chunk`, the first after `first_ms`, one chunk every `gap_ms`.

    `role_first`: a chunk with a role and no content comes at once (chat only). `empty_each`: an empty chunk before every content chunk.
    `splits_utf8`: texts are of several bytes a letter, and each chunk is two writes, cut inside a letter. `burst`: so many chunks are one
    write. `stall_at`: before this chunk it waits `stall_ms` more. `status`: other than 200, it is an error. `resets_at` and `cuts_at`:
    before this chunk the connection is reset, or closed. `without_end`: the body ends well, but no last event comes. `fails_at`: an
    error event is the last. `without_usage`: no counts. `hangs`: the head, and nothing more."""

    tokens: int = 16
    per_chunk: int = 1
    input_tokens: int = 16
    cached_tokens: int | None = None
    first_ms: float = 0.0
    gap_ms: float = 10.0
    role_first: bool = True
    empty_each: bool = False
    splits_utf8: bool = False
    burst: int = 1
    stall_at: int | None = None
    stall_ms: float = 0.0
    status: int = 200
    resets_at: int | None = None
    cuts_at: int | None = None
    fails_at: int | None = None
    without_end: bool = False
    without_usage: bool = False
    hangs: bool = False

    @property
    def chunks(self) -> int:
        return -(-self.tokens // self.per_chunk)


@dataclass(slots=True)
class Answered:
    """What was done with one request: when it came whole, when each chunk with content was written, and how it ended. Times are of this
    machine's monotonic clock; `left` is that the client hung up."""

    request_id: str
    arrived_ns: int
    sent_ns: list[int]
    tokens: int = 0
    ended: str = "left"


class Golden(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, script: Script, log: list[Answered]) -> None:
        self._default, self._log = script, log
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._script = script
        self._answered: Answered | None = None
        self._now_ns = self._number = 0
        self._due_s = 0.0
        self._is_chat = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end("left")

    def data_received(self, data: bytes) -> None:
        self._now_ns = time.monotonic_ns()
        self._parser.feed_data(data)

    # httptools

    def on_url(self, url: bytes) -> None:
        self._path, self._body, self._id, self._arrived_ns = url, b"", "", self._now_ns

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-request-id":
            self._id = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        assert self._transport is not None
        if self._parser.get_method() == b"GET":
            self._transport.write(_whole(self._page()))
            return
        if endpoint_of("POST", self._path.decode("latin-1")) is None:
            self._transport.write(_whole({"error": {"message": "Not Found", "type": "golden"}}, 404))
            return
        asked = orjson.loads(self._body)
        tokens = asked.get("max_completion_tokens") or asked.get("max_tokens") or self._default.tokens
        script = self._script = replace(self._default, **{"tokens": tokens, **asked.get("golden", {})})
        self._is_chat = b"chat" in self._path
        self._answered = Answered(self._id, self._arrived_ns, [])
        self._log.append(self._answered)
        self._asks_usage = (asked.get("stream_options") or {}).get("include_usage") and not script.without_usage
        self._number = 0
        self._due_s = asyncio.get_running_loop().time() + script.first_ms / 1000
        if script.status != 200:
            self._transport.write(_whole({"error": {"message": "as asked", "type": "golden"}}, script.status))
            self._end("refused")
        elif not asked.get("stream"):
            self._at(self._due_s, self._answer_whole)
        else:
            self._transport.write(HEAD % (b"x-energy-record: /energy/g-%b\r\n" % self._id.encode()) + self._opening())
            if not script.hangs:
                self._at(self._due_s, self._next)

    def _page(self) -> Any:
        if self._path != b"/golden/log":
            return {"object": "list", "data": [{"id": "golden", "object": "model"}]}
        said, self._log[:] = [asdict(one) for one in self._log], []
        return said

    # an answer

    def _at(self, when_s: float, what: Any) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(when_s, what) if when_s > loop.time() else cast(asyncio.TimerHandle, loop.call_soon(what))

    def _answer_whole(self) -> None:
        if self._transport is not None and self._answered is not None:
            self._answered.sent_ns.append(time.monotonic_ns())
            self._answered.tokens = self._script.tokens
            usage = {} if self._script.without_usage else {"usage": self._usage()}
            self._transport.write(_whole({"object": "golden", "data": [], **usage}))
            self._end("whole")

    def _opening(self) -> bytes:
        return self._event({"role": "assistant", "content": ""}) if self._is_chat and self._script.role_first else b""

    def _next(self) -> None:
        """Write what is due, and see to what comes then."""
        script, answered = self._script, self._answered
        if self._transport is None or answered is None:
            return None
        self._flush()
        for _ in range(script.burst):
            number = self._number
            if script.resets_at == number:
                _reset(self._transport)
                return self._end("reset")
            if script.cuts_at == number:
                self._transport.close()
                return self._end("cut")
            if script.fails_at == number:
                self._transport.write(_chunk(b'data: {"error":{"message":"as asked","type":"golden"}}\n\n') + b"0\r\n\r\n")
                return self._end("failed")
            self._write_tokens(answered)
            if self._number == script.chunks:
                return self._finish()
        wait_ms = script.gap_ms * script.burst + (script.stall_ms if script.stall_at == self._number else 0.0)
        self._due_s += wait_ms / 1000
        return self._at(self._due_s, self._next)

    def _write_tokens(self, answered: Answered) -> None:
        assert self._transport is not None
        script = self._script
        now_ns = time.monotonic_ns()
        tokens = min(script.per_chunk, script.tokens - answered.tokens)
        answered.tokens += tokens
        self._flush()
        self._number += 1
        answered.sent_ns.append(now_ns)
        text = f"{LETTERS}t{now_ns:019}" if script.splits_utf8 else f"t{now_ns:019}"
        data = (self._event({"content": ""}) if script.empty_each else b"") + self._event({"content": text})
        if script.splits_utf8:
            cut = data.index(LETTERS.encode()) + 3  # inside the euro sign
            self._transport.write(data[:cut])
            self._rest = data[cut:]
            asyncio.get_running_loop().call_soon(self._flush)
        else:
            self._transport.write(data)

    def _flush(self) -> None:
        """The second part of a chunk that was cut; before anything else is written, however late that is."""
        rest, self._rest = self._rest, b""
        if rest and self._transport is not None:
            self._transport.write(rest)

    def _finish(self) -> None:
        self._flush()
        end = b""
        if not self._script.without_end:
            end = self._event({}, "stop")
            if self._asks_usage:
                end += _chunk(b"data: " + orjson.dumps({"id": "g", "object": "chunk", "choices": [], "usage": self._usage()}) + b"\n\n")
            end += _chunk(b"data: [DONE]\n\n")
        if self._transport is not None:
            self._transport.write(end + b"0\r\n\r\n")
        self._end("whole")

    def _end(self, how: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._answered is not None:
            self._answered.ended, self._answered = how, None

    def _usage(self) -> dict[str, Any]:
        script = self._script
        cached = {} if script.cached_tokens is None else {"prompt_tokens_details": {"cached_tokens": script.cached_tokens}}
        return {"prompt_tokens": script.input_tokens, "completion_tokens": script.tokens,
                "total_tokens": script.input_tokens + script.tokens, **cached}

    def _event(self, delta: dict[str, str], finish: str | None = None) -> bytes:
        if self._is_chat:
            choice: dict[str, Any] = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return _event("chat.completion.chunk", choice)
        if finish is not None:  # vLLM has it in the last chunk with text
            return b""
        choice = {"index": 0, "text": delta["content"], "logprobs": None, "finish_reason": None}
        return _event("text_completion", choice)


def _event(kind: str, choice: dict[str, Any]) -> bytes:
    return _chunk(b"data: " + orjson.dumps({"id": "g", "object": kind, "choices": [choice], "usage": None}) + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _whole(page: Any, status: int = 200) -> bytes:
    body = orjson.dumps(page)
    return b"HTTP/1.1 %d Golden\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


def _reset(transport: asyncio.Transport) -> None:
    """End with RST, not with FIN."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def serve(port: int, script: Script) -> None:
    """Answer until the process is told to end; prints where, as JSON."""
    log: list[Answered] = []
    server = await asyncio.get_running_loop().create_server(lambda: Golden(script, log), "127.0.0.1", port, backlog=4096)
    print(json.dumps({"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}), flush=True)
    await server.serve_forever()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    for name in ("tokens", "per_chunk", "gap_ms", "first_ms"):
        parser.add_argument("--" + name.replace("_", "-"), type=type(getattr(Script(), name)), default=getattr(Script(), name))
    args = parser.parse_args()
    uvloop.run(serve(args.port, Script(args.tokens, args.per_chunk, first_ms=args.first_ms, gap_ms=args.gap_ms)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
