"""Answers of HTTP/1.1, well-formed and not: a status line, fields and a body that were put together, and what may go wrong in them."""

from hypothesis import strategies as st

from tests.fuzz.inputs.recorded import BODIES, STREAMED
from tests.fuzz.inputs.wrong import flipped

STATUS_LINES = (
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.0 200 OK",
    b"HTTP/1.1 404 Not Found", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 500 \xe9", b"HTTP/1.1 999 X",
    b"HTTP/1.1 099 X", b"HTTP/1.1 000 X", b"HTTP/1.1 2000 OK", b"HTTP/1.1 20 OK", b"HTTP/2.0 200 OK", b"HTTP/1.2 200 OK",
    b"HTTP/11 200 OK", b"http/1.1 200 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK", b" HTTP/1.1 200 OK",
    b"HTTP/1.1 101 Switching Protocols", b"ICY 200 OK")
INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", b"HTTP/1.1 102 P\r\ncontent-length: 3\r\n\r\n",
    b"HTTP/1.1 103 E\r\nconnection: close\r\n\r\n", b"HTTP/1.0 100 C\r\n\r\n", b"HTTP/1.1 150 X\r\ntransfer-encoding: chunked\r\n\r\n",
    b"HTTP/1.1 199 X\r\ncontent-length: 3\r\n\r\n", b"HTTP/1.1 110 X\r\nlink: y\r\n\r\n", b"\r\n", b"\n")
FIELDS = (
    b"content-type: application/json", b"Content-Type: text/event-stream; charset=utf-8", b"content-type: text/event-stream", b"x-a: 1",
    b"X-A:", b"x-a: \t b \t ", b"x-a: \x80\xff", b"set-cookie: a=b", b"set-cookie: c=d", b"connection: close",
    b"Connection: keep-alive", b"connection: x-a, Close", b"proxy-connection: close", b"upgrade: h2c", b"connection: upgrade",
    b"keep-alive: timeout=5", b"trailer: x-t", b"te: trailers", b"content-encoding: identity", b"content-encoding: gzip",
    b"X-Energy-Joules: 7", b"x-" + b"a" * 300 + b": " + b"b" * 900, b"date: now")
ODD_FIELDS = (
    b"content-length: 3", b"Content-Length: 0", b"content-length: 5 ", b"content-length: 5, 5", b"content-length: +5",
    b"content-length: 0x5", b"content-length:", b"content-length: -1", b"content-length: 99999999999999999999999",
    b"content-length: 5\t", b"content-length: 5 5", b"transfer-encoding: chunked", b"Transfer-Encoding: Chunked ",
    b"transfer-encoding: gzip, chunked", b"transfer-encoding: chunked, identity", b"transfer-encoding: xchunked",
    b"transfer-encoding: chunked,", b"transfer-encoding: identity", b"transfer-encoding:", b"transfer-encoding: chunked\t",
    b"transfer-encoding: \x0bchunked", b"x-a : 1", b" x-a: 1", b"x-a", b": 1", b"x a: 1", b"x-a: b\x00c", b"x-a: b\rc", b"x-a: b\nc: d",
    b"x-a: b\r\n c", b"x\xe9: 1", b"x-a: \x7f", b"x(a): 1", b"\tx-a: 1", b"")
LINE_ENDS = (b"\r\n",) * 12 + (b"\n", b"\r", b"\r\r\n")
SIZES = (b"%x",) * 9 + (b"%X", b"00%x", b"%x0", b"0x%x", b"-%x")
CHUNK_ENDS = (b"",) * 6 + (b";x", b";x=1", b';x="a;\\"b"', b";x=", b" ", b";", b";;", b"; x", b';x="', b";\x00", b"\t;x", b";x\n")
TRAILERS = (
    (), (), (), (b"x-t: 1",), (b"x-t: 1", b"X-T: 2"), (b"content-length: 5",), (b"transfer-encoding: chunked",),
    (b"connection: close",), (b"bad",), (b" x: 1",))
