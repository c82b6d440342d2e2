"""The engine of bench/soak.py: the prepared one of bench/relay.py that dies in mid-answer when a prompt asks it to.

It notes in a file of one byte a request how often each has reached it, by the number at the end of X-Request-Id; and like uvicorn,
and so vLLM, it closes a connection that was idle for five seconds, whether or not somebody is about to use it.

    python -m perjoule.bench.soak_engine --notes FILE [--port 8000]
"""

import argparse
import asyncio
import mmap
import re
import socket
import struct
import sys
from pathlib import Path

import uvloop

from perjoule.bench.relay_upstream import BEFORE, WISH, Engine, Wish, answer, serve

IDLE_S = 5.0
DEATH = re.compile(rb"!(\d+)!")
MOST_NOTED = 255
AT_ONCE = struct.pack("ii", 1, 0)  # struct linger: on, 0 s


def death(after: int) -> str:
    """What a prompt says beside its Wish for the engine to die after so many frames: with FIN if they are even, else with RST.
    After 0 it has not answered at all; an answer that is not streamed ends in the middle."""
    return f"!{after}!"


def open_notes(path: Path) -> mmap.mmap:
    """One byte a request, shared with whoever else opens the file. Raises OSError."""
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)


def reset(transport: asyncio.Transport) -> None:
    """End a connection with RST, and what was not sent yet with it."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    transport.abort()


class Mortal(Engine):
    """One connection, as Engine's, for as long as it lives."""

    def __init__(self, notes: mmap.mmap) -> None:
        super().__init__()
        self._notes = notes
        self._number: int | None = None
        self._served = 0
        self._dies_after: int | None = None

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-request-id":
            self._number = int(value.rpartition(b"-")[2])

    def on_message_complete(self) -> None:
        assert self._transport is not None
        if self._number is not None:
            self._notes[self._number] = min(self._notes[self._number] + 1, MOST_NOTED)
            self._number = None
        self._served += 1
        asyncio.get_running_loop().call_later(IDLE_S, self._close_if_idle, self._served)
        asked = DEATH.search(self._body)
        self._dies_after = int(asked[1]) if asked else None
        wish = WISH.search(self._body)
        if self._parser.get_method() == b"HEAD":
            self._transport.write(b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n")
        elif self._dies_after == 0:
            self._die()
        elif self._dies_after is not None and wish is not None and not (asked_for := Wish(*map(int, wish.groups()))).frames:
            whole = answer(asked_for.answer_bytes)
            self._die(whole[:-asked_for.answer_bytes // 2])
        else:
            super().on_message_complete()

    # ends

    def _next(self) -> None:
        if self._dies_after is not None and self._frames - self._left >= self._dies_after:
            self._left = 0
            self._die(BEFORE[:len(BEFORE) // 2])
        else:
            super()._next()

    def _die(self, last: bytes = b"") -> None:
        """Say the last words and close. Where these are followed by RST, they may be lost."""
        if self._transport is None:
            return
        self._transport.write(last)
        if self._dies_after is not None and self._dies_after % 2:
            reset(self._transport)
        else:
            self._transport.close()

    def _close_if_idle(self, served: int) -> None:
        if self._transport is not None and self._served == served and not self._left:
            self._transport.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notes", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    notes = open_notes(args.notes)
    uvloop.run(serve(args.port, lambda: Mortal(notes)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
