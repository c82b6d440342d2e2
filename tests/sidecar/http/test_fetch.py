"""One short answer, whole, whatever the engine does."""

import asyncio

import pytest

from perjoule.sidecar.http.connection import UpstreamError
from perjoule.sidecar.http.fetch import fetch
from perjoule.sidecar.http.upstream import Upstream
from tests.fakes.upstream import CUT, answer, chunked, scripted


async def test_an_answer_whole_however_it_is_framed():
    """With a length, in chunks, of any status; one connection serves them all."""
    chunks = b"HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(b"a", b"bc")
    async with scripted([answer(b"{}")], [chunks]) as engine:
        upstream = Upstream(engine.url + "/base", 5)
        assert await fetch(upstream, "/v1/models", [(b"Authorization", b"Bearer k")], timeout_s=20) == (200, b"{}")
        assert await fetch(upstream, "/metrics", timeout_s=20) == (404, b"abc")
        upstream.close()
    assert engine.connections == 1
    assert engine.requests[0].startswith(b"GET /base/v1/models HTTP/1.1\r\nHost: ")
    assert b"Authorization: Bearer k\r\n" in engine.requests[0]


async def test_a_connection_that_had_gone_stale_is_replaced():
    """The engine closes after its first answer without saying so: the second question is asked again over a fresh one."""
    async with scripted([answer(b"1"), CUT], [answer(b"2")]) as engine:
        upstream = Upstream(engine.url, 5)
        assert await fetch(upstream, "/", timeout_s=20) == (200, b"1")
        assert await fetch(upstream, "/", timeout_s=20) == (200, b"2")
        upstream.close()


@pytest.mark.parametrize("script", [[CUT], [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", CUT], [b"nonsense\r\n\r\n"]])
async def test_what_is_no_answer_is_an_error(script):
    """Nothing is made of half of one."""
    async with scripted(script) as engine:
        with pytest.raises(UpstreamError):
            await fetch(Upstream(engine.url, 5), "/", timeout_s=20)


async def test_one_that_does_not_end_is_not_waited_for_longer():
    """By time and by size, and the engine is told by a closed connection."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"
    async with scripted([head, 30.0]) as engine:
        with pytest.raises(TimeoutError):
            await fetch(Upstream(engine.url, 5), "/", timeout_s=0.2)
    async with scripted([head + b"x" * 2000, 30.0]) as engine:
        with pytest.raises(UpstreamError, match="exceeds 1000 bytes"):
            await asyncio.wait_for(fetch(Upstream(engine.url, 5), "/", timeout_s=20, most_bytes=1000), 20)
