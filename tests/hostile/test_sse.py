"""T24–T27: streams that are cut, glued, endless, slow, or that carry bad news."""

import asyncio

import pytest

from perjoule.sidecar.record import Outcome, TokenSource
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import PAUSE, chunked, scripted, sse, stream_head
from tests.hostile.wire import ASKED, CHAT, ONE, ROLE, STREAM, WITH_USAGE, engine_of, frame, rss_kb

ENDS = {"lf": b"\n", "crlf": b"\r\n", "cr": b"\r"}


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
async def test_t24_other_line_ends_pass_as_they_are_however_they_are_cut(ends):
    """LF, CRLF and CR streams, whole and with every byte in a read of its own: bytes kept, tokens counted."""
    stream = WITH_USAGE.replace(b"\n", ends)
    byte_by_byte = [step for i in range(len(stream)) for step in (PAUSE, chunked(stream[i:i + 1])[:-5])]
    async with scripted([stream_head(), *byte_by_byte, b"0\r\n\r\n"], [stream_head(), chunked(stream)]) as engine, \
            sidecar(engine.url, comment=False) as front:
        for _ in range(2):
            assert body_of(await front.send(post(CHAT, ASKED))) == stream
        for record in await front.records(2):
            assert (record.facts.output_tokens, record.facts.output_source) == (2, TokenSource.USAGE)


UNUSUAL = {
    "no_space": WITH_USAGE.replace(b"data: ", b"data:"),
    "comments": WITH_USAGE.replace(b"data: ", b": keep-alive\n\ndata: "),
    "comments_inside_events": WITH_USAGE.replace(b"data: ", b": keep-alive\ndata: "),
    "named_events": WITH_USAGE.replace(b"data: ", b"event: message\nid: 1\nretry: 10\ndata: "),
    "many_data_lines": WITH_USAGE.replace(b'"choices"', b'\ndata: "choices"'),
    "no_last_blank_line": WITH_USAGE.removesuffix(b"\n\n"),
    "no_done": WITH_USAGE.removesuffix(b"data: [DONE]\n\n"),
    "a_byte_order_mark": b"\xef\xbb\xbf: hello\n\n" + WITH_USAGE,
    "blank_lines": b"\n\n\n" + WITH_USAGE.replace(b"\n\n", b"\n\n\n\n"),
}


@pytest.mark.parametrize("stream", UNUSUAL.values(), ids=UNUSUAL)
async def test_t24_whatever_an_event_stream_may_be_passes_and_is_counted(stream):
    """Every form that the standard allows, in one read and in reads of seven bytes: bytes kept, two tokens."""
    sevens = [step for i in range(0, len(stream), 7) for step in (PAUSE, chunked(stream[i:i + 7])[:-5])]
    async with scripted([stream_head(), chunked(stream)], [stream_head(), *sevens, b"0\r\n\r\n"]) as engine, \
            sidecar(engine.url, comment=False) as front:
        for _ in range(2):
            assert body_of(await front.send(post(CHAT, ASKED))) == stream
        assert [record.facts.output_tokens for record in await front.records(2)] == [2, 2]


@pytest.mark.parametrize("body", [ASKED, STREAM], ids=["asked", "hidden"])
async def test_t25_an_event_without_an_end_is_not_kept(body):
    """A hundred megabytes without a blank line come through whole, in linear time, and are not piled up on their way."""
    piece, count = b"x" * 65536, 1600
    endless = [stream_head(), chunked(b"data: ")[:-5], *[chunked(piece)[:-5]] * count, b"0\r\n\r\n"]
    async with scripted(endless) as engine, sidecar(engine.url, comment=False) as front:
        before_kb = most_kb = rss_kb()
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(post(CHAT, body))
        got = 0
        async with asyncio.timeout(60):
            while data := await reader.read(1 << 20):
                got += len(data)
                most_kb = max(most_kb, rss_kb())
        writer.close()
        assert got > len(piece) * count
        assert most_kb - before_kb < 50_000
        (record,) = await front.records(1)
        assert record.facts.outcome is Outcome.COMPLETED


@pytest.mark.parametrize("settings", [{}, {"comment": False}], ids=["comment", "bare"])
@pytest.mark.parametrize("body", [ASKED, STREAM], ids=["asked", "hidden"])
async def test_t26_a_frame_never_waits_for_the_next_one(body, settings):
    """The engine sends its next frame once the client has seen the last one: with anything held back, both would wait for ever."""
    seen = asyncio.Event()

    async def engine(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(stream_head())
        for text in "abcdef":
            writer.write(chunked(sse(frame(text)))[:-5])
            await asyncio.wait_for(seen.wait(), 10)
            seen.clear()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async with engine_of(engine) as url, sidecar(url, **settings) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(post(CHAT, body))
        for text in "abcdef":
            await asyncio.wait_for(reader.readuntil(sse(frame(text))), 10)
            seen.set()
        assert (await asyncio.wait_for(reader.read(), 10)).endswith(b"0\r\n\r\n")
        writer.close()


async def test_t26_the_head_of_a_stream_does_not_wait_for_its_first_frame():
    """A client learns at once that its stream has begun, long before the prompt is computed."""
    async with scripted([stream_head(), 30.0]) as engine, sidecar(engine.url) as front:
        assert (await front.send(post(CHAT, STREAM), until=b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


BAD_NEWS = '{"error":{"message":"EngineCore died","type":"InternalServerError","code":500}}'


@pytest.mark.parametrize("events", [(ONE, BAD_NEWS, "[DONE]"), (BAD_NEWS, "[DONE]"), (ROLE, ONE, BAD_NEWS)],
                         ids=["in_the_middle", "at_once", "and_no_done"])
@pytest.mark.parametrize("body", [ASKED, STREAM], ids=["asked", "hidden"])
async def test_t27_an_error_inside_a_stream_is_an_error(events, body):
    """The engine answers 200 and then fails: relayed untouched, and the record says errored."""
    stream = sse(*events)
    async with scripted([stream_head(), chunked(stream)]) as engine, sidecar(engine.url, comment=False) as front:
        assert body_of(await front.send(post(CHAT, body))) == stream
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.facts.http_status) == (Outcome.ERRORED, 200)
        assert record.facts.error_type == "InternalServerError"
