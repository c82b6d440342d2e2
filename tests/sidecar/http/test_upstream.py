"""The connection to the engine: whole reads handed on, warm connections kept, and every way in which an engine breaks off."""

import asyncio

import pytest

from perjoule.sidecar.http.connection import HEAD_LIMIT, Connection, UpstreamError
from perjoule.sidecar.http.upstream import IDLE_LIMIT_S, Upstream
from tests.fakes.upstream import CUT, answer, chunked, scripted, stream_head

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


class Inbox:
    """A Receiver that keeps what it is handed."""

    def __init__(self):
        self.head, self.body, self.error, self.calls, self.interims = None, b"", None, 0, []
        self.offered = []
        self.over = asyncio.get_running_loop().create_future()

    def received(self, head, body, ended):
        assert not self.over.done()
        self.calls += 1
        self.head, self.body = head or self.head, self.body + body
        if ended:
            self.over.set_result(True)

    def passed(self, body, chunk):
        assert chunk == b"%x\r\n%b\r\n" % (len(body), body)
        self.offered.append(body)
        return body != b"look"

    def interim(self, head):
        assert not self.over.done()
        self.interims.append(head.status)

    def lost(self, error):
        assert not self.over.done()
        self.error = error
        self.over.set_result(False)


async def ask(upstream, *, is_head=False):
    """One request over a connection of the pool; what came of it."""
    inbox = Inbox()
    connection = await upstream.connection()
    connection.begin(inbox, GET, is_head=is_head)
    await asyncio.wait_for(inbox.over, 10)
    return inbox


@pytest.fixture
async def to():
    """Makes an Upstream, closed at the end."""
    made = []

    def make(url, connect_timeout_s=5.0):
        made.append(Upstream(url, connect_timeout_s))
        return made[-1]

    yield make
    for upstream in made:
        upstream.close()
    await asyncio.sleep(0)


async def test_a_connection_is_used_again(to):
    """Three answers of three framings over one connection: length, chunks, and none."""
    scripts = [answer(b"one")], [stream_head(), chunked(b"t", b"wo")], [b"HTTP/1.1 204 No Content\r\n\r\n"]
    async with scripted(*scripts) as engine:
        upstream = to(engine.url)
        assert [(await ask(upstream)).body for _ in scripts] == [b"one", b"two", b""]
        assert engine.connections == 1


