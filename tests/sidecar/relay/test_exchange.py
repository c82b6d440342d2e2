"""An exchange over real sockets where it is hard: slow clients, slow uploads, clients that ask and do not read."""

import asyncio
import time

import pytest

from perjoule.sidecar.record import Outcome
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import answer, chunked, scripted, sse, stream_head

CHAT, STREAM = "/v1/chat/completions", b'{"stream":true,"stream_options":{"include_usage":true}}'
FRAME = sse('{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}')
LARGE = b"%x\r\n%b\r\n" % (65536, b"x" * 65536)


async def until_quiet(count):
    """Wait until `count()` has not changed for a while; answers it."""
    last, same = count(), 0
    async with asyncio.timeout(20):
        while same < 10:
            await asyncio.sleep(0.02)
            last, same = count(), same + 1 if count() == last else 0
    return last


async def test_a_reader_that_was_slow_for_a_while_gets_everything():
    """The engine waits with it, and goes on with it: no byte is lost, and the end is clean."""
    async with scripted([stream_head(), *[LARGE] * 300, b"0\r\n\r\n"]) as engine, sidecar(engine.url, comment=False) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.transport.pause_reading()
        writer.write(post(CHAT, STREAM))
        await asyncio.sleep(0.5)
        assert front.service.traffic.active == 1
        writer.transport.resume_reading()
        assert len(body_of(await asyncio.wait_for(reader.read(), 20))) == 300 * 65536
        writer.close()
        (record,) = await front.records(1)
        assert record.facts.outcome is Outcome.COMPLETED


async def test_a_slow_reader_holds_up_nobody_else():
    """While one client takes nothing, another one's stream goes through."""
    large, small = [stream_head(), *[LARGE] * 300, b"0\r\n\r\n"], [stream_head(), chunked(FRAME)]
    async with scripted(large, small) as engine, sidecar(engine.url, comment=False) as front:
        _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.transport.pause_reading()
        writer.write(post(CHAT, STREAM))
        async with asyncio.timeout(10):
            while not engine.requests:
                await asyncio.sleep(0.01)
        assert body_of(await front.send(post(CHAT, STREAM))) == FRAME
        writer.close()


@pytest.mark.parametrize("size", [1_000_000, 40_000])
async def test_who_asks_and_never_reads_is_not_served_ahead(size):
    """Forty megabytes asked for in one write: what the client does not take is not asked of the engine, and then it is."""
    count = 40_000_000 // size
    async with scripted([answer(b"x" * size)]) as engine, sidecar(engine.url) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.transport.pause_reading()
        ask = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"
        writer.write(ask * (count - 1) + ask.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert await until_quiet(lambda: len(engine.requests)) < count / 2
        writer.transport.resume_reading()
        assert len(await asyncio.wait_for(reader.read(), 20)) > size * count
        writer.close()


async def test_a_slow_upload_is_not_running():
    """A client that takes its time to send its request is charged from when the engine was given it."""
    async with scripted([30.0]) as engine, sidecar(engine.url) as front:
        _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        request = post(CHAT, b'{"messages":[]}')
        writer.write(request[:-5])
        await asyncio.sleep(0.1)
        assert front.service.meter.in_flight == 0
        whole_ns = time.monotonic_ns()
        writer.write(request[-5:])
        async with asyncio.timeout(10):
            while not engine.requests:
                await asyncio.sleep(0.01)
        (account,) = front.service.meter.running
        assert account.begin_ns >= whole_ns
        writer.close()


async def test_an_upload_that_is_given_up_is_no_request():
    """The client left before its request was whole: the engine never hears of it, and nothing stays open."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(post(CHAT, b'{"messages":[]}')[:-5])
        await asyncio.sleep(0.1)
        writer.close()
        async with asyncio.timeout(10):
            while front.service.traffic.active:
                await asyncio.sleep(0.01)
        assert engine.requests == []
        assert front.service.meter.in_flight == 0
        assert body_of(await front.send(post(CHAT, b"{}"))) == b"{}"


async def test_many_at_once_are_kept_apart():
    """Fifty streams side by side, each with words of its own: everybody gets their own, and there are fifty records."""
    scripts = [[stream_head(), *[chunked(b"data: %d\n\n" % i)[:-5], 0.001] * 5, b"0\r\n\r\n"] for i in range(50)]
    async with scripted(*scripts) as engine, sidecar(engine.url, comment=False) as front:
        bodies = [body_of(raw) for raw in await asyncio.gather(*(front.send(post(CHAT, STREAM)) for _ in scripts))]
        assert sorted(bodies) == sorted(b"data: %d\n\n" % i * 5 for i in range(50))
        assert len({record.facts.record_id for record in await front.records(50)}) == 50
