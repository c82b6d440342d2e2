"""What clients, engines and attackers have done to other proxies, done to this one over real sockets.

The names carry the numbers of the list of known bugs and complaints that the cases come from.
"""

import asyncio
import contextlib
import json
import re
import socket

import pytest

from perjoule.sidecar.front import AT_ONCE
from perjoule.sidecar.record import Outcome, TokenSource
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import CUT, PAUSE, answer, chunked, scripted, sse, stream_head

CHAT, INFER = "/v1/chat/completions", b'{"model":"m","messages":[{"role":"user","content":"hello there"}]}'
STREAM = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hello there"}]}'
ASKED = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
ID = '"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m"'
COUNTS = '"usage":{"prompt_tokens":9,"total_tokens":11,"completion_tokens":2},"system_fingerprint":"fp"'


def frame(content, finish="null", extra=""):
    choice = f'{{"index":0,"delta":{{"content":"{content}"}},"logprobs":null,"finish_reason":{finish}}}'
    return f'{{{ID},"choices":[{choice}]{extra}}}'


ONE, TWO, LAST = frame("a"), frame("ü", '"stop"'), f'{{{ID},"choices":[],{COUNTS}}}'
WITH_USAGE = sse(ONE, TWO, LAST, "[DONE]")
WITHOUT_USAGE = sse(ONE, frame("ü", '"stop"', ',"system_fingerprint":"fp"'), "[DONE]")


