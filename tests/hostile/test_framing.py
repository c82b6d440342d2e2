"""T28–T40: heads, encodings, methods and targets: what goes through byte for byte, what stays on its hop, what is refused."""

import asyncio
import gzip
import json
import re
import zlib

import pytest

from perjoule.bench.child import child
from perjoule.sidecar.record import TokenSource
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import CUT, answer, chunked, scripted, sse, stream_head
from tests.hostile.wire import ASKED, CHAT, COUNTED, INFER, ONE, STREAM, WITH_USAGE, counting, engine_of, rss_kb, until

GET = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"

BR = bytes.fromhex("0b02807b7d03")  # `{}` in brotli, `{}` in zstd: neither is read here, both pass
ZSTD = bytes.fromhex("28b52ffd2002110000") + b"{}"
ENCODED = {"gzip": gzip.compress(COUNTED), "deflate": zlib.compress(COUNTED), "x-gzip": gzip.compress(COUNTED), "br": BR, "zstd": ZSTD}


@pytest.mark.parametrize(("encoding", "body"), ENCODED.items(), ids=ENCODED)
async def test_t28_a_compressed_answer_keeps_its_bytes_its_encoding_and_its_length(encoding, body):
    """Relayed as it is; its tokens are counted where the encoding can be read, unknown where not, and its joules known in either case."""
    async with scripted([answer(body, f"content-encoding: {encoding}")]) as engine, sidecar(engine.url) as front:
        await counting(front)
        raw = await front.send(post(CHAT, INFER))
        assert body_of(raw) == body
        assert f"\r\ncontent-encoding: {encoding}\r\ncontent".encode() in raw.replace(b"X-Energy", b"content")
        (record,) = await front.records(1)
        readable = encoding not in ("br", "zstd")
        assert (record.facts.output_tokens, record.facts.output_source) == ((2, TokenSource.USAGE) if readable else (None, None))
        assert record.charge.energy_uj is not None


async def test_t28_a_compressed_stream_keeps_its_bytes_and_is_counted():
    """No comment is put into gzip, and its events are read beside it."""
    packed = gzip.compress(WITH_USAGE)
    script = [stream_head("content-encoding: gzip"), *[chunked(packed[i:i + 50])[:-5] for i in range(0, len(packed), 50)], b"0\r\n\r\n"]
    async with scripted(script) as engine, sidecar(engine.url) as front:
        assert body_of(await front.send(post(CHAT, ASKED))) == packed
        (record,) = await front.records(1)
        assert (record.facts.output_tokens, record.facts.output_source) == (2, TokenSource.USAGE)


async def test_t28_a_bomb_is_not_unpacked():
    """Two hundred megabytes of zeros in two hundred kilobytes: the client gets what was sent, and nobody what it would be."""
    pack = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS + 16)
    bomb = b"".join([*(pack.compress(bytes(1 << 24)) for _ in range(12)), pack.flush()])
    async with scripted([answer(bomb, "content-encoding: gzip")]) as engine, sidecar(engine.url) as front:
        before_kb = rss_kb()
        assert body_of(await front.send(post(CHAT, INFER))) == bomb
        assert rss_kb() - before_kb < 100_000
        (record,) = await front.records(1)
        assert record.facts.output_tokens is None


async def test_t29_a_compressed_request_goes_on_as_it_is():
    """Nothing is unpacked, read or spliced."""
    body = gzip.compress(STREAM)
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        await front.send(post(CHAT, body, "Content-Encoding: gzip"))
        assert engine.requests[0].endswith(b"\r\n\r\n" + body)
        assert b"\r\nContent-Encoding: gzip\r\n" in engine.requests[0]


ACCEPTED = {"gzip, deflate": b"gzip, deflate", "gzip, deflate, br, zstd": b"gzip, deflate", "br;q=1.0, gzip;q=0.5": b"gzip;q=0.5",
            "br": b"identity", "identity;q=0, *": b"identity;q=0"}


