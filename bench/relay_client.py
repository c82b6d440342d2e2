"""A client of bench/relay.py's load: one connection that sends a chat completion again and again and times what comes back."""

import asyncio
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import httptools
import orjson

from perjoule.bench.relay_upstream import MODEL, STAMP, STAMP_BYTES, Wish

PATH = "/v1/chat/completions"


def chat(port: int, wish: Wish, body_bytes: int) -> bytes:
    """A whole request for a chat completion, whose body has so many bytes."""
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": str(wish)}], "max_tokens": wish.frames or 256}
    if wish.frames:
        body["stream"] = True
    body["messages"][0]["content"] += "x" * (body_bytes - len(orjson.dumps(body)))
    data = orjson.dumps(body)
    lines = [f"POST {PATH} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Content-Type: application/json", "Accept: */*",
             "Authorization: Bearer sk-of-the-bench", "User-Agent: perjoule-bench", f"Content-Length: {len(data)}", "", ""]
    return "\r\n".join(lines).encode() + data


def _times() -> "array[int]":
    return array("q")


@dataclass(slots=True)
class Tally:
    """What the connections of a job have seen so far."""

    request: bytes
    frames_each: int
    again: Callable[[], bool]
    frames: int = 0
    begun: int = 0
    requests: int = 0  # that were answered whole, with status 200
    failed: int = 0
    lost: int = 0  # frames of answers that ended as if they were whole
    first_ns: "array[int]" = field(default_factory=_times)  # request to first token
    gap_ns: "array[int]" = field(default_factory=_times)  # token to token
    way_ns: "array[int]" = field(default_factory=_times)  # engine to client
    answer_ns: "array[int]" = field(default_factory=_times)  # request to the end of its answer


class Client(asyncio.Protocol):
    """One connection; sends the tally's request, and again for as long as it is told to. `done` is set when it has ended."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._parser = httptools.HttpResponseParser(self)
        self._carry = b""
        self._frames = self._sent_ns = self._now_ns = self._last_ns = 0
        self.transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if not self.done.done():
            self._tally.failed += 1
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._now_ns = time.monotonic_ns()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self.transport is not None:
                self.transport.abort()

    # httptools

    def on_body(self, body: bytes) -> None:
        tally, now_ns = self._tally, self._now_ns
        if not tally.frames_each:
            return
        text = self._carry + body
        self._carry = text[1 - STAMP_BYTES:]
        stamps = STAMP.findall(text)
        if not stamps:
            return
        if not self._frames:
            tally.begun += 1
            tally.first_ns.append(now_ns - self._sent_ns)
        else:
            tally.gap_ns.append(now_ns - self._last_ns)
        self._last_ns = now_ns
        self._frames += len(stamps)
        tally.frames += len(stamps)
        tally.way_ns.append(now_ns - int(stamps[0]))

    def on_message_complete(self) -> None:
        tally = self._tally
        status = self._parser.get_status_code()
        if status < 200:
            return
        if status != 200:
            tally.failed += 1
        else:
            tally.requests += 1
            tally.answer_ns.append(self._now_ns - self._sent_ns)
            tally.lost += tally.frames_each - self._frames
        if status == 200 and tally.again() and self._parser.should_keep_alive():
            self._send()
        elif not self.done.done():
            self.done.set_result(None)

    def hang_up(self) -> None:
        """Close the connection; what it was in the middle of is over."""
        self.done.cancel()
        if self.transport is not None:
            self.transport.close()

    def _send(self) -> None:
        assert self.transport is not None
        self._frames, self._carry = 0, b""
        self._sent_ns = time.monotonic_ns()
        self.transport.write(self._tally.request)