AFTER = (b"",) * 6 + (
    b"\r\n", b"\n", b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
    b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", b"0\r\n\r\n")

bodies = st.sampled_from([b"", b"a", b"hello", *BODIES.values(), *STREAMED.values()]) | st.binary(max_size=40)


@st.composite
def chunks(draw: st.DrawFn, body: bytes) -> bytes:
    """A body in chunks, seldom as they should be."""
    raw, left = b"", body
    while left:
        size = draw(st.integers(1, len(left)))
        raw += draw(st.sampled_from(SIZES)) % size + draw(st.sampled_from(CHUNK_ENDS)) + draw(st.sampled_from(LINE_ENDS))
        raw += left[:size] + draw(st.sampled_from(LINE_ENDS))
        left = left[size:] if len(raw) < 2000 else b""
    trailers = draw(st.sampled_from(TRAILERS))
    last = b"0" + draw(st.sampled_from(CHUNK_ENDS)) + b"\r\n" + b"".join(line + b"\r\n" for line in trailers)
    return raw + last + draw(st.sampled_from(LINE_ENDS))


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """What an engine's connection brings."""
    is_odd = draw(st.booleans())
    body = draw(bodies)
    lines = [draw(st.sampled_from(STATUS_LINES if is_odd else STATUS_LINES[:9]))]
    lines += draw(st.lists(st.sampled_from(FIELDS), max_size=4))
    framing = draw(st.sampled_from(("length", "length", "chunks", "chunks", "end")))
    if framing == "length":
        lines.append(b"Content-Length: %d" % (len(body) + (draw(st.integers(-2, 2)) if is_odd else 0)))
    elif framing == "chunks":
        lines.append(b"Transfer-Encoding: chunked")
        body = draw(chunks(body)) if is_odd else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    if is_odd:
        lines += draw(st.lists(st.sampled_from(ODD_FIELDS), max_size=2))
    end = draw(st.sampled_from(LINE_ENDS)) if is_odd else b"\r\n"
    before = b"".join(draw(st.lists(st.sampled_from(INTERIM), max_size=2)))
    raw = before + end.join([*lines, b"", b""]) + body + draw(st.sampled_from(AFTER))
    for where in draw(st.lists(st.integers(0, 2**20), max_size=2)) if is_odd else ():
        raw = flipped(raw, where)
    return raw[:draw(st.integers(0, len(raw)))] if draw(st.integers(0, 3)) == 0 else raw


REQUEST_LINES = (b"GET / HTTP/1.1",) * 2 + (b"POST /v1/chat/completions HTTP/1.1",) * 6 + (
    b"POST /v1/x?y=%20 HTTP/1.1", b"HEAD / HTTP/1.1", b"GET / HTTP/1.0", b"POST / HTTP/1.0", b"GET /", b"GET  / HTTP/1.1",
    b"GET / HTTP/1.1 ", b"GET / HTTP/2.0", b"get / HTTP/1.1", b"GET http://h/x HTTP/1.1", b"OPTIONS * HTTP/1.1", b"CONNECT h:1 HTTP/1.1",
    b"GET /\t HTTP/1.1", b"GET /\xc3\xa9 HTTP/1.1", b"GET /a b HTTP/1.1", b"G\x00T / HTTP/1.1", b"PRI * HTTP/2.0", b"SOURCE / ICE/1.0",
    b"GET / RTSP/1.0")
REQUEST_FIELDS = (
    b"connection: close", b"Connection: keep-alive", b"connection: x, Close", b"expect: 100-continue", b"expect: x", b"host: b",
    b"Host : a", b"upgrade: websocket", b"connection: upgrade", b"x-a: 1", b"te: trailers", b"content-encoding: gzip", b"Content-Length: 3")


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """What a client sends over one connection: some requests, each perhaps with another one in its body."""
    raw = b""
    for _ in range(draw(st.integers(1, 3))):
        is_odd = draw(st.integers(0, 2)) == 0
        body = draw(st.sampled_from((b"", b"a", b"hello", b"GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n", b"0\r\n\r\n")))
        lines = [draw(st.sampled_from(REQUEST_LINES if is_odd else REQUEST_LINES[:8])), b"Host: a"]
        lines += draw(st.lists(st.sampled_from(REQUEST_FIELDS), max_size=2)) if is_odd else []
        framing = draw(st.sampled_from(("length", "chunks", "none")))
        if framing == "length":
            lines.append(b"Content-Length: %d" % (len(body) + (draw(st.integers(-2, 2)) if is_odd else 0)))
        elif framing == "chunks":
            lines.append(b"Transfer-Encoding: chunked")
            body = draw(chunks(body)) if is_odd else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        else:
            body = body if is_odd else b""
        lines += draw(st.lists(st.sampled_from(ODD_FIELDS), max_size=1)) if is_odd else []
        raw += (draw(st.sampled_from(LINE_ENDS)) if is_odd else b"\r\n").join([*lines, b"", b""]) + body
    for where in draw(st.lists(st.integers(0, 2**20), max_size=1)):
        raw = flipped(raw, where) if draw(st.integers(0, 3)) == 0 else raw
    return raw[:draw(st.integers(0, len(raw)))] if draw(st.integers(0, 5)) == 0 else raw
