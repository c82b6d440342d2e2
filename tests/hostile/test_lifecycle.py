"""T1–T11: clients that leave, engines that die or hang, connections that go stale, and the end of the sidecar itself."""

import asyncio
import contextlib
import logging
import os
import random
import resource
import signal
import socket

import pytest

from perjoule.sidecar.record import Outcome
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import CUT, RESET, answer, chunked, scripted, sse, stream_head
from tests.hostile.wire import ASKED, CHAT, INFER, ONE, STREAM, WITH_USAGE, engine_of, serving, until


@pytest.mark.parametrize("body", [STREAM, INFER], ids=["t01_streamed", "t02_whole"])
async def test_t01_t02_a_client_that_leaves_before_the_first_byte_frees_the_engine(body):
    """The engine's socket is closed while it still computes the prompt, and the one record says cancelled."""
    async with scripted([30.0]) as engine, sidecar(engine.url) as front:
        _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(post(CHAT, body))
        await until(lambda: engine.requests)
        writer.close()
        async with asyncio.timeout(10):
            await engine.closed.wait()
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.facts.error_type) == (Outcome.CANCELLED, "client_disconnected")
        assert record.facts.first_byte_ns is None


@pytest.mark.parametrize("end", [CUT, RESET])
async def test_t03_clients_that_leave_at_any_moment_are_closed_once(end):
    """Thirty clients leave around the moment at which the engine dies under them: thirty records, nothing in flight."""
    async with scripted([stream_head(), *[chunked(sse(ONE))[:-5], 0.01] * 4, end]) as engine, sidecar(engine.url) as front:

        async def leave_after(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(post(CHAT, STREAM))
            with contextlib.suppress(TimeoutError, ConnectionError):
                await asyncio.wait_for(reader.read(-1), seconds)
            writer.close()

        await asyncio.gather(*(leave_after(0.002 * i) for i in range(1, 31)))
        records = await front.records(30)
        await until(lambda: front.service.traffic.active == 0)
        assert len({record.facts.record_id for record in records}) == len(records) == 30
        assert {record.facts.outcome for record in records} <= {Outcome.CANCELLED, Outcome.ERRORED}
        assert front.service.meter.in_flight == front.service.meter.unsettled == 0
        assert front.service.balance()["conserved"]


async def test_t04_a_client_that_leaves_while_the_engine_is_still_being_reached():
    """Its departure is seen although no byte moves anywhere, and the engine is not asked once it can be reached."""
    silent = socket.create_server(("127.0.0.1", 0), backlog=0)  # with its queue full the kernel answers no more calls
    with contextlib.ExitStack() as stack:
        stack.enter_context(silent)
        for _ in range(2):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(silent.getsockname())
        async with sidecar(f"http://127.0.0.1:{silent.getsockname()[1]}", connect_timeout_s=3.0) as front:
            _, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(post(CHAT, STREAM))
            await until(lambda: front.service.meter.in_flight == 1)
            writer.close()
            (record,) = await front.records(1)
            assert (record.facts.outcome, record.facts.error_type) == (Outcome.CANCELLED, "client_disconnected")
            await until(lambda: front.service.traffic.active == 0)
            assert len(front.sink.records) == 1


async def test_t05_t06_a_sidecar_that_stops_closes_both_sides_and_swallows_nothing(caplog):
    """A handler that is cancelled closes the engine's connection, cuts the client's, and ends; there is one record."""
    async with scripted([stream_head(), chunked(sse(ONE))[:-5], 60.0]) as engine:
        async with sidecar(engine.url, comment=False) as front:
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(post(CHAT, ASKED))
            await asyncio.wait_for(reader.readuntil(sse(ONE)), 10)
            front.service._asked_to_stop()
            front.service._asked_to_stop()  # at once
            rest = await asyncio.wait_for(reader.read(), 10)
            assert not rest.endswith(b"0\r\n\r\n")
            writer.close()
        (record,) = front.sink.records
        assert (record.facts.outcome, record.facts.error_type) == (Outcome.ERRORED, "shutdown")
        async with asyncio.timeout(10):
            await engine.closed.wait()
    assert not [line for line in caplog.records if line.levelno >= logging.ERROR]


async def test_t07_an_http_1_0_client_can_tell_that_the_engine_died():
    """Where the end of the connection is the end of the body, a body that broke off is a reset connection."""
    async with scripted([stream_head(), chunked(sse(ONE))[:-5], 0.1, CUT]) as engine, sidecar(engine.url) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(post(CHAT, ASKED).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        assert await reader.readuntil(sse(ONE))
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()
        (record,) = await front.records(1)
        assert record.facts.outcome is Outcome.ERRORED


async def test_t07_an_engine_s_reset_is_no_clean_end():
    """An engine without a length whose connection is reset: the client's chunked body is cut, and the record says errored."""
    unending = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nhalf of it"
    async with scripted([unending, 0.1, RESET]) as engine, sidecar(engine.url) as front:
        raw = await front.send(post(CHAT, b"", "X-Energy-Include: none"))
        assert b"half of it" in raw
        with pytest.raises(ValueError, match="cut"):
            body_of(raw)
        (record,) = await front.records(1)
        assert record.facts.outcome is Outcome.ERRORED


async def test_t08_a_request_that_hangs_in_the_engine_holds_up_nobody():
    """While one answer never begins and another stands still in its middle, fifty more are served."""
    hanging, standing = [30.0], [stream_head(), chunked(sse(ONE))[:-5], 30.0]
    async with scripted(hanging, standing, [answer(b"{}")]) as engine, sidecar(engine.url) as front:
        writers = []
        for number in (1, 2):
            _, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(post(CHAT, STREAM))
            await until(lambda number=number: len(engine.requests) == number)
            writers.append(writer)
        answers = await asyncio.gather(*(front.send(post(CHAT, INFER)) for _ in range(50)))
        assert {body_of(raw) for raw in answers} == {b"{}"}
        assert front.service.traffic.active == 2
        for writer in writers:
            writer.close()


async def test_t09_an_engine_that_hangs_up_after_each_answer_is_never_seen():
    """Forty requests in a row over connections that the engine closes unannounced: every one is answered, none sent twice."""
    async with scripted([answer(b"fine"), CUT]) as engine, sidecar(engine.url) as front:
        for _ in range(40):
            assert body_of(await front.send(post("/a", b"x"))) == b"fine"
        assert len(engine.requests) == 40


async def test_t09_the_engine_s_keep_alive_limit_races_a_thousand_requests():
    """Requests with bodies at gaps around the moment at which the engine hangs up on idle connections: no 502, none lost."""
    limit_s, seen = 0.1, []

    async def engine(reader, writer):
        """As uvicorn does it: a connection that has been idle for the limit is closed, whatever is on its way."""
        while True:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), limit_s)
            seen.append(await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])))
            writer.write(answer(seen[-1]))

    chance = random.Random(9)
    async with engine_of(engine) as url, sidecar(url) as front:

        async def ask(client):
            for number in range(50):
                body = b"%d of %d" % (number, client)
                assert body_of(await front.send(post("/v1/files", body))) == body
                await asyncio.sleep(limit_s + chance.gauss(0, 0.01))

        await asyncio.gather(*(ask(client) for client in range(20)))
    assert len(set(seen)) == 1000


