"""The cheap engine of the relay bench answers what the prompt wishes, as vLLM frames it."""

import asyncio
import time
from contextlib import asynccontextmanager

import orjson
import pytest

from perjoule.adapters.engines.questions import recognise
from perjoule.bench.relay_client import chat
from perjoule.bench.relay_upstream import STAMP, Engine, Wish, token
from perjoule.sidecar.units import NS_PER_MS
from tests.fakes.sidecar import body_of


@asynccontextmanager
async def engine():
    """Its port."""
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ask(port, request, end):
    """The raw answer, up to and with `end`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    writer.write(request)
    raw = await asyncio.wait_for(reader.readuntil(end), 20)
    writer.close()
    await writer.wait_closed()
    return raw


def events(raw):
    """The data of each event of a whole chunked answer."""
    return [event.removeprefix(b"data: ") for event in body_of(raw).split(b"\n\n")[:-1]]


def test_a_frame_is_as_long_as_one_of_vllm():
    """About 230 bytes, the chunk's frame included."""
    assert 225 <= len(token(b"0" * 19)) <= 240


@pytest.mark.parametrize("gap_ms", [0, 5])
async def test_a_stream_has_the_frames_that_were_wished_for(gap_ms):
    """A role, so many tokens with rising stamps that lie the gap apart, a reason to stop, [DONE], and a clean end."""
    async with engine() as port:
        began_ns = time.monotonic_ns()
        said = events(await ask(port, chat(port, Wish(20, gap_ms), 1000), b"\r\n0\r\n\r\n"))
    assert said[-1] == b"[DONE]"
    chunks = [orjson.loads(event) for event in said[:-1]]
    assert {(chunk["object"], chunk["model"]) for chunk in chunks} == {("chat.completion.chunk", "m")}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 21 + ["stop"]
    stamps = [int(STAMP.search(event)[1]) for event in said[1:-2]]
    assert len(stamps) == 20
    assert stamps == sorted(stamps)
    assert stamps[0] >= began_ns
    assert stamps[-1] - stamps[0] >= 19 * (gap_ms - 1) * NS_PER_MS  # the loop's timers count whole milliseconds


async def test_usage_is_sent_to_who_asks_for_it():
    """With `include_usage` the last event before [DONE] has the counts and no choice; without, there is none."""
    async with engine() as port:
        request = chat(port, Wish(3), 1000)
        plain = events(await ask(port, request, b"\r\n0\r\n\r\n"))
        asked = request.replace(b'"stream":true}', b'"stream":true,"stream_options":{"include_usage": true}}')
        longer = int(request.split(b"Content-Length: ")[1].split(b"\r\n")[0]) + len(asked) - len(request)
        with_usage = events(await ask(port, asked.replace(b"Content-Length: 1000", b"Content-Length: %d" % longer), b"\r\n0\r\n\r\n"))
    assert not any(b'"usage"' in event for event in plain)
    said = orjson.loads(with_usage[-2])
    assert (said["choices"], said["usage"]["completion_tokens"]) == ([], 3)


@pytest.mark.parametrize("size", [600, 1_000_000])
async def test_an_answer_that_is_not_streamed_has_a_length_and_a_text_of_the_wished_size(size):
    """A whole chat.completion with usage."""
    async with engine() as port:
        body = orjson.loads(body_of(await ask(port, chat(port, Wish(0, 0, size), 1000), b"}}")))
    assert len(body["choices"][0]["message"]["content"]) == size
    assert body["usage"]["completion_tokens"] > 0


async def test_one_connection_serves_one_request_after_the_other_and_large_bodies():
    """A megabyte of prompt comes in many reads, and the connection is good for another request."""
    async with engine() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        for size in (1_000_000, 1000, 1_000_000):
            writer.write(chat(port, Wish(0, 0, 100), size))
            assert b'"finish_reason":"stop"' in await asyncio.wait_for(reader.readuntil(b"}}"), 20)
        writer.close()


async def test_it_is_taken_for_vllm():
    """The sidecar treats it as the engine that it imitates, with all that follows: usage is asked for and hidden."""
    async with engine() as port:
        found = await recognise(f"http://127.0.0.1:{port}")
    assert (found.name, found.version, found.model) == ("vllm", "0.25.1", "m")
