"""Heads of requests and answers as they go on: everything end to end is kept, in order and with duplicates; hop-by-hop goes.

RFC 9110 section 7.6.1 names the hop-by-hop fields; whatever `Connection` nominates is one too.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

Pairs = Sequence[tuple[bytes, bytes]]


class Fields:
    """Header fields: `pairs`, in their order, and for who looks for one `named`, the values by lower-case name."""

    __slots__ = ("lowered", "named", "pairs")

    def __init__(self, pairs: Pairs = ()) -> None:
        self.pairs = list(pairs)  # which may grow: trailers come to the same list
        self.lowered: list[bytes] = []
        self.named: dict[bytes, list[bytes]] = {}
        for name, value in pairs:
            lower = name.lower()
            self.lowered.append(lower)
            if lower in self.named:
                self.named[lower].append(value)
            else:
                self.named[lower] = [value]

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.pairs)


Headers = Fields | Pairs


HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
                        b"trailer", b"transfer-encoding", b"upgrade"})
ALWAYS = frozenset({b"host"})  # what nobody may take from a request by nominating it: it would be malformed
NOTHING: frozenset[bytes] = frozenset()
LENGTH = frozenset({b"content-length"})
BODY = LENGTH | {b"expect"}  # what a request says of how its body is sent: this goes out whole
SERVED = ((1, 1), (1, 0))


class Framing(Enum):
    """How the client learns where a body ends."""

    LENGTH = "length"  # Content-Length
    CHUNKED = "chunked"  # chunks and a last one
    CLOSE = "close"  # the connection's end, all that HTTP/1.0 has for a stream
    NONE = "none"  # there is no body: HEAD, 204, 304


@dataclass(slots=True)
class Head:
    """The head of an answer, and the trailers once it has ended. `length` is None where the engine did not say one."""

    status: int
    reason: bytes
    headers: Headers
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    length: int | None = None
    chunked: bool = False
    bodyless: bool = False


def fault(method: str, version: tuple[int, int], coding: bytes | None, expectation: bytes | None) -> tuple[int, str] | None:
    """Why a request that parsed cannot go on: a status and a text, None if it can. `coding` is its Transfer-Encoding, `expectation` its
    Expect.

    Framing that an older or a laxer parser may read differently (RFC 9112 section 6.1), a coding that would be lost with its hop,
    an expectation that nobody would meet (RFC 9110 section 10.1.1), a tunnel to anywhere (section 9.3.6).
    """
    if version not in SERVED:
        return 505, "got HTTP/{}.{}, expected HTTP/1.1 or HTTP/1.0".format(*version)
    if method == "CONNECT":
        return 501, "CONNECT is not served: requests go to one engine and nowhere else"
    if coding is not None and (version < (1, 1) or coding.lower() != b"chunked"):
        return 400, f"Transfer-Encoding: got {coding.decode('latin-1')!r} in HTTP/{version[0]}.{version[1]}, expected 'chunked' in HTTP/1.1"
    if expectation is not None and version >= (1, 1) and expectation.lower() != b"100-continue":
        return 417, f"Expect: got {expectation.decode('latin-1')!r}, expected '100-continue'"
    return None


def first(headers: Headers, name: bytes) -> bytes | None:
    """The value of the first field of that (lower-case) name."""
    return values[0] if (values := _all(headers, name)) else None


def tokens(headers: Headers, name: bytes) -> set[bytes]:
    """The comma-separated, case-insensitive members of every field of that name."""
    return {part.strip().lower() for value in _all(headers, name) for part in value.split(b",") if part.strip()}


def _all(headers: Headers, name: bytes) -> Sequence[bytes]:
    if isinstance(headers, Fields):
        return headers.named.get(name, ())
    return [value for key, value in headers if key.lower() == name]


def end_to_end(headers: Headers, drop: frozenset[bytes] = NOTHING) -> Pairs:
    """The fields that may travel on."""
    fields = headers if isinstance(headers, Fields) else Fields(headers)
    if b"connection" in fields.named:
        drop = drop | tokens(fields, b"connection") - ALWAYS
    if HOP_BY_HOP.isdisjoint(fields.named) and drop.isdisjoint(fields.named):
        return fields.pairs
    pairs = fields.pairs
    return [pairs[place] for place, name in enumerate(fields.lowered) if name not in drop and name not in HOP_BY_HOP]


def request_head(method: str, target: bytes, headers: Headers, body_length: int, *, drop: frozenset[bytes] = NOTHING,
                 add: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """The head of the request to the engine. The body goes out whole, so it has a length whatever framing it came in."""
    had_body = first(headers, b"content-length") is not None or first(headers, b"transfer-encoding") is not None
    lines = [b"%s %s HTTP/1.1" % (method.encode(), target)]
    lines += [b": ".join(field) for field in end_to_end(headers, drop | BODY)]
    if had_body or body_length:
        lines.append(b"Content-Length: %d" % body_length)
    lines += [b": ".join(field) for field in add]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def switching_head(head: Head) -> bytes:
    """The head of an answer that changes the protocol of this connection, as it came but for what else was hop by hop."""
    kept = {b"upgrade"} | {name.lower() for name, _ in end_to_end(head.headers)}
    lines = [b"HTTP/1.1 %d %s" % (head.status, head.reason)]
    for name, value in head.headers:
        if name.lower() == b"connection":
            lines.append(b"%s: Upgrade" % name)
        elif name.lower() in kept:
            lines.append(b"%s: %s" % (name, value))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def answer_head(status: int, reason: bytes, headers: Headers, framing: Framing, *, length: int | None = None, keep_alive: bool = True,
                add: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """The head of the answer to the client; `length` replaces the engine's where the body was edited."""
    drop = NOTHING if framing in (Framing.LENGTH, Framing.NONE) and length is None else LENGTH
    lines = [b"HTTP/1.1 %d %s" % (status, reason)]
    lines += [b": ".join(field) for field in end_to_end(headers, drop)]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    elif framing is Framing.CHUNKED:
        lines.append(b"Transfer-Encoding: chunked")
    lines += [b": ".join(field) for field in add]
    if not keep_alive:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; nothing for nothing, since an empty chunk would end it."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


_OPENINGS = {len(whole): whole[:-n - 2] for n in range(1, 1024) if (whole := chunk(bytes(n)))}  # by the length of the whole chunk


def chunk_opening(data: bytes) -> int:
    """How long the line is with which `data`, one whole chunk, begins; 0 if it is none, a long one, or one that is written otherwise."""
    opening = _OPENINGS.get(len(data), b"")
    return len(opening) if opening and data.startswith(opening) and data.endswith(b"\r\n") else 0


def last_chunk(trailers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """The end of a chunked body."""
    return b"0\r\n" + b"".join(b"%s: %s\r\n" % field for field in trailers) + b"\r\n"
