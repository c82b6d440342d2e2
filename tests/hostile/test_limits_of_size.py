"""Heads and bodies up to every limit go through; beyond it they are refused in OpenAI's shape, and the engine is not bothered."""

import asyncio
import json

import pytest

from perjoule.sidecar.http.connection import HEAD_LIMIT
from perjoule.sidecar.http.inbound import FIELD_LIMIT, FIELDS_LIMIT
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import answer, chunked, scripted
from tests.hostile.wire import CHAT, INFER, until

MB = 1_000_000


def head(target=b"/v1/models", *fields):
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: a", b"Connection: close", *fields, b"", b""])


WITHIN = {
    "field": head(b"/", b"X-A: " + b"v" * (FIELD_LIMIT - 100)),
    "name": head(b"/", b"X" * (FIELD_LIMIT - 100) + b": v"),
    "target": head(b"/" + b"a" * (FIELD_LIMIT - 100)),
    "fields": head(b"/", *(b"X-%d: 1" % i for i in range(FIELDS_LIMIT - 10))),
}
BEYOND = {
    "field": head(b"/", b"X-A: " + b"v" * (FIELD_LIMIT + 10)),
    "name": head(b"/", b"X" * (FIELD_LIMIT + 10) + b": v"),
    "target": head(b"/" + b"a" * (FIELD_LIMIT + 10)),
    "fields": head(b"/", *(b"X-%d: 1" % i for i in range(FIELDS_LIMIT + 1))),
    "field_without_an_end": b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"v" * (4 * FIELD_LIMIT),
    "target_without_an_end": b"GET /" + b"a" * (4 * FIELD_LIMIT),
    "fields_without_an_end": b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: 1\r\n" * 20_000,
}


@pytest.mark.parametrize("request_bytes", WITHIN.values(), ids=WITHIN)
async def test_t32_a_head_within_the_limits_goes_through(request_bytes):
    """Every byte of it arrives."""
    async with scripted([answer(b"fine")]) as engine, sidecar(engine.url) as front:
        assert body_of(await front.send(request_bytes)) == b"fine"
        assert engine.requests[0] == request_bytes.replace(b"Connection: close\r\n", b"")


@pytest.mark.parametrize("request_bytes", BEYOND.values(), ids=BEYOND)
async def test_t38_a_head_beyond_the_limits_is_refused(request_bytes):
    """431, short and without an echo of what came; the connection is closed."""
    async with scripted([answer(b"")]) as engine, sidecar(engine.url) as front:
        raw = await front.send(request_bytes, until=b"}}")
        assert raw.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        assert b"\r\nConnection: close\r\n" in raw
        assert json.loads(body_of(raw))["error"]["code"] == 431
        assert len(raw) < 400
        assert engine.requests == []


@pytest.mark.parametrize("name", ["field", "name"])
@pytest.mark.parametrize("together", [FIELD_LIMIT // 2, None], ids=["its beginning", "all of it"])
async def test_t38_a_line_beyond_the_limit_is_refused_behind_another_request_too(name, together):
    """Though (so much of) it came together with the other one, which was of use."""
    async with scripted([answer(b"fine")]) as engine, sidecar(engine.url) as front:
        reader, writer = await front.connect()
        raw = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + BEYOND[name]
        writer.write(raw[:together])
        first = await reader.readuntil(b"fine")
        writer.write(raw[len(raw[:together]):])
        second = await reader.readuntil(b"}}")
        writer.close()
        assert first.startswith(b"HTTP/1.1 200 OK\r\n")
        assert second.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        assert len(engine.requests) == 1


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_t38_a_body_at_the_limit_goes_through_and_one_beyond_is_refused(is_chunked):
    """413 for one byte too many, whether it was announced or came chunk by chunk, and the engine hears only of the other."""
    def request(size):
        body = b"x" * size
        if not is_chunked:
            return post(CHAT, body)
        pieces = [body[i:i + 9999] for i in range(0, size, 9999)]
        return post(CHAT, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + chunked(*pieces)

    async with scripted([answer(b"fine")]) as engine, sidecar(engine.url, max_body_mb=1) as front:
        assert body_of(await front.send(request(MB))) == b"fine"
        raw = await front.send(request(MB + 1), until=b"}}")
        assert raw.startswith(b"HTTP/1.1 413 ")
        assert json.loads(body_of(raw))["error"]["code"] == 413
        assert len(engine.requests) == 1


async def test_t38_a_body_that_is_announced_beyond_all_measure_is_not_waited_for():
    """Nine terabytes are refused by their announcement, before a byte of them has come, and nothing is kept for them."""
    async with scripted([answer(b"")]) as engine, sidecar(engine.url) as front:
        raw = await front.send(post(CHAT, b"").replace(b"Content-Length: 0", b"Content-Length: 9000000000000"), until=b"}}")
        assert raw.startswith(b"HTTP/1.1 413 ")
        assert engine.requests == []


async def test_t38_a_chunked_body_without_an_end_is_refused_at_the_limit():
    """A client that never stops is answered while it sends, and cut off; what it sent is not kept."""
    async with scripted([answer(b"")]) as engine, sidecar(engine.url, max_body_mb=1) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(post(CHAT, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))

        async def send():
            while True:
                writer.write(b"%x\r\n%b\r\n" % (65536, b"x" * 65536))
                await writer.drain()

        sending = asyncio.ensure_future(send())
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n"), 10)).startswith(b"HTTP/1.1 413 ")
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()
        await until(lambda: front.service.traffic.active == 0)
        assert engine.requests == []


@pytest.mark.parametrize(("size", "status"), [(HEAD_LIMIT - 1000, 200), (3 * HEAD_LIMIT, 502)])
async def test_t32_the_head_of_an_answer_has_a_limit_too(size, status):
    """A quarter of a megabyte passes; an engine that never comes to the end of its head is given up, and the client told."""
    many = [f"x-{i}: {'v' * 990}" for i in range(size // 1000)]
    async with scripted([answer(b"{}", *many)]) as engine, sidecar(engine.url) as front:
        raw = await front.send(post(CHAT, INFER))
        assert raw.startswith(f"HTTP/1.1 {status} ".encode())
        assert raw.count(b"v" * 990) == (len(many) if status == 200 else 0)


async def test_t32_an_answer_s_head_without_an_end_is_given_up():
    """It is not piled up: the engine is left, and the client gets a 502."""
    endless = [b"HTTP/1.1 200 OK\r\n", *[b"x-a: " + b"v" * 10_000 + b"\r\n"] * 200, 30.0]
    async with scripted(endless) as engine, sidecar(engine.url) as front:
        raw = await front.send(post(CHAT, INFER))
        assert raw.startswith(b"HTTP/1.1 502 ")
        assert json.loads(body_of(raw))["error"]["type"] == "upstream_protocol"