@pytest.mark.parametrize(("accepted", "asked"), ACCEPTED.items(), ids=ACCEPTED)
async def test_t30_no_encoding_is_asked_for_that_could_not_be_metered(accepted, asked):
    """Of an inference request's Accept-Encoding the engine sees what can be read here; of any other request, all of it."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        await front.send(post(CHAT, INFER, f"Accept-Encoding: {accepted}"))
        await front.send(post("/files", INFER, f"Accept-Encoding: {accepted}"))
        await front.send(post(CHAT, STREAM, f"Accept-Encoding: {accepted}"))
        found = [re.findall(rb"\r\naccept-encoding: ([^\r]*)", request, re.IGNORECASE) for request in engine.requests]
        assert found == [[asked], [accepted.encode()], []]


async def test_t31_fields_that_come_twice_go_on_twice():
    """Duplicates and their order survive both ways, singletons among them; the engine's Server and Date are its own."""
    ours = ("X-Twice: 1", "Authorization: Bearer a", "X-Twice: 2", "Authorization: Bearer b", "Cookie: a=1", "Cookie: b=2")
    theirs = ("server: uvicorn", "set-cookie: a=1", "server: nginx", "date: Thu, 01 Jan 1970 00:00:00 GMT", "set-cookie: b=2",
              "date: Fri, 02 Jan 1970 00:00:00 GMT", "vary: a", "vary: b")
    async with scripted([answer(b"{}", *theirs)]) as engine, sidecar(engine.url) as front:
        raw = await front.send(post(CHAT, INFER, *ours))
        there = [line for line in engine.requests[0].decode().split("\r\n") if line in ours]
        back = [line for line in raw.decode().split("\r\n") if line in theirs]
        assert (there, back) == (list(ours), list(theirs))
        assert len(re.findall(rb"\r\n(?:server|date): ", raw, re.IGNORECASE)) == 4


async def test_t32_large_heads_and_bytes_that_are_no_text_go_through_both_ways():
    """A field of 20 KB, 200 fields and a value in Latin-1 arrive as they were sent, at the engine and at the client."""
    many = [f"x-many-{i}: {i}" for i in range(200)]
    head = "\r\n".join([*many, f"x-large: {'v' * 20_000}", "x-name: M@ller"]).encode().replace(b"@", b"\xfc")
    whole = answer(b"{}").replace(b"\r\n\r\n", b"\r\n" + head + b"\r\n\r\n", 1)
    async with scripted([whole]) as engine, sidecar(engine.url) as front:
        raw = await front.send(post(CHAT, INFER).replace(b"\r\n\r\n", b"\r\n" + head + b"\r\n\r\n", 1))
        assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
        for line in head.split(b"\r\n"):
            assert raw.count(b"\r\n" + line + b"\r\n") == engine.requests[0].count(b"\r\n" + line + b"\r\n") == 1


