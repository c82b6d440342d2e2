"""The clients of bench/soak.py: many requests drawn from a seed, well-behaved and not, and for each a byte that says what came of it.

    python -m perjoule.bench.soak_clients --port 9000 --seed 1 --requests 0-1000 --streams 1000-1200 --notes FILE
"""

import argparse
import asyncio
import mmap
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import httptools
import uvloop

from perjoule.bench.soak_engine import open_notes, reset
from perjoule.bench.soak_turns import Requests, Saw, Streams, Turn

PATIENCE_S = 60.0  # an answer that has not come by then does not come
SMALL_BUFFER = 4096  # bytes that the kernel may keep for a slow reader


class Client(asyncio.Protocol):
    """One connection, on which one turn after the other is taken."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: asyncio.Future[None] | None = None
        self._body = bytearray()
        self._spoilt = False  # something has come that is no answer, or was not asked for
        self._stays = True

    async def take(self, turn: Turn) -> list[Saw]:
        """Send it, and see what comes: what is noted of each of its requests. Raises TimeoutError."""
        assert self._transport is not None
        self._turn, self._parser, self._got = turn, httptools.HttpResponseParser(self), 0
        self._saw: list[Saw] = []
        self._body.clear()
        self._done = asyncio.get_running_loop().create_future()
        if turn.slow:
            self._transport.pause_reading()
        self._transport.write(turn.send)
        if turn.half_closes:
            self._transport.write_eof()
        if turn.pause_s is not None:
            await asyncio.sleep(turn.pause_s)
        if turn.pause_s is None or turn.waits:
            if turn.slow and self._transport is not None:
                self._transport.resume_reading()
            async with asyncio.timeout(PATIENCE_S):
                await self._done
        saw = self._saw + [turn.otherwise] * (len(turn.answers) - len(self._saw))
        return [Saw.WRONG] * len(saw) if self._spoilt or Saw.WRONG in saw else saw

    def leave(self, *, with_reset: bool = False) -> None:
        """Hang up."""
        if self._transport is not None:
            reset(self._transport) if with_reset else self._transport.close()

    @property
    def stays(self) -> bool:
        """Whether another turn can be taken here."""
        return self._stays and not self._spoilt and self._transport is not None and not self._transport.is_closing()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end()

    def data_received(self, data: bytes) -> None:
        if self._done is None or self._done.done():
            self._spoilt = True
            return
        self._got += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._spoilt = True
            self._end()
        if self._got >= self._turn.leaves_after_bytes or (self._turn.leaves_when_done and self._body.endswith(b"data: [DONE]\n\n")):
            self._end()

    # httptools

    def on_headers_complete(self) -> None:
        if self._turn.is_head:
            self.on_message_complete()

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or len(self._saw) == len(self._turn.answers):
            return
        self._saw.append(self._turn.answers[len(self._saw)](status, bytes(self._body)))
        self._body.clear()
        if len(self._saw) == len(self._turn.answers):
            self._stays = self._parser.should_keep_alive()
            self._end()

    def _end(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)


async def connect(port: int, *, slow: bool) -> Client:
    """A client that is connected. Raises OSError."""
    loop = asyncio.get_running_loop()
    if not slow:
        _, client = await loop.create_connection(Client, "127.0.0.1", port)
        return client
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    narrow.setblocking(False)
    await loop.sock_connect(narrow, ("127.0.0.1", port))
    _, client = await loop.create_connection(Client, sock=narrow)
    return client


async def lane(turns: Iterator[Turn], port: int, notes: mmap.mmap) -> None:
    """One turn after the other, on a connection that is kept as long as it can be. Raises OSError."""
    client: Client | None = None
    for turn in turns:  # which several lanes share
        if client is None or turn.alone or not client.stays:
            if client is not None:
                client.leave()
            client = await connect(port, slow=turn.slow)
        try:
            saw = await client.take(turn)
        except TimeoutError:
            saw = [Saw.WRONG] * len(turn.numbers)
            client.leave(with_reset=True)
        for number, each in zip(turn.numbers, saw, strict=False):
            notes[number] = each
        if turn.alone:
            client.leave(with_reset=turn.resets)
            client = None
    if client is not None:
        client.leave()


async def play(args: argparse.Namespace) -> None:
    """All of it: requests and streams side by side. Raises OSError."""
    notes = open_notes(args.notes)
    async with asyncio.TaskGroup() as group:
        for kinds, numbers in ((Requests, args.requests), (Streams, args.streams)):
            turns = iter(kinds(args.seed, args.port, numbers))
            for _ in range(args.concurrency):
                group.create_task(lane(turns, args.port, notes))


def numbers(text: str) -> range:
    """`3-5` as 3 and 4."""
    first, _, behind = text.partition("-")
    return range(int(first), int(behind))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked: dict[str, Callable[[str], object]] = {"port": int, "seed": int, "requests": numbers, "streams": numbers, "notes": Path}
    for name, kind in asked.items():
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--concurrency", type=int, default=64, help="requests at a time, and streams at a time beside them")
    uvloop.run(play(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