ONE_USE = {
    "it says close": [answer(b"a", "connection: close")],
    "it is HTTP/1.0": [b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na"],
    "it says more than it was asked": [answer(b"a") + answer(b"b")],
    "it goes on after its end": [answer(b"a") + b"garbage"],
    "it switches protocols after its end": [answer(b"a") + b"HTTP/1.1 101 X\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"],
    "its body has no length": [b"HTTP/1.1 200 OK\r\n\r\na", CUT],
}


@pytest.mark.parametrize("script", ONE_USE.values(), ids=ONE_USE)
async def test_a_connection_that_cannot_be_trusted_is_not_used_again(script, to):
    """The answer is whole, and the next request gets a connection of its own."""
    async with scripted(script) as engine:
        upstream = to(engine.url)
        for _ in range(2):
            got = await ask(upstream)
            assert (got.body, got.error) == (b"a", None)
        assert engine.connections == 2


async def test_an_idle_connection_is_given_up_before_the_engine_does(to):
    """What lay idle for longer than the limit is closed, not tried: the engine may close it at any moment."""
    async with scripted([answer(b"a")]) as engine:
        upstream = to(engine.url)
        await ask(upstream)
        (idle,) = upstream._idle
        idle.idle_since -= IDLE_LIMIT_S
        await ask(upstream)
        assert engine.connections == 2


async def test_a_connection_that_the_engine_closed_is_not_handed_out(to):
    """It leaves the pool when it dies."""
    async with scripted([answer(b"a"), CUT]) as engine:
        upstream = to(engine.url)
        await ask(upstream)
        async with asyncio.timeout(10):
            while upstream._idle:
                await asyncio.sleep(0.005)
        assert (await ask(upstream)).body == b"a"


async def test_an_idle_connection_that_speaks_is_closed(to):
    """Nobody asked: whatever it says would be taken for the next answer."""
    async with scripted([answer(b"a"), 0.05, answer(b"poison")], [answer(b"b")]) as engine:
        upstream = to(engine.url)
        await ask(upstream)
        async with asyncio.timeout(10):
            while upstream._idle:
                await asyncio.sleep(0.005)
        assert (await ask(upstream)).body == b"b"


async def test_the_latest_connection_is_used_first(to):
    """So that the others age, and are closed."""
    async with scripted([answer(b"a")]) as engine:
        upstream = to(engine.url)
        await asyncio.gather(*(ask(upstream) for _ in range(3)))
        assert engine.connections == 3
        oldest, _, latest = upstream._idle
        assert await upstream.connection() is latest
        oldest.idle_since -= IDLE_LIMIT_S
        upstream.give_back(latest)
        assert oldest not in upstream._idle


async def test_interim_answers_are_not_the_answer(to):
    """103 is handed on by itself, 100 not at all: nothing was expected."""
    script = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + answer(b"a", "x-final: 1")
    async with scripted([script]) as engine:
        got = await ask(to(engine.url))
        assert (got.head.status, got.body) == (200, b"a")
        assert b"link" not in dict(got.head.headers)
        assert got.interims == [103]


async def test_trailers_come_with_the_end(to):
    """Fields after the last chunk are the head's trailers, and not its fields."""
    async with scripted([stream_head() + b"1\r\na\r\n0\r\nx-trailer: 1\r\n\r\n"]) as engine:
        got = await ask(to(engine.url))
        assert got.head.trailers == [(b"x-trailer", b"1")]
        assert b"x-trailer" not in dict(got.head.headers)


@pytest.mark.parametrize("fields", ["content-length: 99", "transfer-encoding: chunked"])
async def test_a_head_request_ends_with_its_head(fields, to):
    """No body is waited for, and the connection is used again."""
    async with scripted([f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode()]) as engine:
        upstream = to(engine.url)
        for _ in range(2):
            got = await ask(upstream, is_head=True)
            assert (got.head.status, got.body, got.head.bodyless) == (200, b"", True)
        assert engine.connections == 1


@pytest.mark.parametrize("body", [b"abc", b"3\r\nabc\r\n0\r\n\r\n"])
@pytest.mark.parametrize("fields", ["content-length: 3", "transfer-encoding: chunked", "x-a: 1"])
async def test_a_head_request_that_gets_a_body_spoils_the_connection(fields, body, to):
    """Some of it could come as the next answer."""
    async with scripted([f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + body]) as engine:
        upstream = to(engine.url)
        for _ in range(2):
            got = await ask(upstream, is_head=True)
            assert (got.head.status, got.body, got.head.trailers) == (200, b"", [])
        assert engine.connections == 2


CODINGS = ["gzip, chunked", "chunked, chunked", "chunked,", "xchunked", "identity", "chunked\r\ntransfer-encoding: chunked"]


@pytest.mark.parametrize("coding", CODINGS)
async def test_only_chunks_are_a_coding(coding, to):
    """Where the answer ends, or what its bytes are, would be a guess."""
    async with scripted([f"HTTP/1.1 200 OK\r\ntransfer-encoding: {coding}\r\n\r\n1\r\na\r\n0\r\n\r\n".encode(), CUT]) as engine:
        got = await ask(to(engine.url))
        assert (got.error.kind, got.head, got.body) == ("upstream_protocol", None, b"")
        assert "expected one `chunked`" in str(got.error)


BROKEN = {
    "cut before the head": ([CUT], "upstream_closed", "before it answered"),
    "cut in the head": ([b"HTTP/1.1 200 OK\r\nconte", 0.05, CUT], "upstream_closed", "in the middle"),
    "cut in a body of a length": ([answer(b"abc")[:-1], 0.05, CUT], "upstream_closed", "in the middle"),
    "cut in chunks": ([stream_head(), chunked(b"abc")[:-5], 0.05, CUT], "upstream_closed", "in the middle"),
    "cut in chunks that were announced with a space": ([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked \r\n\r\n5\r\nhel", 0.05, CUT],
                                                       "upstream_closed", "in the middle"),
    "chunks in HTTP/1.0": ([b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"], "upstream_protocol", "in HTTP/1.0"),
    "a status that is none": ([b"HTTP/1.1 099 X\r\ncontent-length: 3\r\n\r\nabc" + answer(b"a")], "upstream_protocol", "status 099"),
    "an interim answer with a body": ([b"HTTP/1.1 150 X\r\ncontent-length: 3\r\n\r\nabc" + answer(b"a")],
                                      "upstream_protocol", "status 150"),
    "trailers without end": ([stream_head(), b"0\r\n", *[b"x-a: " + b"a" * 60_000 + b"\r\n"] * (2 * HEAD_LIMIT // 60_000)],
                             "upstream_protocol", f"exceeds {HEAD_LIMIT} bytes"),
    "not HTTP": ([b"SSH-2.0-OpenSSH_9.6\r\n"], "upstream_protocol", "not HTTP/1.1"),
    "a chunk size that is none": ([stream_head(), b"zz\r\n"], "upstream_protocol", "not HTTP/1.1"),
    "a head without end": ([b"HTTP/1.1 200 OK\r\n", *[b"x-a: " + b"a" * 60_000 + b"\r\n"] * (HEAD_LIMIT // 60_000 + 1)],
                           "upstream_protocol", f"exceeds {HEAD_LIMIT} bytes"),
    "another protocol": ([b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"],
                         "upstream_protocol", "switched"),
}


@pytest.mark.parametrize(("script", "kind", "text"), BROKEN.values(), ids=BROKEN)
async def test_an_engine_that_breaks_off_is_lost_once_with_a_reason(script, kind, text, to):
    """Never a clean end; the reason names what happened, and the connection is not kept."""
    async with scripted(script) as engine:
        upstream = to(engine.url)
        got = await ask(upstream)
        assert (got.error.kind, got.error.status) == (kind, 502)
        assert text in str(got.error)
        assert not upstream._idle


async def test_an_engine_that_does_not_accept_is_a_timeout(to):
    """504, with the address and the limit."""
    async with scripted([answer(b"")]) as engine:
        with pytest.raises(UpstreamError, match=f"{engine.url} did not accept a connection in 0 s") as raised:
            await to(engine.url, connect_timeout_s=0).connection()
        assert (raised.value.kind, raised.value.status) == ("upstream_timeout", 504)


async def test_an_engine_that_is_not_there_is_unreachable(to):
    """502, with the address."""
    with pytest.raises(UpstreamError, match=r"cannot connect to http://127\.0\.0\.1:1") as raised:
        await to("http://127.0.0.1:1").connection()
    assert (raised.value.kind, raised.value.status) == ("upstream_unreachable", 502)


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def write(self, data): ...
    def is_closing(self): return False
    def close(self): ...
    def abort(self): ...


async def test_reads_of_any_size_give_the_same_answer():
    """An answer in reads of 1 to 40 bytes: the same head, body and trailers; one call for each read at most."""
    whole = stream_head("x-a: 1") + b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nx-t: 1\r\n\r\n"
    for size in range(1, 41):
        upstream = Upstream("http://127.0.0.1:1", 1.0)
        connection, inbox = Connection(upstream), Inbox()
        connection.connection_made(Wire())
        connection.begin(inbox, GET, is_head=False)
        for start in range(0, len(whole), size):
            connection.data_received(whole[start:start + size])
        assert (inbox.body, inbox.over.result(), inbox.head.trailers) == (b"hello world", True, [(b"x-t", b"1")])
        assert inbox.calls <= -(-len(whole) // size)
        assert list(upstream._idle) == [connection]


async def test_a_long_stream_in_small_reads_has_no_long_head():
    """What comes between two pieces of a body is bounded, and not all of it together."""
    connection, inbox = Connection(Upstream("http://127.0.0.1:1", 1.0)), Inbox()
    connection.connection_made(Wire())
    connection.begin(inbox, GET, is_head=False)
    connection.data_received(stream_head())
    for _ in range(HEAD_LIMIT // 3 + 1):
        connection.data_received(b"1\r\n")
        connection.data_received(b"a\r\n")
    assert (inbox.error, len(inbox.body)) == (None, HEAD_LIMIT // 3 + 1)


async def test_a_chunk_in_a_read_of_its_own_is_offered_first():
    """Once one has been parsed, those that follow in reads of their own are offered as they came; what is not taken is parsed."""
    connection, inbox = Connection(Upstream("http://127.0.0.1:1", 1.0)), Inbox()
    connection.connection_made(Wire())
    connection.begin(inbox, GET, is_head=False)
    for read in (stream_head(), b"1\r\na\r\n", b"1\r\nb\r\n", b"4\r\nlook\r\n", b"1\r\nc\r\n", b"2\r\nde\r\n1\r\nf\r\n", b"1\r\ng\r\n",
                 b"1\r\n", b"h\r\n", b"1\r\ni\r\n", b"1\r\nj\r\n",
                 b"10\r\nlook", b"1\r\nk\r\n", b"1\r\nl\r\n", b"\r\n", b"0\r\n\r\n"):  # of which two are no chunks
        connection.data_received(read)
    assert inbox.offered == [b"b", b"look", b"c", b"j"]
    assert (inbox.body, inbox.over.result()) == (b"alookdefghilook1\r\nk\r\n1\r\nl\r\n", True)