SMUGGLED = b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"
MALFORMED = {
    "length_and_chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
    "chunked_and_length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + SMUGGLED,
    "two_lengths": POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + SMUGGLED,
    "the_same_length_twice": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a_list_of_lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}",
    "a_signed_length": POST + b"Content-Length: +2\r\n\r\n{}",
    "a_negative_length": POST + b"Content-Length: -2\r\n\r\n{}",
    "a_hexadecimal_length": POST + b"Content-Length: 0x2\r\n\r\n{}",
    "a_length_with_an_underscore": POST + b"Content-Length: 1_0\r\n\r\n{}",
    "an_empty_length": POST + b"Content-Length:\r\n\r\n{}",
    "a_length_beyond_64_bits": POST + b"Content-Length: 18446744073709551618\r\n\r\n{}",
    "chunked_twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + SMUGGLED,
    "chunked_in_two_fields": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
    "chunked_not_last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + SMUGGLED,
    "chunked_but_not_alone": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "chunked_in_a_list_of_nothing": POST + b"Transfer-Encoding: ,chunked\r\n\r\n" + CHUNKS,
    "chunked_in_quotes": POST + b'Transfer-Encoding: "chunked"\r\n\r\n' + CHUNKS,
    "chunked_behind_a_control": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKS,
    "chunked_with_a_letter_too_many": POST + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "chunked_in_http_1_0": POST.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
    "obsolete_folding": GET + b"X-A: 1\r\n  Content-Length: 9\r\n\r\n",
    "bare_line_feeds": b"GET /v1/models HTTP/1.1\nHost: a\nX-A: 1\n\n",
    "a_bare_line_feed": GET + b"X-A: 1\nX-B: 2\r\n\r\n",
    "a_bare_carriage_return": GET + b"X-A: 1\rX-B: 2\r\n\r\n",
    "a_space_before_the_colon": GET + b"X-A : 1\r\n\r\n",
    "a_name_that_is_none": GET + b": 1\r\n\r\n",
    "a_line_without_a_colon": GET + b"X-A\r\n\r\n",
    "a_null_in_a_name": GET + b"X\0A: 1\r\n\r\n",
    "a_null_in_a_value": GET + b"X-A: a\0b\r\n\r\n",
    "a_control_in_a_value": GET + b"X-A: a\x01b\r\n\r\n",
    "a_chunk_size_that_is_none": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nab\r\n0\r\n\r\n",
    "a_chunk_size_with_a_prefix": POST + b"Transfer-Encoding: chunked\r\n\r\n0x" + CHUNKS,
    "a_chunk_size_beyond_64_bits": POST + b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n",
    "a_chunk_longer_than_it_said": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n",
    "chunks_with_bare_line_feeds": POST + b"Transfer-Encoding: chunked\r\n\r\n2\n{}\n0\n\n",
    "a_line_feed_in_a_chunk_extension": POST + b"Transfer-Encoding: chunked\r\n\r\n2;a=\nb\r\n{}\r\n0\r\n\r\n",
    "a_length_in_the_trailers": POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n",
    "no_host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "two_hosts": GET + b"Host: b\r\n\r\n",
    "a_method_that_is_none": b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a_version_to_come": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "http_2_without_asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls_without_asking": bytes.fromhex("16030100b9010000b50303"),
}


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED)
async def test_t33_what_two_parsers_could_read_differently_is_refused(request_bytes):
    """400 in OpenAI's shape, the connection closed, and not a byte to the engine."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        raw = await front.send(request_bytes)
        assert raw.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"\r\nConnection: close\r\n" in raw
        assert json.loads(body_of(raw))["error"]["code"] == 400
        assert engine.requests == []


UNSERVED = {
    505: b"GET /v1/models\r\n\r\n",
    501: b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\nSSH-2.0-x\r\n",
    417: POST + b"Expect: a-miracle\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize(("status", "request_bytes"), UNSERVED.items(), ids=map(str, UNSERVED))
async def test_t33_what_is_not_served_is_said(status, request_bytes):
    """HTTP/0.9, a tunnel, an expectation that nobody would meet: the status that HTTP has for it, and nothing to the engine."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        raw = await front.send(request_bytes)
        assert raw.startswith(f"HTTP/1.1 {status} ".encode())
        assert json.loads(body_of(raw))["error"]["code"] == status
        assert engine.requests == []


