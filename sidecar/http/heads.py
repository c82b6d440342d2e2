"""Heads of requests and answers as they go on: everything end to end is kept, in order and with duplicates; hop-by-hop goes.

RFC 9110 section 7.6.1 names the hop-by-hop fields; whatever `Connection` nominates is one too.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

Pairs = Sequence[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
                        b"trailer", b"transfer-encoding", b"upgrade"})
ALWAYS = frozenset({b"host"})  # what nobody may take from a request by nominating it: it would be malformed
NOTHING: frozenset[bytes] = frozenset()
LENGTH = frozenset({b"content-length"})
BODY = LENGTH | {b"expect"}  # what a request says of how its body is sent: this goes out whole
SERVED = ((1, 1), (1, 0))
END = b"\r\n\r\n"
LAST_END = b"\r\nConnection: close\r\n\r\n"
MOST_REMEMBERED = 128  # kinds of heads: one for each kind of client, and of what it asks
REMEMBERED_BYTES = 512  # of a head's names: clients choose them


class Names:
    """The names of a head's fields, and what follows from them alone."""

    __slots__ = ("end_to_end", "lowered", "openings", "places", "unframed")

    def __init__(self, names: Sequence[bytes]) -> None:
        self.lowered = [name.lower() for name in names]
        self.openings = [b"\r\n%b: " % name for name in names]  # of their lines: all before the value
        self.end_to_end = [place for place, name in enumerate(self.lowered) if name not in HOP_BY_HOP]
        self.unframed = [place for place in self.end_to_end if self.lowered[place] not in BODY]
        self.places: dict[bytes, list[int]] = {}  # of each lower-case name
        for place, name in enumerate(self.lowered):
            self.places.setdefault(name, []).append(place)


def _names_of(pairs: list[tuple[bytes, bytes]]) -> Names:
    """Worked out once for all heads with the same names, as nearly all of one client are, and of one engine."""
    spelled = [name for name, _ in pairs]
    together = b":".join(spelled)  # which no name holds: it is where the parser ends one
    names = _REMEMBERED.get(together)
    if names is None:
        names = Names(spelled)
        if len(together) <= REMEMBERED_BYTES:
            if len(_REMEMBERED) == MOST_REMEMBERED:
                _REMEMBERED.clear()
            _REMEMBERED[together] = names
    return names


_REMEMBERED: dict[bytes, Names] = {}


class Fields:
    """Header fields: `pairs`, in their order, and for who looks for one, the values by lower-case name."""

    __slots__ = ("names", "pairs")

    def __init__(self, pairs: Pairs = ()) -> None:
        self.pairs = list(pairs)  # which may grow: trailers come to the same list
        self.names = _names_of(self.pairs)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.pairs)

    def __contains__(self, name: bytes) -> bool:
        return name in self.names.places

    def first(self, name: bytes) -> bytes | None:
        """The value of the first field of that name."""
        places = self.names.places.get(name)
        return None if places is None else self.pairs[places[0]][1]

    def all(self, name: bytes) -> list[bytes]:
        """The values of all of them."""
        places = self.names.places.get(name)
        return [] if places is None else [self.pairs[place][1] for place in places]

    def going_on(self, drop: frozenset[bytes], *, unframed: bool = False) -> list[int]:
        """The places of those that may travel on; `unframed`: without those that say how a request's body is sent."""
        names = self.names
        if b"connection" in names.places and not HOP_BY_HOP.issuperset(nominated := tokens(self, b"connection")):
            drop = drop | nominated - ALWAYS
        places, lowered = names.unframed if unframed else names.end_to_end, names.lowered
        return [place for place in places if lowered[place] not in drop] if drop else places


Headers = Fields | Pairs


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
    return _fields(headers).first(name)


def tokens(headers: Headers, name: bytes) -> set[bytes] | frozenset[bytes]:
    """The comma-separated, case-insensitive members of every field of that name."""
    values = _fields(headers).all(name)
    return {token for value in values for part in value.split(b",") if (token := part.strip().lower())} if values else NOTHING


def _fields(headers: Headers) -> Fields:
    return headers if isinstance(headers, Fields) else Fields(headers)


def end_to_end(headers: Headers, drop: frozenset[bytes] = NOTHING) -> Pairs:
    """The fields that may travel on."""
    fields = _fields(headers)
    pairs = fields.pairs
    return [pairs[place] for place in fields.going_on(drop)]


def request_head(method: str, target: bytes, headers: Headers, body_length: int, *, drop: frozenset[bytes] = NOTHING,
                 add: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """The head of the request to the engine. The body goes out whole, so it has a length whatever framing it came in."""
    fields = _fields(headers)
    had_body = b"content-length" in fields or b"transfer-encoding" in fields
    framing = b"\r\nContent-Length: %d" % body_length if had_body or body_length else b""
    return _head(b"%b %b HTTP/1.1" % (method.encode(), target), fields, fields.going_on(drop, unframed=True), framing, add, END)


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
    fields = _fields(headers)
    drop = NOTHING if length is None and (framing is Framing.LENGTH or framing is Framing.NONE) else LENGTH
    framed = b""
    if length is not None:
        framed = b"\r\nContent-Length: %d" % length
    elif framing is Framing.CHUNKED:
        framed = b"\r\nTransfer-Encoding: chunked"
    return _head(b"HTTP/1.1 %d %b" % (status, reason), fields, fields.going_on(drop), framed, add, END if keep_alive else LAST_END)


def _head(first_line: bytes, fields: Fields, places: list[int], framing: bytes, add: Iterable[tuple[bytes, bytes]], end: bytes) -> bytes:
    """A head with the fields that have these places, and others. Each line begins with the end of the one before."""
    openings, pairs = fields.names.openings, fields.pairs
    lines = [openings[place] + pairs[place][1] for place in places]
    lines.append(framing)
    for name, value in add:
        lines.append(b"\r\n%b: %b" % (name, value))
    lines.append(end)
    return first_line + b"".join(lines)


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
