"""An engine that dies at every byte it might send, and a client that leaves in every phase of its request."""

import asyncio
import gzip
import json
import re

import pytest

from perjoule.sidecar.record import Outcome
from tests.fakes.sidecar import SteadyCounter, body_of, post, sidecar
from tests.fakes.upstream import CUT, RESET, answer, chunked, scripted, sse, stream_head
from tests.hostile.wire import ASKED, CHAT, COUNTED, INFER, LAST, ONE, STREAM, WITH_USAGE, counting, frame, reset_now, until

BRIEF = sse("{}", "[DONE]")
STREAMED = stream_head() + chunked(*BRIEF.splitlines(keepends=True))
NONE = "X-Energy-Include: none"
HTTP_1_0 = "HTTP/1.0"

DEATHS = {  # the engine's answer, what the client asks, and with which HTTP and fields
    "held": (answer(COUNTED), INFER, ()),
    "length": (answer(COUNTED), INFER, (NONE,)),
    "gzip": (answer(gzip.compress(b"{}", mtime=0), "content-encoding: gzip"), INFER, (NONE,)),
    "stream": (STREAMED, ASKED, ()),
    "stream_hidden": (STREAMED, STREAM, ()),
    "stream_settled": (STREAMED, ASKED, ("X-Energy-Include: settled",)),
    "stream_to_http_1_0": (STREAMED, ASKED, (HTTP_1_0,)),
}


async def received(port, request):
    """What a client reads up to the end of its connection, and whether that end is a reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    got = b""
    try:
        async with asyncio.timeout(10):
            while piece := await reader.read(65536):
                got += piece
    except ConnectionError:
        return got, True
    finally:
        writer.close()
    return got, False


@pytest.mark.parametrize("end", [CUT, RESET])
@pytest.mark.parametrize(("whole", "body", "fields"), DEATHS.values(), ids=DEATHS)
async def test_t07_an_engine_that_dies_at_any_byte_never_looks_like_a_clean_end(whole, body, fields, end):
    """At every offset of head and body: a 502 if nothing had been sent, else a part of the truth and no end; one errored record each."""
    is_http_1_0 = HTTP_1_0 in fields
    request = post(CHAT, body, *(field for field in fields if field != HTTP_1_0))
    request = request.replace(b"HTTP/1.1", b"HTTP/1.0", 1) if is_http_1_0 else request
    offsets, true_body = range(len(whole)), whole.partition(b"\r\n\r\n")[2]
    if b"transfer-encoding" in whole:
        true_body = body_of(whole)
    async with scripted(*[[whole[:offset], 0.0, end] for offset in offsets]) as engine, sidecar(engine.url, comment=False) as front:
        for offset in offsets:
            got, is_reset = await received(front.port, request)
            if got.startswith(b"HTTP/1.1 502 "):
                error = json.loads(body_of(got))["error"]
                assert (error["type"], is_reset) == ("upstream_closed", False)
                continue
            assert offset >= whole.index(b"\r\n\r\n") + 4
            assert got.startswith(b"HTTP/1.1 200 OK\r\n")
            begun = got.partition(b"\r\n\r\n")[2]
            if is_http_1_0:
                assert is_reset
            else:
                with pytest.raises(ValueError, match=r"cut|expected"):
                    body_of(got)
                begun = b"".join(re.findall(rb"[0-9a-f]+\r\n(.*?\n\n?)\r\n", begun, re.DOTALL)) if b"chunked" in got else begun
            assert true_body.startswith(begun)
        records = await front.records(len(offsets))
        await until(lambda: front.service.meter.unsettled == 0)
        assert {(record.facts.outcome, record.facts.error_type) for record in records} == {(Outcome.ERRORED, "upstream_closed")}
        assert len(records) == len(offsets)
        assert front.service.balance()["conserved"]


@pytest.mark.parametrize("end", [CUT, RESET])
async def test_t07_the_end_of_a_body_without_a_length(end):
    """Closed, it is the whole body (RFC 9112 section 6.3: nothing could tell it from one that broke off); reset, it is a cut."""
    head, body = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n", b"all of it, or half"
    whole, wanted = head + body, post(CHAT, INFER, NONE)
    async with scripted(*[[whole[:offset], 0.02, end] for offset in range(len(whole) + 1)]) as engine, sidecar(engine.url) as front:
        for offset in range(len(whole) + 1):
            got, _ = await received(front.port, wanted)
            if offset < len(head):
                assert got.startswith(b"HTTP/1.1 502 ")
            elif end is CUT:
                assert body_of(got) == whole[len(head):offset]
            else:
                with pytest.raises(ValueError, match="cut"):
                    body_of(got)
        outcomes = [record.facts.outcome for record in await front.records(len(whole) + 1)]
        assert outcomes.count(Outcome.COMPLETED) == (len(body) + 1 if end is CUT else 0)


HALF, WHOLE = chunked(sse(ONE)[:40])[:-5], chunked(sse(ONE))[:-5]
PHASES = {  # what the engine has said, what of it the client waits for, whether the answer was complete for the client
    "before the first byte": ([30.0], None, False),
    "between head and body": ([stream_head(), 30.0], b"\r\n\r\n", False),
    "inside a frame": ([stream_head(), HALF, 30.0], sse(ONE)[:40], False),
    "between frames": ([stream_head(), WHOLE, 30.0], sse(ONE), False),
    "behind the last word": ([stream_head(), chunked(WITH_USAGE)[:-5], 30.0], b"[DONE]\n\n", True),
}


@pytest.mark.parametrize("is_reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize(("script", "wait_for", "is_complete"), PHASES.values(), ids=PHASES)
async def test_t01_t03_a_client_that_leaves_in_any_phase_frees_the_engine_and_is_charged(script, wait_for, is_complete, is_reset):
    """The engine's connection is closed, there is one record with what it cost up to then, the account balances, no task is left."""
    async with scripted(script) as engine, sidecar(engine.url, comment=False) as front:
        await counting(front)
        tasks = len(asyncio.all_tasks())
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(post(CHAT, ASKED))
        if wait_for is None:
            await until(lambda: engine.requests)
        else:
            await asyncio.wait_for(reader.readuntil(wait_for), 10)
        await asyncio.sleep(0.06)  # three windows
        reset_now(writer) if is_reset else writer.close()
        async with asyncio.timeout(10):
            await engine.closed.wait()
        await until(lambda: front.service.meter.unsettled == 0 and front.service.traffic.active == 0)
        (record,) = await front.records(1)
        expected = (Outcome.COMPLETED, None) if is_complete else (Outcome.CANCELLED, "client_disconnected")
        assert (record.facts.outcome, record.facts.error_type) == expected
        joules = 400 * record.facts.end_ns / 1000
        assert joules * 0.5 < record.charge.energy_uj < joules * 1.5 + 20_000 * 400
        balance = front.service.balance()
        assert balance["conserved"]
        assert balance["requests_uj"] == record.charge.energy_uj
        await until(lambda: len(asyncio.all_tasks()) <= tasks)


