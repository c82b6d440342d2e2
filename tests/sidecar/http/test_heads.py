"""Heads travel on with everything that is end to end, in order, and nothing that is hop by hop."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.http import heads
from perjoule.sidecar.http.heads import Framing

FIELDS = [(b"Host", b"a"), (b"Connection", b"keep-alive, X-Hop"), (b"x-hop", b"1"), (b"TE", b"trailers"), (b"Set-Cookie", b"a=1"),
          (b"set-cookie", b"b=2"), (b"Transfer-Encoding", b"chunked"), (b"Upgrade", b"h2c"), (b"Accept", b"*/*")]


def test_hop_by_hop_fields_stay_here():
    """RFC 9110 7.6.1: the named fields, and whatever Connection nominates; duplicates and order of the rest are kept."""
    assert heads.end_to_end(FIELDS) == [(b"Host", b"a"), (b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"Accept", b"*/*")]


def test_nobody_nominates_the_host_away():
    """A request without one would be malformed (RFC 9112 3.2); anything else that Connection names is for this hop."""
    nominating = [(b"Host", b"a"), (b"Connection", b"host, accept"), (b"Accept", b"*/*")]
    assert heads.end_to_end(nominating) == [(b"Host", b"a")]


@pytest.mark.parametrize(("method", "version", "coding", "expectation", "status"), [
    ("GET", (0, 9), None, None, 505), ("CONNECT", (1, 1), None, None, 501), ("GET", (2, 0), None, None, 505),
    ("POST", (1, 0), b"chunked", None, 400), ("POST", (1, 1), b"gzip, chunked", None, 400), ("POST", (1, 1), b"", None, 400),
    ("POST", (1, 1), None, b"more", 417), ("POST", (1, 1), b"Chunked", b"100-Continue", None), ("POST", (1, 0), None, b"more", None),
    ("GET", (1, 0), None, None, None),
])
def test_what_cannot_go_on_says_why(method, version, coding, expectation, status):
    """A status and a text for what parsers differ in and for what nobody would do; None for the rest. HTTP/1.0 expects nothing."""
    fault = heads.fault(method, version, coding, expectation)
    assert (fault[0] if fault else None) == status
    assert fault is None or len(fault[1]) > 20


def test_a_request_goes_out_whole():
    """A body that came in chunks has a length on its way out; what is added comes last; Expect was for us."""
    head = heads.request_head("POST", b"/v1/x?a=%2F", [*FIELDS, (b"Expect", b"100-continue")], 5, add=[(b"X-Request-Id", b"r")])
    assert head == (b"POST /v1/x?a=%2F HTTP/1.1\r\nHost: a\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nAccept: */*\r\nContent-Length: 5\r\n"
                    b"X-Request-Id: r\r\n\r\n")


def test_a_request_without_a_body_gets_no_length():
    """GET stays as it was; a POST that said Content-Length: 0 still says it."""
    assert b"Content-Length" not in heads.request_head("GET", b"/", [(b"Host", b"a")], 0)
    assert b"Content-Length: 0" in heads.request_head("POST", b"/", [(b"content-length", b"0")], 0)


def test_framings_of_an_answer():
    """Each framing says exactly one thing about the body's end."""
    fields = [(b"Content-Length", b"7"), (b"Server", b"s")]
    assert heads.answer_head(200, b"OK", fields, Framing.LENGTH) == b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nServer: s\r\n\r\n"
    assert heads.answer_head(200, b"OK", fields, Framing.LENGTH, length=9) == b"HTTP/1.1 200 OK\r\nServer: s\r\nContent-Length: 9\r\n\r\n"
    assert heads.answer_head(200, b"", fields, Framing.CHUNKED) == b"HTTP/1.1 200 \r\nServer: s\r\nTransfer-Encoding: chunked\r\n\r\n"
    closing = heads.answer_head(200, b"OK", fields, Framing.CLOSE, keep_alive=False)
    assert closing == b"HTTP/1.1 200 OK\r\nServer: s\r\nConnection: close\r\n\r\n"
    assert b"Content-Length: 7" in heads.answer_head(200, b"OK", fields, Framing.NONE)


def test_the_head_of_a_change_of_protocols_keeps_its_two_fields():
    """In their place and by the engine's spelling; what else Connection names, and what is hop by hop, is gone."""
    fields = [(b"X-A", b"1"), (b"UPGRADE", b"websocket"), (b"connection", b"upgrade, X-Hop"), (b"X-Hop", b"2"), (b"Keep-Alive", b"5"),
              (b"X-A", b"3")]
    head = heads.switching_head(heads.Head(101, b"Switching Protocols", fields))
    assert head == b"HTTP/1.1 101 Switching Protocols\r\nX-A: 1\r\nUPGRADE: websocket\r\nconnection: Upgrade\r\nX-A: 3\r\n\r\n"


@given(st.lists(st.binary(max_size=300), max_size=10), st.lists(st.tuples(st.just(b"X-T"), st.just(b"v")), max_size=2))
def test_chunks_read_back(pieces, trailers):
    """What is framed in chunks is the body, read by the rules of RFC 9112 7.1; an empty piece does not end it."""
    wire = b"".join(map(heads.chunk, pieces)) + heads.last_chunk(trailers)
    body, rest = b"", wire
    while True:
        size, rest = rest.split(b"\r\n", 1)
        if int(size, 16) == 0:
            break
        body, rest = body + rest[:int(size, 16)], rest[int(size, 16) + 2:]
    assert body == b"".join(pieces)
    assert rest == b"".join(b"%s: %s\r\n" % t for t in trailers) + b"\r\n"
