"""The front: errors of our own in the API's shape, answers that were written already, resets that are resets."""

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager, suppress

import pytest

from perjoule.sidecar.http.front import Front, error_answer, error_body, json_answer
from tests.fakes.sidecar import body_of


@asynccontextmanager
async def listening(handler, **settings):
    """A front on a port of its own; yields its address."""
    front = Front(handler, **settings)
    server = await asyncio.get_running_loop().create_server(front, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        await front.close(1)


async def exchange(handler, request):
    """What a front with this handler answers to these bytes, up to the end of the connection."""
    async with listening(handler) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request)
        try:
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()


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
    """Nothing is added, and the next request is served the next request only where the answer allows it."""
    seen = []

    async def handler(request):
        seen.append(request.target)
        last = len(seen) == 2
        request.client.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % len(seen))
        return keep_alive and not last

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
        got.append(request.body.taken())
        request.client.transport.write(error_answer(400, "", keep_alive=False))
        return False

    await exchange(handler, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x00")
    assert got == [b"\x1f\x8b\x00"]


async def test_a_reset_is_not_an_end_of_file():
    """For a client to whom the end of the connection is the end of the body."""
    async def handler(request):
        request.client.transport.write(b"HTTP/1.0 200 OK\r\n\r\nhalf")
        await asyncio.sleep(0.1)
        request.client.reset()
        return False

    with pytest.raises(ConnectionResetError):
        await exchange(handler, b"GET / HTTP/1.0\r\n\r\n")


async def echo(request):
    """Answers the request's path."""
    request.client.transport.write(json_answer(200, request.target.encode(), keep_alive=request.keep_alive))
    return request.keep_alive


async def test_t43_a_head_that_trickles_is_cut_off():
    """A byte now and then does not hold a connection: 408 in the API's shape, and the end."""
    async with listening(echo, slow_sender_s=0.3) as address:
        reader, writer = await asyncio.open_connection(*address)
        for byte in b"GET / HT":
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        raw = await asyncio.wait_for(reader.read(), 10)
        assert raw.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert json.loads(body_of(raw))["error"]["message"] == "the request's head was not whole after 0.3 s (--slow-sender-s)"
        writer.close()


async def test_t43_a_second_head_that_trickles_is_cut_off():
    """Also on a connection that has served a request; while one that only rests is left alone."""
    async with listening(echo, slow_sender_s=1) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(GET)
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n/"), 10)).startswith(b"HTTP/1.1 200 OK\r\n")
        await asyncio.sleep(1.3)
        writer.write(GET[:-2])
        await asyncio.sleep(0.1)
        writer.write(GET[-2:])
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n/"), 10)).startswith(b"HTTP/1.1 200 OK\r\n")
        await asyncio.sleep(1.3)
        writer.write(GET[:-2])
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_t43_a_body_in_pieces_is_no_head():
    """Who has sent one, and rests, is not cut off."""
    async def handler(request):
        while await request.body.some():
            pass
        return await echo(request)

    async with listening(handler, slow_sender_s=1) as address:
        reader, writer = await asyncio.open_connection(*address)
        for _ in range(50):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
            for byte in (b"a", b"b", b"c"):
                writer.write(byte)
                await asyncio.sleep(0)
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n/"), 10)
        await asyncio.sleep(1.3)
        writer.write(GET)
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n/"), 10)).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()


async def test_t43_who_is_one_too_many_is_told_so():
    """503 at once instead of a place in a queue that does not move; with one gone there is room again."""
    async with listening(echo, max_connections=2) as address:
        clients = [await asyncio.open_connection(*address) for _ in range(3)]
        refused = await asyncio.wait_for(clients[2][0].read(), 10)
        assert refused.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert json.loads(body_of(refused))["error"]["message"] == "2 clients are connected, which is all there is room for"
        for _, writer in clients[1:]:
            writer.close()
            await writer.wait_closed()
        raw = b""
        while not raw.startswith(b"HTTP/1.1 200"):  # until the server has seen that one is gone
            reader, writer = await asyncio.open_connection(*address)
            writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            with suppress(ConnectionError):
                raw = await asyncio.wait_for(reader.read(), 10)
            writer.close()
        clients[0][1].close()


def test_room_is_made_for_as_many_connections_as_the_system_allows():
    """Two files each, with some left for the ledger and the rest; a shell's 1,024 are raised."""
    code = ("import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096));"
            "from perjoule.sidecar.http.front import room_for_connections; print(room_for_connections(), *resource.getrlimit(7))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2016", "4096", "4096"]
