"""The client of the relay bench counts exactly what comes, however it is cut, and calls nothing whole that is not."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.relay_client import Client, Tally, chat
from perjoule.bench.relay_upstream import OPENING, Wish, chunk, event, token
from tests.fakes.upstream import CUT, scripted


def frame(number):
    return token(b"%019d" % number)


def tally(frames, again=lambda: False):
    return Tally(chat(1, Wish(frames), 400), frames, again)


async def driven(script, seen):
    """One client against a scripted engine, to its end."""
    async with scripted(script) as engine:
        _, client = await asyncio.get_running_loop().create_connection(lambda: Client(seen), "127.0.0.1", engine.port)
        await asyncio.wait_for(client.done, 20)
        client.hang_up()
        return len(engine.requests)


@given(st.lists(st.integers(1, 700), max_size=30))
def test_frames_are_counted_however_reads_cut_them(cuts):
    """Eight tokens are eight, wherever the bytes are divided."""
    async def feed():
        client = Client(seen)
        client.transport = None
        rest = OPENING + b"".join(frame(number) for number in range(8))
        for size in cuts:
            client.data_received(rest[:size])
            rest = rest[size:]
        client.data_received(rest + b"0\r\n\r\n")
        client.done.cancel()

    seen = tally(8)
    asyncio.run(feed())
    assert (seen.frames, seen.requests, seen.lost, seen.failed, seen.begun) == (8, 1, 0, 0, 1)


def test_frames_that_were_written_anew_are_known():
    """A relay that words every frame itself keeps the text, and so the stamp."""
    async def feed():
        client = Client(seen)
        text = event(b'{"delta":{"content":"t%019d"},"index":0}' % 7)
        client.data_received(OPENING + chunk(text) * 2 + b"0\r\n\r\n")
        client.done.cancel()

    seen = tally(2)
    asyncio.run(feed())
    assert (seen.frames, seen.lost) == (2, 0)


async def test_a_frame_that_is_missing_is_lost():
    """An answer that ends cleanly with two of three tokens has lost one."""
    seen = tally(3)
    await driven([OPENING + frame(1) + frame(2) + b"0\r\n\r\n"], seen)
    assert (seen.requests, seen.lost, seen.failed) == (1, 1, 0)


@pytest.mark.parametrize("said", [b"", OPENING, OPENING + frame(1), b"nonsense\r\n\r\n"], ids=["nothing", "head", "frame", "no HTTP"])
async def test_an_answer_that_breaks_off_has_failed(said):
    """A cut is a failure, and no answer."""
    seen = tally(3)
    await driven([said, CUT] if said else [CUT], seen)
    assert (seen.requests, seen.failed) == (0, 1)


async def test_an_error_has_failed():
    """A status other than 200 is no answer worth its time, and is not asked for again."""
    seen = tally(0, again=lambda: True)
    assert await driven([b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"], seen) == 1
    assert (seen.failed, seen.lost, seen.requests, len(seen.answer_ns)) == (1, 0, 0, 0)


async def test_requests_go_on_while_they_are_wanted():
    """One connection sends the next request when the answer is whole, and stops when told; each answer is timed."""
    left = iter([True, True, False])
    seen = tally(0, again=lambda: next(left))
    assert await driven([b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"], seen) == 3
    assert (seen.requests, len(seen.answer_ns), seen.failed) == (3, 3, 0)
    assert min(seen.answer_ns) > 0


@pytest.mark.parametrize("size", [400, 1000, 1_000_000])
def test_a_request_has_the_body_size_that_it_states(size):
    """To the byte."""
    head, _, body = chat(1, Wish(5, 20), size).partition(b"\r\n\r\n")
    assert len(body) == size
    assert b"Content-Length: %d" % size in head
