"""The whole relay over real sockets, in front of an engine made of bytes: laws 2 (Transparent) and 4 (Once) in traffic."""

import asyncio
import json
import re

import pytest

from perjoule.sidecar.record import Outcome, Status, TokenSource
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import CUT, answer, chunked, scripted, sse, stream_head

CHAT = b'{"model":"m","messages":[{"role":"user","content":"hello there"}]}'
STREAM = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hello there"}]}'
ASKED = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
USAGE = '{"prompt_tokens":9,"total_tokens":11,"completion_tokens":2}'
WHOLE = f'{{"id":"chatcmpl-1","model":"m","choices":[{{"index":0,"finish_reason":"stop"}}],"usage":{USAGE}}}'.encode()


def frame(delta, finish="null", extra=""):
    choice = f'{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}'
    return f'{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{choice}]{extra}}}'


ROLE, ONE, TWO = frame('{"role":"assistant","content":""}'), frame('{"content":"a"}'), frame('{"content":"b"}', '"stop"')
STAMPED = frame('{"content":"b"}', '"stop"', ',"system_fingerprint":"fp"')
COUNTED = f'"usage":{USAGE},"system_fingerprint":"fp"'
LAST = f'{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],{COUNTED}}}'
WITH_USAGE = sse(ROLE, ONE, TWO, LAST, "[DONE]")
WITHOUT_USAGE = sse(ROLE, ONE, STAMPED, "[DONE]")
COMMENT = re.compile(rb": energy (\{.*?\})\n\n")


async def test_an_answer_carries_its_energy_in_headers():
    """Not streamed: the body as the engine sent it, X-Energy-* headers in front, one measured record behind."""
    async with scripted([answer(WHOLE, "x-engine: yes")]) as engine, sidecar(engine.url) as front:
        await asyncio.sleep(0.1)
        raw = await front.send(post("/v1/chat/completions", CHAT))
        head, body = raw.split(b"\r\n\r\n", 1)
        assert body == WHOLE
        assert b"x-engine: yes" in head
        assert re.search(rb"X-Energy-Joules: \d+\.\d+", head)
        assert b"X-Energy-Status: provisional" in head
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.charge.status) == (Outcome.COMPLETED, Status.MEASURED)
        assert (record.facts.input_tokens, record.facts.output_tokens, record.facts.input_source) == (9, 2, TokenSource.USAGE)


async def test_usage_is_asked_for_and_hidden_again():
    """A client that did not ask for usage sees the stream that it would have seen, fingerprint and all; the record has the counts."""
    script = [stream_head(), chunked(*WITH_USAGE.splitlines(keepends=True))]
    async with scripted(script) as engine, sidecar(engine.url, comment=False) as front:
        raw = await front.send(post("/v1/chat/completions", STREAM, "Accept-Encoding: gzip"))
        assert body_of(raw) == WITHOUT_USAGE
        assert b'"include_usage":true' in engine.requests[0]
        assert b"accept-encoding" not in engine.requests[0].lower()  # in a compressed stream nothing could be hidden
        (record,) = await front.records(1)
        assert (record.facts.output_tokens, record.facts.output_source) == (2, TokenSource.USAGE)


async def test_a_client_that_asks_for_usage_gets_the_engine_s_bytes():
    """Nothing is hidden from who asked, and the request went out as it came."""
    async with scripted([stream_head(), chunked(WITH_USAGE)]) as engine, sidecar(engine.url, comment=False) as front:
        assert body_of(await front.send(post("/v1/chat/completions", ASKED))) == WITH_USAGE
        assert engine.requests[0].endswith(ASKED)


async def test_a_stream_ends_with_the_energy_comment():
    """`: energy {json}` just before [DONE], and nothing else is different."""
    async with scripted([stream_head(), chunked(WITH_USAGE)]) as engine, sidecar(engine.url) as front:
        await asyncio.sleep(0.1)
        body = body_of(await front.send(post("/v1/chat/completions", ASKED)))
        energy = json.loads(COMMENT.search(body)[1])
        assert energy["status"] == "provisional"
        assert energy["energy_joules"] > 0
        assert re.search(rb": energy \{.*\}\n\ndata: \[DONE\]\n\n$", body)
        assert COMMENT.sub(b"", body) == WITH_USAGE


