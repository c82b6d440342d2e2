"""Heads of requests and answers as they go on: everything end to end is kept, in order and with duplicates; hop-by-hop goes.

RFC 9110 section 7.6.1 names the hop-by-hop fields; whatever `Connection` nominates is one too.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from perjoule.sidecar.http.remembered import remember

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

    __slots__ = ("_without", "connects", "end_to_end", "has_body", "hosts", "lowered", "openings", "places", "spelled", "unframed")

    def __init__(self, spelled: Sequence[bytes]) -> None:
        self.spelled = list(spelled)
        self.lowered = [name.lower() for name in spelled]
        self.openings = [opening(name) for name in spelled]
        self.end_to_end = [place for place, name in enumerate(self.lowered) if name not in HOP_BY_HOP]
        self.unframed = [place for place in self.end_to_end if self.lowered[place] not in BODY]
        self.places: dict[bytes, list[int]] = {}  # of each lower-case name
        for place, name in enumerate(self.lowered):
            self.places.setdefault(name, []).append(place)
        self.connects = b"connection" in self.places or b"proxy-connection" in self.places  # which llhttp takes for the same
        self.hosts = self.lowered.count(b"host")
        self.has_body = b"content-length" in self.places or b"transfer-encoding" in self.places
        self._without: dict[tuple[bytes, ...], list[int]] = {}

    def unframed_without(self, drop: tuple[bytes, ...]) -> list[int]:
        """Those of `unframed` that have other names than these; remembered, since what the sidecar drops is nearly always the same."""
        places = self._without.get(drop)
        if places is None:
            places = self._without[drop] = [place for place in self.unframed if self.lowered[place] not in drop]
        return places


def opening(name: bytes) -> bytes:
    """Of a field's line, all before the value: each line begins with the end of the one before."""
    return b"\r\n%b: " % name


def line(name: bytes, value: bytes) -> bytes:
    """A field as it stands in a head."""
    return b"\r\n%b: %b" % (name, value)


def _names_of(spelled: list[bytes], before: Names | None) -> Names:
    """Worked out once for all heads with the same names, as nearly all of one client are, and of one engine; and looked for among others
    only where the head before it on its connection had other names."""
    if before is not None and before.spelled == spelled:
        return before
    together = b":".join(spelled)  # which no name holds: it is where the parser ends one
    names = _REMEMBERED.get(together)
    if names is None:
        names = Names(spelled)
        remember(_REMEMBERED, together, names, most=MOST_REMEMBERED, longest=REMEMBERED_BYTES)
    return names


_REMEMBERED: dict[bytes, Names] = {}


class Fields:
    """Header fields in their order: their names, their `values`, and for who looks for one, the values by lower-case name."""

    __slots__ = ("names", "values")

    def __init__(self, spelled: list[bytes], values: list[bytes], before: Names | None = None) -> None:
        """`values` may grow: trailers come to the same list. `before` are the names of a head that this one may well be like."""
        self.names, self.values = _names_of(spelled, before), values

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter([(name, self.values[place]) for place, name in enumerate(self.names.spelled)])

    def __contains__(self, name: bytes) -> bool:
        return name in self.names.places

    def first(self, name: bytes) -> bytes | None:
        """The value of the first field of that name."""
        places = self.names.places.get(name)
        return None if places is None else self.values[places[0]]

    def all(self, name: bytes) -> list[bytes]:
        """The values of all of them."""
        places = self.names.places.get(name)
        return [] if places is None else [self.values[place] for place in places]

    def nominated(self) -> set[bytes] | frozenset[bytes]:
        """What `Connection` says is for this hop only, beside what always is."""
        if not self.names.connects:
            return NOTHING
        named = tokens(self, b"connection")
        return NOTHING if HOP_BY_HOP.issuperset(named) else named - ALWAYS

    def end_to_end(self, drop: frozenset[bytes]) -> list[int]:
        """The places of those that may travel on."""
        drop, places = drop | nominated if (nominated := self.nominated()) else drop, self.names.end_to_end
        return [place for place in places if self.names.lowered[place] not in drop] if drop else places

    def lines(self, places: list[int]) -> list[bytes]:
        """The lines of the fields that have these places."""
        openings, values = self.names.openings, self.values
        return [openings[place] + values[place] for place in places]


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
    fields = _fields(headers)
    if name not in fields.names.places:
        return NOTHING
    return {token for value in fields.all(name) for part in value.split(b",") if (token := part.strip().lower())}


def fields_of(pairs: Pairs) -> Fields:
    """The same of fields that are not split yet."""
    return Fields([name for name, _ in pairs], [value for _, value in pairs])


def _fields(headers: Headers) -> Fields:
    return headers if isinstance(headers, Fields) else fields_of(headers)


def end_to_end(headers: Headers, drop: frozenset[bytes] = NOTHING) -> Pairs:
    """The fields that may travel on."""
    fields = _fields(headers)
    return [(fields.names.spelled[place], fields.values[place]) for place in fields.end_to_end(drop)]


def request_head(method: str, target: bytes, headers: Headers, body_length: int, *, drop: Sequence[bytes] = (),
                 add: Sequence[bytes] = ()) -> bytes:
    """The head of the request to the engine, with these lines added. The body goes out whole, so it has a length whatever framing it came
    in."""
    fields = _fields(headers)
    names, dropped = fields.names, tuple(drop)
    if nominated := fields.nominated():
        gone = nominated.union(dropped)
        places = [place for place in names.unframed if names.lowered[place] not in gone]
    else:
        places = names.unframed_without(dropped)
    lines = fields.lines(places)
    if names.has_body or body_length:
        lines.append(b"\r\nContent-Length: %d" % body_length)
    lines += add
    lines.append(END)
    return b"%b %b HTTP/1.1" % (method.encode(), target) + b"".join(lines)


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
                add: Sequence[bytes] = ()) -> bytes:
    """The head of the answer to the client, with these lines added; `length` replaces the engine's where the body was edited."""
    fields = _fields(headers)
    drop = NOTHING if length is None and (framing is Framing.LENGTH or framing is Framing.NONE) else LENGTH
    lines = fields.lines(fields.end_to_end(drop))
    if length is not None:
        lines.append(b"\r\nContent-Length: %d" % length)
    elif framing is Framing.CHUNKED:
        lines.append(b"\r\nTransfer-Encoding: chunked")
    lines += add
    lines.append(END if keep_alive else LAST_END)
    return b"HTTP/1.1 %d %b" % (status, reason) + b"".join(lines)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; nothing for nothing, since an empty chunk would end it."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


_OPENINGS = {len(whole): whole[:-n - 2] for n in range(1, 1024) if (whole := chunk(bytes(n)))}  # by the length of the whole chunk


def chunk_opening(data: bytes) -> int:
    """How long the line is with which `data`, one whole chunk, begins; 0 if it is none, a long one, or one that is written otherwise."""
    opening = _OPENINGS.get(len(data), b"")
    return len(opening) if opening and data.startswith(opening) and data.endswith(b"\r\n") else 0


def last_chunk(trailers: Iterable[bytes] = ()) -> bytes:
    """The end of a chunked body, with these lines."""
    return b"0" + b"".join(trailers) + END
