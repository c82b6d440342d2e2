"""Server-sent events by the letter of WHATWG HTML 9.2.6: the whole stream at hand, a byte at a time into lines, a line at a time.

Three departures, which are the sidecar's own: a byte order mark is not looked for (no engine sends one), a CR that is the very last
byte has not ended its line yet (an LF may follow), and the blank line that ends an event is kept as its last.
"""

from dataclasses import dataclass

LF, CR = b"\n", b"\r"


@dataclass(frozen=True)
class Cut:
    """A stream in events, each with every byte it came with; `rest` came after the last of them, `overflowed` says why nothing more
    was cut: an event was longer than the limit."""

    events: list[bytes]
    rest: bytes
    overflowed: bool


def lines(stream: bytes) -> list[tuple[bytes, bytes]]:
    """Each line and what ended it; nothing where the stream ended first."""
    found, line, at = [], b"", 0
    while at < len(stream):
        byte, next_byte = stream[at:at + 1], stream[at + 1:at + 2]
        end = b""
        if byte == CR and next_byte == LF:
            end = CR + LF
        elif byte == LF or (byte == CR and next_byte):
            end = byte
        if end:
            found.append((line, end))
            line = b""
        else:
            line += byte
        at += len(end) or 1
    return [*found, (line, b"")]


def cut(stream: bytes, limit: int = 1 << 20) -> Cut:
    """The events of a stream. A blank line ends one, unless it is its first line: then it ended nothing."""
    events, lines_of_event = [], []
    for line, end in lines(stream):
        lines_of_event.append(line + end)
        if not line and end and len(lines_of_event) > 1:
            event = b"".join(lines_of_event)
            if len(event) > limit:
                break
            events.append(event)
            lines_of_event = []
    rest = stream[sum(map(len, events)):]
    return Cut(events, rest, len(rest) > limit)


def data(event: bytes) -> bytes:
    """What a browser would hand on as `event.data`."""
    buffer = b""
    for line, _ in lines(event + LF if not event.endswith(LF) else event):
        if line.startswith(b":"):
            continue
        name, _, value = line.partition(b":")
        if name == b"data":
            buffer += value.removeprefix(b" ") + LF
    return buffer.removesuffix(LF)