async def test_a_settled_value_can_be_waited_for():
    """With `X-Energy-Include: settled` the end of the answer waits for the window: what it shows is what the record says."""
    async with scripted([stream_head(), chunked(WITH_USAGE)], [answer(WHOLE)]) as engine, sidecar(engine.url) as front:
        await asyncio.sleep(0.1)
        body = body_of(await front.send(post("/v1/chat/completions", ASKED, "X-Energy-Include: settled")))
        head = await front.send(post("/v1/chat/completions", CHAT, "X-Energy-Include: settled"))
        streamed, whole = await front.records(2)
        energy = json.loads(COMMENT.search(body)[1])
        assert (energy["settled"], energy["status"]) == (True, "measured")
        assert round(energy["energy_joules"] * 1e6) == streamed.charge.energy_uj
        assert f"X-Energy-Joules: {whole.charge.energy_uj / 1e6:.6f}".encode() in head
        assert COMMENT.sub(b"", body) == WITH_USAGE


async def test_energy_inside_usage_on_request():
    """`X-Energy-Include: usage` puts the object into the usage object, streamed or not; every other byte stays."""
    async with scripted([answer(WHOLE)], [stream_head(), chunked(WITH_USAGE)]) as engine, sidecar(engine.url) as front:
        whole = json.loads(body_of(await front.send(post("/v1/chat/completions", CHAT, "X-Energy-Include: usage"))))
        assert whole["usage"].pop("energy")["source"] == "steady"
        assert whole == json.loads(WHOLE)
        body = body_of(await front.send(post("/v1/chat/completions", STREAM, "X-Energy-Include: usage")))
        (usage,) = [json.loads(line[6:])["usage"] for line in body.split(b"\n\n") if b'"usage"' in line and line.startswith(b"data")]
        assert usage["energy"]["source"] == "steady"


async def test_trailers_for_those_who_take_them():
    """A client that sends `TE: trailers` gets the same numbers after the last chunk."""
    async with scripted([stream_head(), chunked(WITH_USAGE)]) as engine, sidecar(engine.url) as front:
        await asyncio.sleep(0.1)
        raw = await front.send(post("/v1/chat/completions", ASKED, "TE: trailers"))
        assert re.search(rb"\r\nTrailer: X-Energy-Joules", raw)
        assert re.search(rb"\r\nX-Energy-Joules: \d", b"\r\n" + raw.rpartition(b"\r\n0\r\n")[2])
        assert raw.endswith(b"\r\n\r\n")


async def test_nothing_is_added_for_who_wants_nothing():
    """`X-Energy-Include: none`: the engine's bytes and no others."""
    async with scripted([answer(WHOLE)]) as engine, sidecar(engine.url) as front:
        raw = await front.send(post("/v1/chat/completions", CHAT, "X-Energy-Include: none"))
        assert b"x-energy" not in raw.lower()
        assert engine.requests[0].count(b"X-Energy-Include: none\r\n") == 1


@pytest.mark.parametrize("include", ["", "usage", "settled, usage", "none"])
async def test_of_two_sidecars_in_a_row_the_first_one_speaks(include):
    """Headers, comment and usage object are there once, or not at all for who wants none; the inner one has its record as well."""
    fields = [f"X-Energy-Include: {include}"] if include else []
    scripts = [answer(WHOLE)], [stream_head(), chunked(WITH_USAGE)]
    async with scripted(*scripts) as engine, sidecar(engine.url) as inner, sidecar(inner.url) as outer:
        await asyncio.sleep(0.1)
        raw = await outer.send(post("/v1/chat/completions", CHAT, *fields))
        body = body_of(await outer.send(post("/v1/chat/completions", ASKED, *fields)))
        times = 0 if include == "none" else 1
        assert raw.count(b"X-Energy-Joules: ") == raw.count(b"X-Energy-Record: ") == times
        assert len(COMMENT.findall(body)) == times
        assert raw.count(b'"energy":') == body.count(b'"energy":') == int("usage" in include)
        assert len(await inner.records(2)) == len(await outer.records(2)) == 2


async def test_a_sidecar_that_adds_nothing_lets_the_next_one_speak():
    """With everything switched off, the client's wish goes on, and the inner one's answer comes back."""
    off = {"headers": False, "comment": False, "trailers": False}
    async with scripted([answer(WHOLE)]) as engine, sidecar(engine.url) as inner, sidecar(inner.url, **off) as outer:
        await asyncio.sleep(0.1)
        raw = await outer.send(post("/v1/chat/completions", CHAT, "X-Energy-Include: settled"))
        assert b"X-Energy-Status: measured" in raw


