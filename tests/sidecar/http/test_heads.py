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
    head = heads.request_head("POST", b"/v1/x?a=%2F", [*FIELDS, (b"Expect", b"100-continue")], 5, add=[heads.line(b"X-Request-Id", b"r")])
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


names = st.sampled_from([b"Host", b"host", b"Connection", b"connection", b"TE", b"Upgrade", b"Content-Length", b"Transfer-Encoding",
                         b"Expect", b"X-A", b"x-a", b"%s", b"X-Long" * 200])
values = st.sampled_from([b"", b"a", b"close, X-A", b"host", b" x-a ,te", b"content-length", b"%b"])
several = st.lists(st.tuples(names, values), max_size=8)


def kept(pairs, drop):
    """What may travel on, said as plainly as the rule is."""
    nominated = {word.strip().lower() for name, value in pairs if name.lower() == b"connection" for word in value.split(b",")}
    gone = heads.HOP_BY_HOP | drop | nominated - heads.ALWAYS
    return [(name, value) for name, value in pairs if name.lower() not in gone]


def text(first_line, *parts):
    return b"\r\n".join([first_line, *(b"%b: %b" % field for part in parts for field in part), b"", b""])


@given(st.lists(several, min_size=1, max_size=3), several, st.sampled_from([frozenset(), frozenset({b"x-a", b"host"})]), st.integers(0, 9))
def test_heads_are_what_the_rule_says(heard, add, drop, length):
    """Whatever is remembered of heads with these names: each head is what its own fields make of it, as a list of pairs or as Fields."""
    before = None
    for pairs in heard:
        after = heads.Fields([name for name, _ in pairs], [value for _, value in pairs], before)
        before = after.names
        lowered = {name.lower() for name, _ in pairs}
        has_body = length or not lowered.isdisjoint({b"content-length", b"transfer-encoding"})
        said, lines = [(b"Content-Length", b"%d" % length)], [heads.line(*field) for field in add]
        for headers in (pairs, heads.fields_of(pairs), after):
            assert list(headers) == pairs
            assert list(heads.end_to_end(headers, drop)) == kept(pairs, drop)
            assert heads.request_head("POST", b"/x", headers, length, drop=drop, add=lines) == text(
                b"POST /x HTTP/1.1", kept(pairs, drop | heads.BODY), said if has_body else [], add)
            assert heads.answer_head(200, b"OK", headers, Framing.NONE, add=lines) == text(
                b"HTTP/1.1 200 OK", kept(pairs, frozenset()), add)
            assert heads.answer_head(200, b"OK", headers, Framing.LENGTH, length=length, keep_alive=False) == text(
                b"HTTP/1.1 200 OK", kept(pairs, heads.LENGTH), said, [(b"Connection", b"close")])
            for name in (b"host", b"x-a", b"te"):
                found = [value for key, value in pairs if key.lower() == name]
                assert heads.first(headers, name) == next(iter(found), None)
                assert heads.tokens(headers, name) == {word.strip().lower() for value in found for word in value.split(b",")} - {b""}
                assert heads.fields_of(pairs).all(name) == found
                assert (name in heads.fields_of(pairs)) is bool(found)


def test_clients_cannot_fill_the_memory_with_names():
    """So many kinds of heads are remembered and no more, none of them long; what is forgotten is worked out again."""
    many = [heads.fields_of([(b"X-%d" % n, b"v")]) for n in range(10 * heads.MOST_REMEMBERED)]
    long = heads.fields_of([(b"a" * (heads.REMEMBERED_BYTES + 1), b"v")])
    assert len(heads._REMEMBERED) <= heads.MOST_REMEMBERED
    assert not any(long.names.spelled[0] in remembered for remembered in heads._REMEMBERED)
    assert [fields.first(b"x-%d" % n) for n, fields in enumerate(many)] == [b"v"] * len(many)
    assert heads.fields_of([(b"X-0", b"w")]).first(b"x-0") == b"w"


@given(st.lists(st.binary(max_size=300), max_size=10), st.lists(st.tuples(st.just(b"X-T"), st.just(b"v")), max_size=2))
def test_chunks_read_back(pieces, trailers):
    """What is framed in chunks is the body, read by the rules of RFC 9112 7.1; an empty piece does not end it."""
    wire = b"".join(map(heads.chunk, pieces)) + heads.last_chunk(heads.line(*field) for field in trailers)
    body, rest = b"", wire
    while True:
        size, rest = rest.split(b"\r\n", 1)
        if int(size, 16) == 0:
            break
        body, rest = body + rest[:int(size, 16)], rest[int(size, 16) + 2:]
    assert body == b"".join(pieces)
    assert rest == b"".join(b"%s: %s\r\n" % t for t in trailers) + b"\r\n"
