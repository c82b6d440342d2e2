"""What a client sends, read as requests: bytes in, heads and pieces of bodies out, or the reason why they are none.

httptools parses, strictly; what it leaves to its user (limits, one Host, the end of HTTP at a change of protocols) is seen to here.
"""

import asyncio
from typing import Any, NamedTuple

import httptools

from perjoule.sidecar.http.heads import Fields, Names

FIELD_LIMIT = 64 * 1024  # bytes of a line; vLLM takes heads of 4 MiB, nginx 32 KiB in all, and tokens in cookies grow
FIELDS_LIMIT = 256
HEAD_LIMIT = 256 * 1024  # bytes of a head, of trailers or of a chunk's line, that have come without an end
BODY_LIMIT = 256 * 1024  # bytes of a body that wait for the handler; the client waits with the rest
VERSIONS = {"1.1": (1, 1), "1.0": (1, 0), "2.0": (2, 0), "0.9": (0, 9)}  # that llhttp reads


class HeadTooLargeError(Exception):
    """A line, or their number, exceeds what is taken."""


class Fault(NamedTuple):
    """Bytes that are no request, and what their sender is told, in its turn."""

    status: int
    text: str


class Body:
    """What follows a head. `length` is None where the client said none, `whole` is whether all of it has come."""

    __slots__ = ("_client", "_failed", "_pieces", "_size", "_waiter", "exists", "length", "whole")

    def __init__(self, client: "Inbound", length: int | None, exists: bool) -> None:
        """`client` is told to go on, or to wait until what has come is taken."""
        self._client, self.length, self.exists = client, length, exists
        self._pieces: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._failed = False
        self.whole = False

    async def some(self) -> bytes:
        """What has come since the last call, at least a byte; nothing at the end. Raises ConnectionError if that will never come."""
        while not self._pieces and not self.whole:
            if self._failed:
                raise ConnectionError("the rest of the body will not come")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.taken()

    def taken(self) -> bytes:
        """What has come since the last call."""
        pieces, self._pieces = self._pieces, []
        if self._size > BODY_LIMIT:
            self._client.listen(True)
        self._size = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def feed(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > BODY_LIMIT:
            self._client.listen(False)
        self._wake()

    def end(self) -> None:
        self.whole = True
        self._wake()

    def fail(self) -> None:
        self._failed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Inbound(asyncio.Protocol):
    """Reads requests. Whose connection it is says what is done with each (`begun`), and whether more is taken (`listen`)."""

    __slots__ = ("_before", "_behind", "_body", "_in_head", "_names", "_parser", "_read", "_shared", "_stalled", "_url", "_values")

    def __init__(self) -> None:
        self._parser: Any = httptools.HttpRequestParser(self)
        self._body: Body | None = None  # of the request whose end has not come
        self._before: Names | None = None  # of the last head
        self._in_head = False
        self._stalled = 0  # bytes of reads since the one that had the last of any use
        self._shared = 0  # bytes of that one: how many of them came after, nobody says
        self._read = 0  # bytes of the present one
        self._behind: bytes | None = None  # what came after a request to change the protocol; not parsed

    def listen(self, on: bool) -> None:
        """Whether to take bytes from the client."""
        raise NotImplementedError

    def begun(self, method: str, target: str, version: tuple[int, int], headers: Fields, keep_alive: bool, body: Body) -> None:
        """The head of a request is whole."""
        raise NotImplementedError

    def read(self, data: bytes) -> Fault | None:
        """Read what has come. Answers why that cannot be read, nor anything after it."""
        if self._behind is not None:
            self._behind += data
            if len(self._behind) > BODY_LIMIT:
                self.listen(False)
            return None
        self._read = len(data)
        self._stalled += self._read
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._behind = data[upgrade.args[0]:]
        except httptools.HttpParserError as error:
            return self._fault(error.__context__ or error)  # the former is what a callback below raised
        if self._stalled > HEAD_LIMIT and (self._in_head or self._body is not None):
            return self._fault(HeadTooLargeError())
        return None

    def read_behind(self) -> Fault | None:
        """The protocol was not changed: what came behind the request is HTTP after all."""
        behind, self._behind = self._behind or b"", None
        self._parser = httptools.HttpRequestParser(self)
        return self.read(behind)

    def end(self) -> None:
        """Nothing more will come."""
        self._parser = None  # which holds this
        if self._body is not None:
            self._body.fail()

    def _fault(self, reason: BaseException) -> Fault:
        self._in_head = False
        if self._body is not None:
            self._body.fail()
        if isinstance(reason, HeadTooLargeError):
            return Fault(431, f"the request's head exceeds {FIELD_LIMIT} bytes a line, {FIELDS_LIMIT} fields or {HEAD_LIMIT} bytes in all")
        return Fault(400, f"the request is not HTTP/1.1: {reason}")

    # httptools

    def on_message_begin(self) -> None:
        self._in_head = True
        self._url = b""
        self._names: list[bytes] = []
        self._values: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > FIELD_LIMIT:
            raise HeadTooLargeError

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._names) == FIELDS_LIMIT:
            raise HeadTooLargeError
        self._names.append(name)
        self._values.append(value)

    def on_headers_complete(self) -> None:
        parser, headers = self._parser, Fields(self._names, self._values, self._before)
        self._before = names = headers.names
        if self._stalled + self._shared > FIELD_LIMIT and any(len(b"".join(field)) > FIELD_LIMIT for field in headers):
            raise HeadTooLargeError
        keep_alive = parser.should_keep_alive()
        # Asked for the version, the parser writes a text. But a connection that nothing is said of is kept in HTTP/1.1 alone.
        version = VERSIONS[parser.get_http_version()] if names.connects or not keep_alive else (1, 1)
        if names.hosts > 1 or (names.hosts == 0 and version == (1, 1)):
            raise ValueError(f"got {names.hosts} Host fields, expected one")
        self._in_head = False
        self._stalled, self._shared = 0, self._read
        said = headers.first(b"content-length") if names.has_body else None
        length = None if said is None else int(said)
        self._body = body = Body(self, length, exists=bool(length) or b"transfer-encoding" in headers)
        self.begun(parser.get_method().decode(), self._url.decode(), version, headers, keep_alive, body)

    def on_body(self, data: bytes) -> None:
        self._stalled, self._shared = 0, self._read
        if self._body is not None:
            self._body.feed(data)

    def on_message_complete(self) -> None:
        self._stalled, self._shared = 0, self._read
        if self._body is not None:
            self._body.end()
            self._body = None