async def test_t09_only_a_connection_that_has_gone_stale_is_given_up_for_another():
    """What died without a byte on a kept connection is asked once more; on a fresh one, or after a byte, it is not."""
    kept = [answer(b"1")]
    async with scripted(kept, [CUT], [CUT], kept, [b"HTTP/1.1 200 OK\r\n", 0.05, RESET], kept) as engine, sidecar(engine.url) as front:
        assert body_of(await front.send(post(CHAT, INFER))) == b"1"
        assert (await front.send(post(CHAT, INFER))).startswith(b"HTTP/1.1 502 ")  # stale, and then really dead
        assert len(engine.requests) == 3
        assert body_of(await front.send(post(CHAT, INFER))) == b"1"
        assert (await front.send(post(CHAT, INFER))).startswith(b"HTTP/1.1 502 ")  # it had begun to answer
        assert len(engine.requests) == 5
        assert len(await front.records(4)) == 4


async def test_t10_a_thousand_clients_at_once_are_all_served():
    """They come in one burst, over a thousand connections that are open at the same time: none is refused or forgotten."""
    gate = asyncio.Event()

    async def engine(reader, writer):
        await reader.readuntil(b"\r\n\r\n" + INFER)
        arrived.append(writer)
        await gate.wait()
        writer.write(answer(b"{}"))
        await writer.drain()

    async def ask():
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(post(CHAT, INFER))
        raw = await reader.read()
        writer.close()
        return body_of(raw)

    arrived = []
    async with asyncio.timeout(60), engine_of(engine) as url, sidecar(url) as front:
        asking = [asyncio.ensure_future(ask()) for _ in range(1000)]
        while len(arrived) < 1000:
            await asyncio.sleep(0.01)
        assert front.service.traffic.active == 1000
        gate.set()
        assert set(await asyncio.gather(*asking)) == {b"{}"}
        assert len(await front.records(1000)) == 1000


async def test_t10_the_limit_of_open_files_is_raised():
    """Started with room for 256 files, it keeps 300 streams open: two sockets each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with scripted([stream_head(), 60.0]) as engine, contextlib.AsyncExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            front = await stack.enter_async_context(serving(engine.url))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(300):
            reader, writer = await asyncio.open_connection("127.0.0.1", front["port"])
            stack.callback(writer.close)
            writer.write(post(CHAT, ASKED))
            assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)


async def is_listening(port):
    """Whether a client would be taken."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


@pytest.mark.parametrize("signals", [1, 2], ids=["drained", "cut"])
async def test_t11_a_stream_is_let_finish_by_the_first_sigterm_and_cut_by_the_second(signals):
    """The first one refuses new connections and waits for what runs; the second one waits for nothing, and it is no clean end."""
    frames, rest_s = [chunked(event)[:-5] for event in WITH_USAGE.splitlines(keepends=True)], 1.0 if signals == 1 else 30.0
    script = [stream_head(), *frames, rest_s, b"0\r\n\r\n"]
    async with scripted(script) as engine, serving(engine.url, "--no-comment", "--drain-s", "20") as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front["port"])
        writer.write(post(CHAT, ASKED))
        raw = await asyncio.wait_for(reader.readuntil(b"[DONE]"), 10)
        os.kill(front["pid"], signal.SIGTERM)
        async with asyncio.timeout(10):
            while await is_listening(front["port"]):
                await asyncio.sleep(0.01)
        if signals == 2:
            os.kill(front["pid"], signal.SIGTERM)
        raw += await asyncio.wait_for(reader.read(), 10)
        writer.close()
        if signals == 1:
            assert body_of(raw) == WITH_USAGE
        else:
            with pytest.raises(ValueError, match="cut"):
                body_of(raw)
