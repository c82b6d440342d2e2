"""Clients that ask and do not read: what they may hold of us, for how long, and that nobody else notices."""

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest

from perjoule.sidecar.record import Outcome
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import answer, chunked, scripted, sse, stream_head
from tests.hostile.wire import ASKED, CHAT, INFER, ONE, engine_of, rss_kb, until

PIECE = chunked(b"x" * 65536)[:-5]
MANY = 3200  # pieces: 200 MB


@contextlib.asynccontextmanager
async def deaf(port, request):
    """A client with the smallest receive buffer there is, that sends a request and reads nothing."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, request)
        yield sock


async def is_reset(sock):
    """Whether what a socket still gives ends with a reset."""
    try:
        async with asyncio.timeout(10):
            while await asyncio.get_running_loop().sock_recv(sock, 1 << 20):
                pass
    except ConnectionError:
        return True
    return False


async def flood(written):
    """An engine of 200 MB that notes what it got rid of."""

    async def engine(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0]))
        writer.write(stream_head())
        for _ in range(MANY if b"X-Flood" in head else 1):
            writer.write(PIECE)
            await writer.drain()
            written.append(len(PIECE))
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    return engine


async def test_who_reads_nothing_of_a_long_stream_holds_little_and_not_for_long():
    """Of 200 MB the engine gets rid of what sockets hold, and is freed at the deadline; a stream beside it goes through meanwhile."""
    written = []
    async with engine_of(await flood(written)) as url, sidecar(url, slow_reader_s=1.0, comment=False) as front:
        before_kb = rss_kb()
        async with deaf(front.port, post(CHAT, ASKED, "X-Flood: 1")) as sock:
            await until(lambda: sum(written) > 1_000_000)
            assert len(body_of(await front.send(post(CHAT, ASKED)))) == 65536
            beside, late = sorted(await front.records(2), key=lambda record: record.facts.end_ns)
            assert (beside.facts.outcome, late.facts.outcome) == (Outcome.COMPLETED, Outcome.CANCELLED)
            assert late.facts.error_type == "slow_reader"
            assert sum(written) < 40_000_000  # the kernel's buffers of two connections, which grow as they like
            assert rss_kb() - before_kb < 20_000
            await until(lambda: front.service.traffic.active == 0)
            assert await is_reset(sock)


async def test_a_reader_that_is_slow_but_reads_is_not_cut_off():
    """It takes a little all the time, and less within a deadline than any buffer between holds: its stream goes on."""
    async with engine_of(await flood([])) as url, sidecar(url, slow_reader_s=0.3, comment=False) as front, \
            deaf(front.port, post(CHAT, ASKED, "X-Flood: 1")) as sock:
        await until(lambda: front.service.traffic.active == 1)
        taken = 0
        async with asyncio.timeout(10):
            while taken < 300_000:
                taken += len(await asyncio.get_running_loop().sock_recv(sock, 20_000))
                await asyncio.sleep(0.05)
        assert front.service.traffic.active == 1
        assert front.sink.records == []


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_t07_a_slow_reader_is_not_left_with_a_clean_end(version):
    """Cut off in the middle of a body that ends with its connection, a client can tell: the connection is reset."""
    request = post(CHAT, ASKED, "X-Flood: 1").replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    async with engine_of(await flood([])) as url, sidecar(url, slow_reader_s=0.5) as front, deaf(front.port, request) as sock:
        (record,) = await front.records(1)
        assert record.facts.error_type == "slow_reader"
        assert await is_reset(sock)


LAST_ANSWERS = [(3_900_000, 1, "close"), (3_900_000, 1, "keep-alive"), (50_000, 80, "keep-alive")]


@pytest.mark.parametrize(("size", "count", "connection"), LAST_ANSWERS)
async def test_t43_who_never_reads_the_last_answer_is_given_up(size, count, connection):
    """The answer is written, the request is over, and the client takes nothing: it loses its connection at the deadline all the same."""
    body = b'{"x":"' + b"x" * size + b'"}'
    request = post(CHAT, INFER).replace(b"Connection: close", f"Connection: {connection}".encode())
    async with scripted([answer(body)]) as engine, sidecar(engine.url, slow_reader_s=0.5) as front:
        async with deaf(front.port, request * count) as sock:
            await front.records(1)
            port = sock.getsockname()[1]
            await until(lambda: not is_connected(front.port, port))
            assert await is_reset(sock)
        await until(lambda: front.service.traffic.active == 0)


def is_connected(here, there):
    """Whether the kernel still keeps the sidecar's end of a connection."""
    return f":{here:04X} 0100007F:{there:04X} " in Path("/proc/net/tcp").read_text()


async def test_who_is_slow_holds_up_nobody_else():
    """Twenty clients that read nothing, and fifty that do: all fifty are served, each frame whole."""
    written = []
    async with engine_of(await flood(written)) as url, sidecar(url, comment=False) as front, contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(deaf(front.port, post(CHAT, ASKED, "X-Flood: 1")))
        await until(lambda: front.service.traffic.active == 20)
        bodies = [body_of(raw) for raw in await asyncio.gather(*(front.send(post(CHAT, ASKED)) for _ in range(50)))]
        assert {len(body) for body in bodies} == {65536}


async def test_a_frame_reaches_a_client_that_was_full_as_soon_as_it_reads():
    """Paused while the client did not read, the engine is read again when it does: the next frame comes through."""
    frames = [chunked(sse(ONE))[:-5]] * 3
    async with scripted([stream_head(), *[PIECE] * 200, *frames, 30.0]) as engine, sidecar(engine.url, comment=False) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.transport.pause_reading()
        writer.write(post(CHAT, ASKED))
        await until(lambda: engine.requests)
        await asyncio.sleep(0.3)
        writer.transport.resume_reading()
        got = bytearray()
        async with asyncio.timeout(10):
            while got[-2000:].count(sse(ONE)) < 3:
                got += await reader.read(1 << 20)
        assert got.count(b"x") >= 200 * 65536
        writer.close()