async def until(condition):
    """Wait for something that other tasks bring about."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


# clients that leave, engines that die


@pytest.mark.parametrize("body", [STREAM, INFER], ids=["t1_streamed", "t2_whole"])
async def test_t1_t2_a_client_that_leaves_before_the_first_byte_frees_the_engine(body):
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


async def test_t3_clients_that_leave_at_any_moment_are_closed_once():
    """Thirty clients leave around the moment at which the engine dies under them: thirty records, nothing in flight."""
    async with scripted([stream_head(), *[chunked(sse(ONE))[:-5], 0.01] * 4, CUT]) as engine, sidecar(engine.url) as front:

        async def leave_after(seconds):
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(post(CHAT, STREAM))
            with contextlib.suppress(TimeoutError, ConnectionError):
                await asyncio.wait_for(reader.read(-1), seconds)
            writer.close()

        await asyncio.gather(*(leave_after(0.002 * i) for i in range(1, 31)))
        records = await front.records(30)
        await until(lambda: front.service.relay.active == 0)
        assert len({record.facts.record_id for record in records}) == len(records) == 30
        assert {record.facts.outcome for record in records} <= {Outcome.CANCELLED, Outcome.ERRORED}
        assert front.service.meter.in_flight == front.service.meter.unsettled == 0


async def test_t7_an_http_1_0_client_can_tell_that_the_engine_died():
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


async def test_t7_an_engine_s_reset_is_no_clean_end():
    """An engine without a length whose connection is reset: the client's chunked body is cut, and the record says errored."""
    async def reset(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nhalf of it")
        await asyncio.sleep(0.1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        writer.transport.abort()

    server = await asyncio.start_server(reset, "127.0.0.1", 0)
    async with server, sidecar(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as front:
        raw = await front.send(post(CHAT, b"", "X-Energy-Include: none"))
        assert b"half of it" in raw
        with pytest.raises(ValueError, match="cut"):
            body_of(raw)
        (record,) = await front.records(1)
        assert record.facts.outcome is Outcome.ERRORED


async def test_t9_an_engine_that_hangs_up_after_each_answer_is_never_seen():
    """Forty requests in a row over connections that the engine closes unannounced: every one is answered, none sent twice."""
    async with scripted([answer(b"fine"), CUT]) as engine, sidecar(engine.url) as front:
        for _ in range(40):
            assert body_of(await front.send(post("/a", b"x"))) == b"fine"
        assert len(engine.requests) == 40


# usage that is asked for and hidden


async def test_t13_t14_t24_hidden_usage_leaves_no_trace_however_the_stream_is_cut():
    """Cut at every byte into reads of its own, and glued together: no usage frame, and the fingerprint back in its frame."""
    byte_by_byte = [step for i in range(len(WITH_USAGE)) for step in (PAUSE, chunked(WITH_USAGE[i:i + 1])[:-5])]
    cut, glued = [stream_head(), *byte_by_byte, b"0\r\n\r\n"], [stream_head() + chunked(WITH_USAGE)]
    async with scripted(cut, glued) as engine, sidecar(engine.url, comment=False) as front:
        for _ in range(2):
            assert body_of(await front.send(post(CHAT, STREAM))) == WITHOUT_USAGE
        assert [record.facts.output_tokens for record in await front.records(2)] == [2, 2]


@pytest.mark.parametrize("ends", [b"\r\n", b"\r"], ids=["crlf", "cr"])
async def test_t24_other_line_ends_pass_as_they_are(ends):
    """CRLF and CR streams keep their bytes, and their tokens are counted."""
    stream = WITH_USAGE.replace(b"\n", ends)
    async with scripted([stream_head(), chunked(stream)]) as engine, sidecar(engine.url, comment=False) as front:
        assert body_of(await front.send(post(CHAT, ASKED))) == stream
        (record,) = await front.records(1)
        assert (record.facts.output_tokens, record.facts.output_source) == (2, TokenSource.USAGE)


OPTIONS = {
    "t15_continuous_alone": b'{"stream":true,"stream_options":{"continuous_usage_stats":true}}',
    "t15_both": b'{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}',
    "t16_not_streamed": b'{"stream":false}',
    "t16_stream_absent": b'{"model":"m"}',
    "t16_options_without_a_stream": b'{"stream_options":{"include_usage":false}}',
    "t16_options_malformed": b'{"stream":true,"stream_options":[1]}',
    "t16_stream_malformed": b'{"stream":"yes"}',
    "t16_not_json": b'{"stream":true',
}


@pytest.mark.parametrize("body", OPTIONS.values(), ids=OPTIONS)
async def test_t15_t16_nothing_is_asked_where_asking_would_change_the_answer(body):
    """The request goes out as it came: the engine says itself what it thinks of it."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        await front.send(post(CHAT, body))
        assert engine.requests[0].endswith(b"\r\n\r\n" + body)


async def test_t18_no_tokens_is_a_count():
    """A usage of 0 is what the engine counted, not a usage that is missing."""
    whole = answer(b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":0}}')
    async with scripted([whole]) as engine, sidecar(engine.url) as front:
        await front.send(post(CHAT, INFER))
        (record,) = await front.records(1)
        assert (record.facts.output_tokens, record.facts.output_source) == (0, TokenSource.USAGE)


async def test_t27_an_error_inside_a_stream_is_an_error():
    """The engine answers 200 and then fails: relayed untouched, and the record says errored."""
    stream = sse(ONE, '{"error":{"message":"EngineCore died","type":"InternalServerError","code":500}}', "[DONE]")
    async with scripted([stream_head(), chunked(stream)]) as engine, sidecar(engine.url, comment=False) as front:
        assert body_of(await front.send(post(CHAT, STREAM))) == stream
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.facts.http_status) == (Outcome.ERRORED, 200)
        assert record.facts.error_type


# heads


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


GET = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
SMUGGLED = b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
MALFORMED = {
    "length_and_chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + SMUGGLED,
    "two_lengths": POST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + SMUGGLED,
    "the_same_length_twice": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "a_list_of_lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}",
    "a_signed_length": POST + b"Content-Length: +2\r\n\r\n{}",
    "chunked_twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + SMUGGLED,
    "chunked_not_last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + SMUGGLED,
    "obsolete_folding": GET + b"X-A: 1\r\n  Content-Length: 9\r\n\r\n",
    "bare_line_feeds": b"GET /v1/models HTTP/1.1\nHost: a\nX-A: 1\n\n",
    "a_bare_line_feed": GET + b"X-A: 1\nX-B: 2\r\n\r\n",
    "a_bare_carriage_return": GET + b"X-A: 1\rX-B: 2\r\n\r\n",
    "a_space_before_the_colon": GET + b"X-A : 1\r\n\r\n",
    "a_null_in_a_value": GET + b"X-A: a\0b\r\n\r\n",
    "a_chunk_size_that_is_none": POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nab\r\n0\r\n\r\n",
    "a_line_feed_in_a_chunk_extension": POST + b"Transfer-Encoding: chunked\r\n\r\n2;a=\nb\r\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED)
async def test_t33_what_two_parsers_could_read_differently_is_refused(request_bytes):
    """400 in OpenAI's shape, the connection closed, and not a byte to the engine."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        raw = await front.send(request_bytes)
        assert re.match(rb"HTTP/1\.[01] 400 ", raw)
        assert json.loads(body_of(raw))["error"]["code"] == 400
        assert engine.requests == []


async def test_t33_pipelined_requests_are_answered_in_their_order():
    """Three requests in one write: three answers, each its own, over one connection of the engine at a time."""
    scripts = [[answer(b"1")], [stream_head(), chunked(b"2")], [answer(b"3")]]
    async with scripted(*scripts) as engine, sidecar(engine.url) as front:
        first, second = (post(f"/{i}", b"x" * i).replace(b"Connection: close\r\n", b"") for i in (1, 2))
        raw = await front.send(first + second + post("/3", b"xxx"))
        assert re.findall(rb"\r\n\r\n(?:1\r\n)?(\d)", raw) == [b"1", b"2", b"3"]
        assert [request.split(b" ")[1] for request in engine.requests] == [b"/1", b"/2", b"/3"]
        assert [request.rpartition(b"\r\n\r\n")[2] for request in engine.requests] == [b"x", b"xx", b"xxx"]


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


# methods, bodies, targets


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


async def test_t38_an_empty_body_stays_an_empty_body():
    """`Content-Length: 0` on a POST goes on, and a GET without a length gets none."""
    async with scripted([answer(b"")]) as engine, sidecar(engine.url) as front:
        await front.send(post(CHAT, b""))
        await front.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"\r\nContent-Length: 0\r\n" in engine.requests[0]
        assert b"content-length" not in engine.requests[1].lower()


@pytest.mark.parametrize("head", [GET + b"X-A: " + b"v" * 200_000 + b"\r\n\r\n", b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
                                  GET + b"".join(b"X-%d: 1\r\n" % i for i in range(5000)) + b"\r\n"], ids=["field", "target", "fields"])
async def test_t38_a_head_without_measure_is_refused(head):
    """A 4xx of ours, and nothing reaches the engine."""
    async with scripted([answer(b"")]) as engine, sidecar(engine.url) as front:
        raw = await front.send(head, until=b"}}")
        assert re.match(rb"HTTP/1\.[01] (400|414|431) ", raw)
        assert engine.requests == []


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


async def test_t40_a_target_that_is_none_is_refused():
    """Bytes that RFC 9112 has no place for in a target would have to be changed to go on: 400 instead."""
    async with scripted([answer(b"")]) as engine, sidecar(engine.url) as front:
        assert re.match(rb"HTTP/1\.[01] 400 ", await front.send(b"GET /\xc3\xbc HTTP/1.1\r\nHost: a\r\n\r\n"))
        assert engine.requests == []


async def test_t40_an_absolute_target_does_not_choose_the_engine():
    """The authority of an absolute form is dropped: requests go to the upstream and nowhere else."""
    async with scripted([answer(b"")]) as engine, sidecar(engine.url) as front:
        await front.send(b"GET http://127.0.0.1:1/v1/models?x=1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n\r\n")
        assert engine.requests[0].startswith(b"GET /v1/models?x=1 HTTP/1.1\r\n")