@pytest.mark.parametrize("is_reset", [False, True], ids=["fin", "rst"])
async def test_t03_a_client_that_leaves_while_it_uploads_has_asked_for_nothing(is_reset):
    """No record, no charge, nothing for the engine, no task."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        tasks = len(asyncio.all_tasks())
        _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(post(CHAT, INFER)[:-5])
        await until(lambda: front.service.traffic.active == 1)
        reset_now(writer) if is_reset else writer.close()
        await until(lambda: front.service.traffic.active == 0 and len(asyncio.all_tasks()) <= tasks)
        assert engine.requests == []
        assert front.service.meter.unsettled == 0
        assert front.sink.records == []


class Slow(SteadyCounter):
    """Whose windows are long enough to catch somebody waiting for one."""

    period_ns = 400_000_000


@pytest.mark.parametrize("script", [[stream_head(), chunked(WITH_USAGE)], [answer(COUNTED)]], ids=["stream", "whole"])
async def test_t03_a_client_that_leaves_while_its_charge_settles(script):
    """The engine is done, its connection stays; the answer waits for its last window when the client goes: completed, once."""
    async with scripted(script) as engine, sidecar(engine.url, counter=Slow()) as front:
        await counting(front)
        tasks = len(asyncio.all_tasks())
        _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(post(CHAT, ASKED, "X-Energy-Include: settled"))
        await until(lambda: front.service.meter.unsettled == 1 and front.service.meter.in_flight == 0)
        writer.close()
        (record,) = await front.records(1)
        await until(lambda: front.service.traffic.active == 0 and len(asyncio.all_tasks()) <= tasks + engine.connections)
        assert record.facts.outcome is Outcome.COMPLETED
        assert len(front.sink.records) == 1
        assert body_of(await front.send(post("/a", b""))) == body_of(b"".join(step for step in script if isinstance(step, bytes)))
        assert engine.connections == 1


async def test_t03_what_the_engine_goes_on_to_draw_is_not_the_next_one_s():
    """Of two at once, the one that left is charged up to its end and the one that stayed for the rest: together, all that was drawn."""
    stays = [stream_head(), *[chunked(sse(frame("x")))[:-5], 0.02] * 20, chunked(sse(LAST, "[DONE]"))]
    async with scripted(stays) as engine, sidecar(engine.url, comment=False) as front:
        await counting(front)
        staying = asyncio.ensure_future(front.send(post(CHAT, ASKED)))
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(post(CHAT, ASKED))
        await asyncio.wait_for(reader.readuntil(sse(frame("x"))), 10)
        writer.close()
        await staying
        left, stayed = await front.records(2)
        assert (left.facts.outcome, stayed.facts.outcome) == (Outcome.CANCELLED, Outcome.COMPLETED)
        assert 0 < left.charge.energy_uj < stayed.charge.energy_uj
        assert front.service.balance()["requests_uj"] == left.charge.energy_uj + stayed.charge.energy_uj
