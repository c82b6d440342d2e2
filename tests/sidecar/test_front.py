"""aiohttp's server as the front: errors of our own in the API's shape, answers that were written already, resets that are resets."""

import asyncio
import json

import pytest
from aiohttp import web

from perjoule.sidecar.front import Relayed, error_answer, error_body, make_front
from tests.fakes.sidecar import body_of


async def exchange(handler, request):
    """What a front with this handler answers to these bytes, up to the end of the connection."""
    front = web.ServerRunner(make_front(handler), shutdown_timeout=1)
    await front.setup()
    await web.TCPSite(front, "127.0.0.1", 0).start()
    reader, writer = await asyncio.open_connection(*front.addresses[0])
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await front.cleanup()


GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_an_error_has_openai_s_shape():
    """Client libraries read `error.message`, `error.type`, `error.param` and `error.code`."""
    assert json.loads(error_body(413, "too large")) == {
        "error": {"message": "too large", "type": "perjoule_error", "param": None, "code": 413}}
    assert json.loads(error_body(502, "gone", "upstream_closed"))["error"]["type"] == "upstream_closed"


@pytest.mark.parametrize("keep_alive", [True, False])
def test_an_error_answer_is_whole(keep_alive):
    """Status line, length, and whether the connection goes on."""
    raw = error_answer(504, "späť", "upstream_timeout", keep_alive=keep_alive)
    assert raw.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
    assert json.loads(body_of(raw))["error"]["message"] == "späť"
    assert (b"Connection: close" in raw) is not keep_alive


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_an_answer_that_was_written_already_is_not_written_again(keep_alive):
    """aiohttp adds nothing, and serves the next request only where the answer allows it."""
    seen = []

    async def handler(request):
        seen.append(request.raw_path)
        last = len(seen) == 2
        request.protocol.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % len(seen))
        return Relayed(keep_alive=keep_alive and not last)

    raw = await exchange(handler, GET + GET)
    assert raw == b"".join(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % i for i in ((1, 2) if keep_alive else (1,)))


async def test_a_fault_of_ours_is_a_500_that_tells_nothing(caplog):
    """The client hears that it failed, the log hears why."""
    async def handler(request):
        raise RuntimeError("the secret reason")

    raw = await exchange(handler, GET)
    assert raw.startswith(b"HTTP/1.1 500 ")
    assert json.loads(body_of(raw))["error"]["message"] == "Internal Server Error"
    assert b"secret" not in raw
    assert "the secret reason" in caplog.text


async def test_compressed_request_bodies_are_not_unpacked():
    """The engine gets what the client sent."""
    got = []

    async def handler(request):
        got.append(await request.read())
        request.protocol.transport.write(error_answer(400, "", keep_alive=False))
        return Relayed(keep_alive=False)

    await exchange(handler, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x00")
    assert got == [b"\x1f\x8b\x00"]


async def test_a_reset_is_not_an_end_of_file():
    """For a client to whom the end of the connection is the end of the body."""
    async def handler(request):
        request.protocol.transport.write(b"HTTP/1.0 200 OK\r\n\r\nhalf")
        await asyncio.sleep(0.1)
        request.protocol.reset()
        return Relayed(keep_alive=False)

    with pytest.raises(ConnectionResetError):
        await exchange(handler, b"GET / HTTP/1.0\r\n\r\n")