@pytest.mark.parametrize("rest", [b"-1\r\nab", b"2;a=\nb\r\n{}", b"zz\r\n", b"2\r\n{}{}"])
async def test_t33_chunks_that_turn_out_to_be_malformed_are_refused_at_once(rest, caplog):
    """The head and one chunk were fine and came alone; what follows is answered with 400, and the handler does not wait for more."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
        await until(lambda: front.service.traffic.active == 1)
        await asyncio.sleep(0.05)
        writer.write(rest + b"\r\n")
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 400 Bad Request\r\n")
        writer.close()
        await until(lambda: front.service.traffic.active == 0)
        assert engine.requests == []
        assert not [line for line in caplog.records if line.levelname == "ERROR"]


async def test_t33_an_answer_that_two_parsers_could_read_differently_is_the_last_on_its_connection():
    """An engine that says both Content-Length and Transfer-Encoding, or more than it was asked, is not asked again over that connection."""
    both = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(b"abc")
    async with scripted([both], [answer(b"abc") + answer(b"poison")], [answer(b"abc")]) as engine, sidecar(engine.url) as front:
        for _ in range(3):
            raw = await front.send(post("/a", b"x"))
            assert b"poison" not in raw
            assert raw.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 502 "))
        assert engine.connections == 3


async def test_t33_pipelined_requests_are_answered_in_their_order():
    """Three requests in one write: three answers, each its own, over one connection of the engine at a time."""
    scripts = [[answer(b"1")], [stream_head(), chunked(b"2")], [answer(b"3")]]
    async with scripted(*scripts) as engine, sidecar(engine.url) as front:
        first, second = (post(f"/{i}", b"x" * i).replace(b"Connection: close\r\n", b"") for i in (1, 2))
        raw = await front.send(first + second + post("/3", b"xxx"))
        assert re.findall(rb"\r\n\r\n(?:1\r\n)?(\d)", raw) == [b"1", b"2", b"3"]
        assert [request.split(b" ")[1] for request in engine.requests] == [b"/1", b"/2", b"/3"]
        assert [request.rpartition(b"\r\n\r\n")[2] for request in engine.requests] == [b"x", b"xx", b"xxx"]


async def test_t33_what_is_pipelined_behind_a_good_request_does_not_spoil_it():
    """Garbage behind a whole request: that one is served, and the garbage is refused, also if both come in one read."""
    good, garbage = post("/1", b"x").replace(b"Connection: close\r\n", b""), b"\0\0\0\0"
    async with scripted([0.2, answer(b"fine")], [answer(b"fine")]) as engine, sidecar(engine.url) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(good)
        await until(lambda: engine.requests)
        writer.write(garbage)
        assert re.findall(rb"HTTP/1\.1 (\d+)", await asyncio.wait_for(reader.read(), 10)) == [b"200", b"400"]
        writer.close()
        assert re.findall(rb"HTTP/1\.1 (\d+)", await front.send(good + garbage)) == [b"200", b"400"]
        assert len(engine.requests) == 2


async def test_t34_fields_that_are_for_this_hop_stay_on_it():
    """What `Connection` nominates, and every hop-by-hop field, is not for the engine; nor are the engine's for the client."""
    ours = ("Connection: X-Secret", "X-Secret: 1", "Keep-Alive: 5", "Proxy-Authorization: x", "TE: trailers", "X-Kept: 1")
    theirs = answer(b"{}", "connection: x-hop", "x-hop: 1", "keep-alive: timeout=5", "x-kept: 1")
    async with scripted([theirs]) as engine, sidecar(engine.url) as front:
        raw = await front.send(post(CHAT, INFER, *ours))
        for name in (b"x-secret", b"connection:", b"keep-alive:", b"proxy-authorization:", b"te:"):
            assert b"\r\n" + name not in engine.requests[0].lower()
        assert b"\r\nX-Kept: 1" in engine.requests[0]
        assert b"\r\nx-kept: 1" in raw
        assert b"x-hop" not in raw
        assert b"timeout=5" not in raw


async def test_t34_nobody_nominates_away_what_makes_a_request_one():
    """`Connection: host, content-length` would leave the engine with a malformed request; both stay."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        await front.send(post(CHAT, INFER, "Connection: host, content-length"))
        assert b"\r\nHost: sidecar\r\n" in engine.requests[0]
        assert f"\r\nContent-Length: {len(INFER)}\r\n".encode() in engine.requests[0]


async def test_t34_an_upgrade_to_h2c_is_not_asked_for():
    """The engine sees an ordinary request, so that nobody tunnels past the sidecar."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        upgrade = ("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", "Connection: Upgrade, HTTP2-Settings")
        raw = await front.send(post("/v1/models", b"", *upgrade, method="GET").replace(b"Connection: close\r\n", b""), until=b"{}")
        assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
        assert len(engine.requests) == 1
        assert b"upgrade" not in engine.requests[0].lower()
        assert b"http2-settings" not in engine.requests[0].lower()


