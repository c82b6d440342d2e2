"""What must hold of any answer of an engine, and of what a client gets of it."""

import asyncio
from collections.abc import Sequence
from itertools import product

import orjson

from perjoule.sidecar.dialects.inband import energy_object
from perjoule.sidecar.http.connection import Connection, UpstreamError
from perjoule.sidecar.http.heads import HOP_BY_HOP, Head
from perjoule.sidecar.http.upstream import Upstream
from perjoule.sidecar.record import Charge, Status
from perjoule.sidecar.relay.answer import Additions, Answer
from tests.fuzz.properties.streams import cuttings
from tests.fuzz.references import editing, http1

CHARGE = Charge(Status.MEASURED, "token-share", "nvml", settled=True, energy_uj=1_500_000)
DURATION_NS, RECORD = 10**9, "/energy/r"
EARLIER = (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\na: b\r\n\r\n",
           b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", b"HTTP/1.1 204 No Content\r\n\r\n")


class _Wire(asyncio.Transport):
    """A transport that only knows whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    def write(self, data: object) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


class _Inbox:
    """A Receiver that keeps what it was handed, and holds the connection to its word: one head first, one end last."""

    def __init__(self) -> None:
        self.interims: list[Head] = []
        self.head: Head | None = None
        self.body = b""
        self.error: UpstreamError | None = None
        self.over = False

    def received(self, head: Head | None, body: bytes, ended: bool) -> None:
        assert not self.over
        assert (head is None) == (self.head is not None)
        self.head, self.body, self.over = self.head or head, self.body + body, ended

    def passed(self, body: bytes, chunk: bytes) -> bool:
        """Takes every chunk that it is offered, so that whatever follows shows whether the parser missed any of it."""
        assert self.head is not None
        self.received(None, body, False)
        return True

    def interim(self, head: Head) -> None:
        assert 101 < head.status < 200
        assert self.head is None
        assert not self.over
        self.interims.append(head)

    def lost(self, error: UpstreamError) -> None:
        assert not self.over
        self.error, self.over = error, True

    @property
    def outcome(self) -> str:
        if self.error is None:
            return "clean"
        return {"upstream_closed": "cut", "upstream_protocol": "protocol"}[self.error.kind]


def _received(cutting: Sequence[bytes], *, is_head: bool, reset: bool, earlier: Sequence[bytes] = ()) -> tuple[_Inbox, bool]:
    """What a connection hands on of these reads and its end, after `earlier` answers; and whether it may serve another request."""
    upstream = Upstream("http://127.0.0.1:1", 1.0)
    connection, wire, inbox = Connection(upstream), _Wire(), _Inbox()
    connection.connection_made(wire)
    for answer in earlier:
        connection.begin(_Inbox(), b"GET / HTTP/1.1\r\n\r\n", is_head=False)
        connection.data_received(answer)
        assert upstream.warm() is connection
    connection.begin(inbox, b"GET / HTTP/1.1\r\n\r\n", is_head=is_head)
    for read in cutting:
        if read and not wire.closed:
            connection.data_received(read)
    is_kept = connection in upstream._idle and not wire.closed
    if not reset and not wire.closed:
        connection.eof_received()
    connection.connection_lost(ConnectionResetError() if reset else None)
    assert inbox.over
    assert connection not in upstream._idle
    return inbox, is_kept


def answer_is_read(raw: bytes, sizes: Sequence[int], *, is_head: bool, reset: bool) -> None:
    """The connection reads what RFC 9112 says is there, and keeps no connection that could bring a part of it as the next answer."""
    expected = http1.read(raw, is_head=is_head, reset=reset)
    for earlier, cutting in product(((), EARLIER), cuttings(raw, sizes)):
        inbox, is_kept = _received(cutting, is_head=is_head, reset=reset, earlier=earlier)
        assert not (is_kept and expected.spent)
        if expected.outcome == "cut" or expected.doubtful:  # what has come of its last line may be wrong already
            assert inbox.outcome in (expected.outcome, "protocol")
        else:
            assert inbox.outcome == expected.outcome
        interims = [(head.status, _stripped(head.headers)) for head in inbox.interims]
        assert interims == [(status, _stripped(fields)) for status, fields in expected.interims][:len(interims)]
        if inbox.head is not None:
            assert len(interims) == len(expected.interims)
            assert (inbox.head.status, inbox.head.reason) == (expected.status, expected.reason)
            assert _stripped(inbox.head.headers) == _stripped(expected.fields)
        if inbox.outcome == "clean":
            assert inbox.head is not None
            assert (inbox.body, _stripped(inbox.head.trailers)) == (expected.body, _stripped(expected.trailers))
            assert is_kept or expected.spent or is_head or len(cutting) > 1
        else:
            assert expected.body.startswith(inbox.body)


def _stripped(fields: http1.Fields) -> http1.Fields:
    return [(name, value.strip(b" \t")) for name, value in fields]


class _Client:
    """A Receiver that does as the exchange does: pieces through Answer to a client, and a cut where the engine was lost."""

    def __init__(self, additions: Additions, *, http11: bool) -> None:
        self.answer = Answer(additions, lambda: (CHARGE, DURATION_NS, None), RECORD, http11=http11, keep_alive=True)
        self.got, self.over, self.is_cut = b"", False, False

    def received(self, head: Head | None, body: bytes, ended: bool) -> None:
        self.got += self.answer.open(head) if head is not None else b""
        self.got += self.answer.feed(body)
        if ended:
            self.got, self.over = self.got + self.answer.close(), True

    def passed(self, body: bytes, chunk: bytes) -> bool:
        return False

    def interim(self, head: Head) -> None: ...

    def lost(self, error: UpstreamError) -> None:
        if self.got:
            self.got += self.answer.abandon()
        self.over = self.is_cut = True


def answer_goes_on(raw: bytes, sizes: Sequence[int], additions: Additions, *, http11: bool, is_head: bool) -> None:
    """What the client reads is what the engine sent and what was asked for, and it sees an end only where there was one."""
    sent = http1.read(raw, is_head=is_head)
    if sent.doubtful:
        return
    for cutting in cuttings(raw, sizes):
        client = _Client(additions, http11=http11)
        connection, wire = Connection(Upstream("http://127.0.0.1:1", 1.0)), _Wire()
        connection.connection_made(wire)
        connection.begin(client, b"", is_head=is_head)
        for read in cutting:
            if read and not wire.closed:
                connection.data_received(read)
        connection.eof_received()
        connection.connection_lost(None)
        assert client.over
        if not client.got:  # the exchange answers 502
            assert sent.outcome != "clean"
            continue
        got = http1.read(client.got, is_head=is_head, reset=client.is_cut and client.answer.ends_with_the_connection)
        assert got.outcome == ("cut" if client.is_cut else "clean")
        assert (got.status, got.reason) == (sent.status, sent.reason)
        assert _passed_on(got.fields) == _passed_on(sent.fields)
        body, is_edited = _expected_body(sent, additions, is_head=is_head)
        assert got.body == body if not client.is_cut else is_edited or body.startswith(got.body)


def _passed_on(fields: http1.Fields) -> http1.Fields:
    """The fields that are the engine's own word to the client."""
    gone = HOP_BY_HOP | {b"content-length"} | {option.strip().lower() for value in http1.values(fields, b"connection")
                                               for option in value.split(b",")}
    return [field for field in _stripped(fields) if field[0].lower() not in gone and not field[0].lower().startswith(b"x-energy-")]


def _expected_body(sent: http1.Response, add: Additions, *, is_head: bool) -> tuple[bytes, bool]:
    """The client's body, and whether it is another than the engine's may be."""
    kind = (http1.first(sent.fields, b"content-type") or b"").lower()
    energy = orjson.dumps(energy_object(CHARGE, DURATION_NS, RECORD))
    if is_head or sent.status in (204, 304):
        return b"", False
    if not kind.startswith(b"text/event-stream"):
        return (editing.with_energy(sent.body, energy, is_body=True), True) if add.in_usage else (sent.body, False)
    if sent.status != 200 or http1.values(sent.fields, b"content-encoding"):
        return sent.body, False
    comment = b": energy " + energy + b"\n\n" if add.comment else None
    return editing.edited(sent.body, hide=add.hide_usage, comment=comment, energy=energy if add.in_usage else None), True
