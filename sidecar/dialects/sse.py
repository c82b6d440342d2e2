"""Server-sent events cut out of a byte stream, with every byte kept (WHATWG HTML, 9.2 "Server-sent events").

An event ends with a blank line; a line ends with LF, CRLF or CR. Nothing is decoded: UTF-8 never contains these bytes
inside another character. A byte order mark is not looked for: no engine sends one.
"""

import re
from typing import Final

_LF: Final = 0x0A
_CR: Final = 0x0D
_BLANK_LINE = re.compile(rb"(?:\n|\r\n?+)(?:\n|\r\n?+)")


def is_event(data: bytes) -> bool:
    """Whether `data` is exactly one event, if it begins one; its lines end with LF."""
    end, first = len(data) - 2, data.find(_LF)  # an integer is the fastest thing to look for
    return data.endswith(b"\n\n") and _CR not in data and (first == end or data.find(b"\n\n", first) == end)


class EventCutter:
    """Cuts a stream into whole events however it was chunked, in time linear in its length.

    An event longer than `limit` bytes sets `overflowed`: nothing more is cut, and what comes is only in `rest`.
    """

    __slots__ = ("_has_cr", "_limit", "_tail", "overflowed")

    def __init__(self, limit: int = 1 << 20) -> None:
        self._limit = limit
        self._tail = bytearray()
        self._has_cr = False
        self.overflowed = False

    def is_whole(self, data: bytes) -> bool:
        """Whether `data` is exactly one event and nothing waits before it, which is how engines write."""
        return not self._tail and is_event(data) and len(data) <= self._limit

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits: what comes next begins an event."""
        return not self._tail

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are complete now, each with its blank line; a CR at the very end waits for a possible LF."""
        if self.is_whole(data):
            return [data]
        tail = self._tail
        position = max(0, len(tail) - 3)  # a blank line may have begun in what was here before
        tail += data
        if self.overflowed:
            return []
        self._has_cr = self._has_cr or _CR in data
        events, start = [], 0
        while start < (position := self._event_end(position)) <= start + self._limit:
            events.append(bytes(tail[start:position]))
            start = position
        del tail[:start]
        if len(tail) > self._limit:
            self.overflowed, self._limit = True, 0
        return events

    def _event_end(self, position: int) -> int:
        """Where the next blank line from `position` ends; 0 where none has come whole."""
        if not self._has_cr:
            at = self._tail.find(b"\n\n", position)
            return at + 2 if at >= 0 else 0
        match = _BLANK_LINE.search(self._tail, position)
        if match is None or (match.end() == len(self._tail) and self._tail.endswith(b"\r")):
            return 0
        return match.end()

    def rest(self) -> bytes:
        """What came after the last whole event; it is forgotten here."""
        rest = bytes(self._tail)
        self._tail.clear()
        return rest


def data_of(event: bytes) -> bytes:
    """The value of an event's `data` fields, joined with LF; empty for a comment."""
    return b"\n".join(line[5:].removeprefix(b" ") for line in event.splitlines()
                      if line.startswith(b"data:") or line == b"data")