async def test_t34_an_engine_that_switches_protocols_unasked_is_an_error():
    """101 out of the blue is a 502, not a tunnel."""
    switches = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nPRI"
    async with scripted([switches]) as engine, sidecar(engine.url) as front:
        assert (await front.send(post(CHAT, INFER))).startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_t35_a_redirect_is_the_client_s_to_follow(status):
    """It is relayed with its Location, and nobody is asked there."""
    async with scripted([answer(b"", f"location: http://127.0.0.1:1/{CHAT}", status=status)]) as engine, sidecar(engine.url) as front:
        raw = await front.send(post(CHAT, INFER))
        assert raw.startswith(f"HTTP/1.1 {status}\r\n".encode())
        assert b"location: http://127.0.0.1:1/" in raw
        assert len(engine.requests) == 1


async def test_t36_nobody_s_cookie_or_key_is_sent_for_another():
    """What the engine set for one client, and what that one sent, is not in the next one's request."""
    async with scripted([answer(b"{}", "set-cookie: session=alice; Path=/")]) as engine, sidecar(engine.url) as front:
        await front.send(post(CHAT, INFER, "Cookie: a=1", "Authorization: Bearer alice"))
        await front.send(post(CHAT, INFER))
        assert b"alice" not in engine.requests[1]
        assert b"cookie" not in engine.requests[1].lower()
        assert engine.connections == 1


async def test_t37_no_proxy_of_the_environment_is_used(monkeypatch):
    """With every variable for one set, neither traffic nor the questions to the engine go anywhere but to the upstream."""
    async with scripted([answer(b"{}")]) as trap, scripted([answer(b"fine")]) as engine:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, trap.url)
            monkeypatch.setenv(name.upper(), trap.url)
        off = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ledger", "off", "--calibrations", "off", "--energy", "simulated")
        async with child("perjoule.main", "serve", "--upstream", engine.url, *off) as said:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(said["listen"].rpartition(":")[2]))
            writer.write(post("/v1/models", b"", "Host: elsewhere.example", method="GET").replace(b"Host: sidecar\r\n", b""))
            assert body_of(await asyncio.wait_for(reader.read(), 10)) == b"fine"
            writer.close()
            assert any(b"Host: elsewhere.example" in request for request in engine.requests)
        assert trap.requests == []


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "GET", "POST", "DELETE"])
@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified", "200 OK"])
async def test_t38_answers_without_a_body_leave_the_connection_usable(method, status):
    """Two in a row over one client connection and one engine connection, bodies where there are bodies."""
    is_bodyless = method == "HEAD" or not status.startswith("200")
    script = answer(b"" if is_bodyless else b"body")
    script = f"HTTP/1.1 {status}\r\netag: x\r\n\r\n".encode() if not status.startswith("200") else script
    async with scripted([script]) as engine, sidecar(engine.url) as front:
        request = post("/v1/models", b"", method=method)
        raw = await front.send(request.replace(b"Connection: close\r\n", b"") + request)
        assert raw.count(f"HTTP/1.1 {status}\r\n".encode()) == 2
        assert raw.count(b"body") == (0 if is_bodyless else 2)
        assert engine.connections == 1


