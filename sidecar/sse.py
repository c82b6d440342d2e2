"""Server-sent events cut out of a byte stream, with every byte kept (WHATWG HTML, 9.2 "Server-sent events").

An event ends with a blank line; a line ends with LF, CRLF or CR. Nothing is decoded: UTF-8 never contains these bytes
inside another character.
"""

import re

_LINE_END = rb"(?:\r\n|\n|\r(?!\n))"
_BLANK_LINE = re.compile(_LINE_END + _LINE_END)


class EventCutter:
    """Cuts a stream into whole events however it was chunked, in time linear in its length.

    An event longer than `limit` bytes sets `overflowed`; from then on pieces pass as they come, un-cut.
    """

    __slots__ = ("_limit", "_tail", "overflowed")

    def __init__(self, limit: int = 1 << 20) -> None:
        self._limit = limit
        self._tail = bytearray()
        self.overflowed = False

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are complete now, each with its blank line; a CR at the very end waits for a possible LF."""
        if not self._tail:
            if data.find(b"\n\n") == len(data) - 2 and b"\r" not in data and len(data) > 1:
                return [data]  # how engines write: one event a piece
            if self.overflowed:
                return [data] if data else []
        tail = self._tail
        position = max(0, len(tail) - 3)  # a blank line may have begun in what was here before
        tail += data
        events, start = [], 0
        while match := _BLANK_LINE.search(tail, position):
            position = match.end()
            if position == len(tail) and tail[-1] == 0x0D:
                break
            events.append(bytes(tail[start:position]))
            start = position
        del tail[:start]
        if len(tail) > self._limit:
            self.overflowed = True
            events.append(self.rest())
        return events

    def rest(self) -> bytes:
        """What came after the last whole event; it is forgotten here."""
        rest = bytes(self._tail)
        self._tail.clear()
        return rest


def data_of(event: bytes) -> bytes:
    """The value of an event's `data` fields, joined with LF; empty for a comment."""
    return b"\n".join(line[5:].removeprefix(b":").removeprefix(b" ") for line in event.splitlines()
                      if line.startswith(b"data:") or line == b"data")


def event_name(event: bytes) -> bytes:
    """The value of an event's last `event` field; empty where it has none, which means "message"."""
    names = [line[6:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"event:")]
    return names[-1] if names else b""