async def test_without_an_energy_source_nothing_is_invented():
    """Law 3: status `unavailable`, no joules anywhere, traffic unharmed."""
    async with scripted([answer(WHOLE)], [stream_head(), chunked(WITH_USAGE)]) as engine, sidecar(engine.url, energy=False) as front:
        raw = await front.send(post("/v1/chat/completions", CHAT))
        assert b"X-Energy-Status: unavailable" in raw
        assert b"joules" not in raw.lower()
        body = body_of(await front.send(post("/v1/chat/completions", ASKED)))
        assert b"joules" not in body
        assert COMMENT.sub(b"", body) == WITH_USAGE
        assert all(r.charge.energy_uj is None for r in await front.records(2))


@pytest.mark.parametrize("target", ["/v1/models?a=%2Fb&a=2", "//double//slash", "/a/../b", "/%C3%BC?x=;y", "/v1/chat/completions"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
async def test_any_path_and_method_is_relayed(method, target):
    """What is not inference goes through as it came: method, target, body, and no energy in the answer."""
    async with scripted([answer(b"hello", "set-cookie: a=1", "set-cookie: b=2")]) as engine, sidecar(engine.url) as front:
        raw = await front.send(post(target, b"payload", "X-Mine: 1", "X-Mine: 2", method=method))
        assert engine.requests[0].startswith(f"{method} {target} HTTP/1.1\r\n".encode())
        assert engine.requests[0].endswith(b"\r\n\r\npayload")
        assert engine.requests[0].count(b"X-Mine") == 2
        assert raw.endswith(b"\r\n\r\nhello")
        assert raw.count(b"set-cookie") == 2
        assert b"energy" not in raw.lower()


async def test_an_engine_s_error_is_the_client_s_error():
    """A 400 of the engine arrives whole; the record says errored."""
    async with scripted([answer(b'{"error":{"message":"no"}}', status="400 Bad Request")]) as engine, sidecar(engine.url) as front:
        raw = await front.send(post("/v1/chat/completions", CHAT))
        assert raw.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert raw.endswith(b'{"error":{"message":"no"}}')
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.facts.error_type) == (Outcome.ERRORED, "400")


STREAMED = stream_head() + chunked(*WITH_USAGE.splitlines(keepends=True))
PLAIN = answer(WHOLE)


@pytest.mark.parametrize("whole", [STREAMED, PLAIN], ids=["stream", "length"])
async def test_an_engine_that_dies_anywhere_never_looks_like_a_clean_end(whole):
    """Cut the engine's answer at many offsets of head and body: the client sees an error or a cut, and one errored record."""
    offsets = range(1, len(whole), max(1, len(whole) // 40))
    async with scripted(*[[whole[:offset], 0.01, CUT] for offset in offsets]) as engine, sidecar(engine.url, comment=False) as front:
        for offset in offsets:
            raw = await front.send(post("/v1/chat/completions", ASKED))
            if raw.startswith(b"HTTP/1.1 502"):
                assert json.loads(body_of(raw))["error"]["type"] == "upstream_closed"
            else:
                with pytest.raises(ValueError, match=r"cut|expected"):
                    body_of(raw)
                assert offset > whole.index(b"\r\n\r\n")
        records = await front.records(len(offsets))
        assert [r.facts.outcome for r in records] == [Outcome.ERRORED] * len(offsets)


async def test_a_client_that_leaves_frees_the_engine():
    """The engine's connection is closed at once; the record says cancelled, with the tokens that were seen."""
    async with scripted([stream_head(), chunked(sse(ROLE, ONE))[:-5], 30.0]) as engine, sidecar(engine.url) as front:
        await asyncio.sleep(0.1)
        await front.send(post("/v1/chat/completions", STREAM), until=b'"a"')
        async with asyncio.timeout(5):
            await engine.closed.wait()
        (record,) = await front.records(1)
        assert record.facts.outcome is Outcome.CANCELLED
        assert (record.facts.output_tokens, record.facts.output_source) == (1, TokenSource.FRAMES)
        assert record.charge.energy_uj > 0


async def test_a_client_that_leaves_before_the_answer_frees_the_engine():
    """The same while nothing has been answered yet, not streamed."""
    async with scripted([30.0]) as engine, sidecar(engine.url) as front:
        task = asyncio.ensure_future(front.send(post("/v1/chat/completions", CHAT)))
        while not engine.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        async with asyncio.timeout(5):
            await engine.closed.wait()
        (record,) = await front.records(1)
        assert record.facts.outcome is Outcome.CANCELLED


async def test_a_stale_connection_is_tried_again_once():
    """A kept connection that dies before it answers is the keep-alive race: the client never hears of it."""
    async with scripted([answer(b"1")], [CUT], [answer(b"2")]) as engine, sidecar(engine.url) as front:
        assert body_of(await front.send(post("/a", b""))) == b"1"
        assert body_of(await front.send(post("/b", b""))) == b"2"
        assert engine.connections == 2


async def test_a_fresh_connection_is_not_tried_again():
    """A request that may have been processed is not sent twice."""
    async with scripted([CUT], [answer(b"2")]) as engine, sidecar(engine.url) as front:
        assert (await front.send(post("/v1/chat/completions", CHAT))).startswith(b"HTTP/1.1 502")
        assert len(engine.requests) == 1


async def test_an_engine_that_is_not_there_is_a_502_in_openai_s_shape():
    """Nothing listens: the error says what could not be reached; the request has its record."""
    async with scripted([answer(b"")]) as gone:
        url = gone.url
    async with sidecar(url) as front:
        raw = await front.send(post("/v1/chat/completions", CHAT))
        assert raw.startswith(b"HTTP/1.1 502 Bad Gateway")
        error = json.loads(body_of(raw))["error"]
        assert error["type"] == "upstream_unreachable"
        assert url in error["message"]
        (record,) = await front.records(1)
        assert record.facts.error_type == "upstream_unreachable"


async def test_framing_of_requests_does_not_matter():
    """A chunked request with Expect arrives at the engine whole, with a length; who waits for 100 Continue gets it, who does not, not."""
    head = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n"
            b"Connection: close\r\n\r\n")
    body = chunked(CHAT[:10], CHAT[10:])
    async with scripted([answer(WHOLE)]) as engine, sidecar(engine.url) as front:
        assert (await front.send(head + body)).startswith(b"HTTP/1.1 200 OK\r\n")
        reader, writer = await front.connect()
        writer.write(head)
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
        assert f"Content-Length: {len(CHAT)}".encode() in engine.requests[0]
        assert engine.requests[0].endswith(CHAT)


async def test_http_1_0_gets_a_stream_without_chunks():
    """An HTTP/1.0 client reads until the connection ends."""
    async with scripted([stream_head(), chunked(WITH_USAGE)]) as engine, sidecar(engine.url, comment=False) as front:
        raw = await front.send(post("/v1/chat/completions", ASKED).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        assert b"transfer-encoding" not in raw.lower()
        assert raw.partition(b"\r\n\r\n")[2] == WITH_USAGE


async def test_head_204_and_304_have_no_body():
    """The length of a body that is not there stays in the head, and the connection goes on."""
    async with scripted([b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n"], [b"HTTP/1.1 204 No Content\r\n\r\n"],
                        [b"HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n"]) as engine, sidecar(engine.url) as front:
        assert b"content-length: 99" in await front.send(post("/a", b"", method="HEAD"))
        assert (await front.send(post("/b", b"", method="GET"))).startswith(b"HTTP/1.1 204 No Content\r\n")
        assert b"etag: x" in await front.send(post("/c", b"", method="GET"))


async def test_a_body_without_a_length_ends_with_its_connection():
    """An engine that answers as in HTTP/1.0 is relayed to its end, and that end is clean."""
    async with scripted([b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nall of it", CUT]) as engine, sidecar(engine.url) as front:
        assert body_of(await front.send(post("/a", b"", method="GET"))) == b"all of it"


async def test_keep_alive_serves_many_requests_on_one_connection():
    """Two requests on one client connection, one of them streamed; the engine's connection is kept as well."""
    async with scripted([answer(WHOLE)], [stream_head(), chunked(WITH_USAGE)]) as engine, sidecar(engine.url) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        for body in (CHAT, ASKED):
            writer.write(post("/v1/chat/completions", body).replace(b"Connection: close\r\n", b""))
            end = b"0\r\n\r\n" if body is ASKED else WHOLE[-20:]
            got = b""
            while not got.endswith(end):
                got += await asyncio.wait_for(reader.read(65536), 5)
            assert got.startswith(b"HTTP/1.1 200 OK")
        writer.close()
        await writer.wait_closed()
        assert engine.connections == 1


async def test_a_body_that_is_too_large_is_refused():
    """413 in OpenAI's shape, and the engine never hears of it."""
    async with scripted([answer(b"")]) as engine, sidecar(engine.url, max_body_mb=1) as front:
        raw = await front.send(post("/v1/chat/completions", b"x" * 1_000_001), until=b"}}")
        assert raw.startswith(b"HTTP/1.1 413")
        assert engine.requests == []


async def test_a_malformed_request_is_refused_in_openai_s_shape():
    """What aiohttp's parser refuses never reaches the engine."""
    async with scripted([answer(b"")]) as engine, sidecar(engine.url) as front:
        raw = await front.send(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert raw.split(b" ", 2)[1] == b"400"
        assert "error" in json.loads(body_of(raw))
        assert engine.requests == []


async def test_records_are_found_by_either_id():
    """GET /energy/{id} on the traffic port: ours or the client's; unknown ids are 404."""
    async with scripted([answer(WHOLE)]) as engine, sidecar(engine.url) as front:
        raw = await front.send(post("/v1/chat/completions", CHAT, "X-Request-Id: mine-1"))
        path = re.search(rb"X-Energy-Record: (\S+)", raw)[1].decode()
        await front.records(1)
        ours = json.loads(body_of(await front.send(post(path, b"", method="GET"))))
        theirs = json.loads(body_of(await front.send(post("/energy/mine-1", b"", method="GET"))))
        assert ours == theirs
        assert (ours["request_id"], ours["settled"]) == ("mine-1", True)
        assert b"X-Request-Id: mine-1" in engine.requests[0]
        assert (await front.send(post("/energy/nobody", b"", method="GET"))).startswith(b"HTTP/1.1 404")


async def test_trace_context_goes_on_to_the_engine():
    """With tracing on, the engine's parent is our span, in the caller's trace; the record has all three ids."""
    trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with scripted([answer(WHOLE)]) as engine, sidecar(engine.url, otlp="http://127.0.0.1:1") as front:
        await front.send(post("/v1/chat/completions", CHAT, f"traceparent: 00-{trace}-{caller}-01", "tracestate: a=b"))
        (record,) = await front.records(1)
        assert (record.facts.trace_id, record.facts.parent_span_id) == (trace, caller)
        assert f"traceparent: 00-{trace}-{record.facts.span_id}-01".encode() in engine.requests[0]
        assert b"tracestate: a=b" in engine.requests[0]


async def test_a_slow_reader_holds_back_its_own_stream_and_is_cut_off():
    """Memory stays bounded: the engine is paused, and after the deadline the client is gone and the engine free."""
    piece = b"%x\r\n%b\r\n" % (65536, b"x" * 65536)
    async with scripted([stream_head(), *[piece] * 2000]) as engine, sidecar(engine.url, slow_reader_s=0.3) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port, limit=1024)
        writer.transport.pause_reading()
        writer.write(post("/v1/chat/completions", STREAM))
        async with asyncio.timeout(10):
            (record,) = await front.records(1)
        assert record.facts.error_type == "slow_reader"
        async with asyncio.timeout(10):
            await engine.closed.wait()
        writer.close()
        del reader


async def test_a_client_that_leaves_while_uploading_is_no_error(caplog):
    """It never asked for anything whole: no record, no traceback, nothing sent to the engine."""
    async with scripted([answer(WHOLE)]) as engine, sidecar(engine.url) as front:
        _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(post("/v1/chat/completions", CHAT)[:-20])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()
        assert body_of(await front.send(post("/v1/chat/completions", CHAT))) == WHOLE
        assert len(await front.records(1)) == len(engine.requests) == 1
        assert not [line for line in caplog.records if line.levelname == "ERROR"]


async def test_a_request_id_of_the_client_is_waited_for_too():
    """GET /energy/{request-id} right after the end answers the settled record, by the client's id as by ours."""
    async with scripted([answer(WHOLE)]) as engine, sidecar(engine.url) as front:
        await asyncio.sleep(0.1)
        await front.send(post("/v1/chat/completions", CHAT, "X-Request-Id: just-now"))
        record = json.loads(body_of(await front.send(post("/energy/just-now", b"", method="GET"))))
        assert (record["request_id"], record["settled"]) == ("just-now", True)


async def test_a_ledger_in_trouble_hides_no_joules():
    """Who waits for a settled value gets the known one, marked as not settled, when the ledger does not take records."""
    async with scripted([answer(WHOLE)], [stream_head(), chunked(WITH_USAGE)]) as engine, sidecar(engine.url) as front:
        front.service.archive.recent._durable = True  # as with a ledger, but none that ever says that it has stored anything
        await asyncio.sleep(0.1)
        head = await front.send(post("/v1/chat/completions", CHAT, "X-Energy-Include: settled"))
        assert re.search(rb"X-Energy-Joules: \d", head)
        assert b"X-Energy-Status: provisional" in head
        body = body_of(await front.send(post("/v1/chat/completions", ASKED, "X-Energy-Include: settled")))
        energy = json.loads(COMMENT.search(body)[1])
        assert (energy["settled"], energy["status"]) == (False, "provisional")
        assert energy["energy_joules"] > 0