async def test_t38_a_preflight_is_the_engine_s_to_answer():
    """CORS is its business: OPTIONS goes there with its fields, and its answer comes back."""
    asked = ("Origin: https://a.example", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization")
    said = "access-control-allow-origin: https://a.example"
    async with scripted([f"HTTP/1.1 200 OK\r\n{said}\r\ncontent-length: 0\r\n\r\n".encode()]) as engine, sidecar(engine.url) as front:
        assert said.encode() in await front.send(post(CHAT, b"", *asked, method="OPTIONS"))
        assert all(field.encode() in engine.requests[0] for field in asked)


async def test_t38_an_empty_body_stays_an_empty_body():
    """`Content-Length: 0` on a POST goes on, and a GET without a length gets none."""
    async with scripted([answer(b"")]) as engine, sidecar(engine.url) as front:
        await front.send(post(CHAT, b""))
        await front.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"\r\nContent-Length: 0\r\n" in engine.requests[0]
        assert b"content-length" not in engine.requests[1].lower()


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_t38_who_waits_to_be_told_to_go_on_is_told(version):
    """`Expect: 100-continue` is answered before the body is sent, and only to who knows it: HTTP/1.0 does not."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(post("/a", b"xx", "Expect: 100-Continue").replace(b"1.1", version, 1)[:-2])
        if version == b"1.1":
            assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"xx")
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
        assert b"expect" not in engine.requests[0].lower()


async def test_t38_a_body_that_nobody_will_take_is_not_asked_for():
    """Who waits with a body that is too large is told so instead of to go on."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url, max_body_mb=1) as front:
        asking = post(CHAT, b"", "Expect: 100-continue").replace(b"Content-Length: 0", b"Content-Length: 1000001")
        assert (await front.send(asking, until=b"}}")).startswith(b"HTTP/1.1 413 ")


async def test_t38_framing_and_trailers_of_a_request_do_not_matter():
    """Chunks with extensions and trailers arrive as one body with a length, and the trailers are dropped with their framing."""
    request = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n1;a=b\r\n{\r\n1\r\n}\r\n0;c\r\nX-T: 1\r\n\r\n"
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        assert (await front.send(request)).startswith(b"HTTP/1.1 200 OK\r\n")
        assert engine.requests[0].endswith(b"\r\n\r\n{}")
        assert b"\r\nContent-Length: 2\r\n" in engine.requests[0]
        assert b"X-T" not in engine.requests[0]


async def test_t38_http_1_0_is_served_as_http_1_0():
    """Without a Host, and answered without chunks, up to the end of the connection; the engine is spoken to in HTTP/1.1."""
    async with scripted([stream_head(), chunked(WITH_USAGE)]) as engine, sidecar(engine.url, comment=False) as front:
        raw = await front.send(b"POST %s HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(ASKED), ASKED))
        assert b"transfer-encoding" not in raw.lower()
        assert raw.partition(b"\r\n\r\n")[2] == WITH_USAGE
        assert engine.requests[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert f"\r\nHost: {engine.url.removeprefix('http://')}\r\n".encode() in engine.requests[0]


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_t38_what_an_engine_says_before_its_answer_is_relayed_at_once(version):
    """103 Early Hints arrives before the answer is there, at whom it can be sent to; 100 was not asked for and stays here."""
    hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n"
    first = b"HTTP/1.1 100 Continue\r\n\r\n" + hints
    async with scripted([first, 0.2, answer(b"{}")], [first, 0.05, CUT]) as engine, sidecar(engine.url) as front:
        asking = post(CHAT, INFER).replace(b"1.1", version, 1)
        raw = await front.send(asking)
        assert (raw.startswith(hints) and raw.count(b"HTTP/1.1") == 2) if version == b"1.1" else raw.startswith(b"HTTP/1.1 200 OK\r\n")
        assert raw.removeprefix(hints).startswith(b"HTTP/1.1 200 OK\r\n")
        assert (await front.send(asking)).removeprefix(hints).startswith(b"HTTP/1.1 502 ")


async def test_t38_trailers_of_an_answer_arrive():
    """What the engine says after its last chunk, the client hears after its last chunk."""
    script = stream_head("trailer: x-checksum") + chunked(sse(ONE))[:-2] + b"x-checksum: abc\r\n\r\n"
    async with scripted([script]) as engine, sidecar(engine.url, comment=False) as front:
        assert (await front.send(post(CHAT, ASKED))).endswith(b"\r\n0\r\nx-checksum: abc\r\n\r\n")


async def test_t39_a_hundred_megabytes_of_image_pass_while_others_are_served():
    """The engine gets every byte, memory is bounded by the body's size, and a stream beside it does not stand still meanwhile."""
    image = b"A" * 100_000_000
    body = b'{"model":"m","messages":[{"role":"user","content":[{"image_url":{"url":"data:image/png;base64,' + image + b'"}}]}]}'
    frame, got = chunked(sse(ONE))[:-5], []

    async def engine(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/v1/chat" in head:
            while sum(map(len, got)) < len(body):
                got.append(await reader.read(1 << 20))
            writer.write(answer(COUNTED))
        else:
            writer.write(stream_head())
            while True:
                writer.write(frame)
                await asyncio.sleep(0.01)

    async with engine_of(engine) as url, sidecar(url, max_body_mb=128) as front:
        before_kb = rss_kb()
        watcher, other = await asyncio.open_connection("127.0.0.1", front.port)
        other.write(post("/v1/completions", b'{"stream":true}'))
        await watcher.readuntil(frame)
        uploading = asyncio.ensure_future(front.send(post(CHAT, body)))
        frames = 0
        while not uploading.done():
            await asyncio.wait_for(watcher.readuntil(frame), 10)
            frames += 1
        assert body_of(await uploading) == COUNTED
        assert frames > 3
        assert b"".join(got) == body
        assert rss_kb() - before_kb < 6 * len(body) // 1000  # three of them are the test's own: the body, the request, what the engine got
        other.close()


async def test_t39_a_multipart_upload_goes_on_as_it_is():
    """Audio is not JSON: nothing of it is read, all of it arrives, and the transcription's usage is counted."""
    audio = bytes(range(256)) * 4000
    body = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + audio + b"\r\n--x--\r\n"
    usage = b'{"text":"hello","usage":{"type":"tokens","input_tokens":14,"output_tokens":3,"total_tokens":17}}'
    async with scripted([answer(usage)]) as engine, sidecar(engine.url) as front:
        request = post("/v1/audio/transcriptions", body).replace(b"application/json", b"multipart/form-data; boundary=x")
        assert body_of(await front.send(request)) == usage
        assert engine.requests[0].endswith(b"\r\n\r\n" + body)
        (record,) = await front.records(1)
        assert (record.facts.endpoint, record.facts.output_tokens) == ("audio.transcriptions", 3)


TARGETS = [b"/v1/models?a=1&a=2&b", b"/%2e%2e/%2F?%20+", b"//a//b", b"/a/../b/./c", b"/a;b=c?d;e", b"/%c3%bc?%FC", b"/?", b"/a?b?c#d",
           b"*", b"/~user/:colon@at!$&'()*+,="]


@pytest.mark.parametrize("target", TARGETS)
async def test_t40_a_target_goes_on_byte_for_byte(target):
    """No decoding, no tidying, no encoding."""
    method = b"OPTIONS" if target == b"*" else b"GET"
    async with scripted([answer(b"")]) as engine, sidecar(engine.url) as front:
        raw = await front.send(method + b" " + target + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
        assert engine.requests[0].startswith(method + b" " + target + b" HTTP/1.1\r\n")


@pytest.mark.parametrize("target", [b"/\xc3\xbc", b"/a b", b"/\x01", b"v1/models"])
async def test_t40_a_target_that_is_none_is_refused(target):
    """Bytes that RFC 9112 has no place for in a target would have to be changed to go on: 400 instead."""
    async with scripted([answer(b"")]) as engine, sidecar(engine.url) as front:
        assert (await front.send(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert engine.requests == []


async def test_t40_an_absolute_target_does_not_choose_the_engine():
    """The authority of an absolute form is dropped: requests go to the upstream and nowhere else."""
    async with scripted([answer(b"")]) as engine, sidecar(engine.url) as front:
        await front.send(b"GET http://127.0.0.1:1/v1/models?x=1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n\r\n")
        assert engine.requests[0].startswith(b"GET /v1/models?x=1 HTTP/1.1\r\n")
