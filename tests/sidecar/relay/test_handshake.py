"""A request for a WebSocket, over real sockets: what the engine is asked, what is a consent, and what a session costs."""

import asyncio

import aiohttp
import pytest

from perjoule.sidecar.dialects.websocket import accept_of
from perjoule.sidecar.http.downstream import reset
from perjoule.sidecar.record import Outcome, Status, TokenSource
from tests.fakes.realtime import PROMPT_TOKENS, speaking
from tests.fakes.sidecar import sidecar
from tests.fakes.tunnel import BEGUN, COMMIT, CONSENT, KEY, MOST_HELD, SOON_S, SWITCHING, event, flood, hello, joined, raw_engine
from tests.fakes.upstream import answer, scripted


async def test_the_engine_sees_the_client_s_handshake():
    """Its own fields are kept, the hop-by-hop ones said anew, what else Connection names is gone; the answer comes back as it was."""
    async with raw_engine() as engine, sidecar(engine.url) as front:
        reader, writer = await front.connect()
        writer.write(hello("/ws?a=%20b", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits", "X-Hop: 1",
                           "Sec-WebSocket-Protocol: a, b", "Origin: http://o", connection="keep-alive, X-Hop, Upgrade"))
        assert await reader.readuntil(b"\r\n\r\n") == CONSENT
        writer.close()
        engine.writers[0].close()
        head = engine.heads[0]
        assert head.startswith(b"GET /ws?a=%20b HTTP/1.1\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
        assert fields == {b"Host": b"sidecar", b"Sec-WebSocket-Key": KEY, b"Sec-WebSocket-Version": b"13", b"Origin": b"http://o",
                          b"Sec-WebSocket-Extensions": b"permessage-deflate; client_max_window_bits", b"Sec-WebSocket-Protocol": b"a, b",
                          b"Connection": b"Upgrade", b"Upgrade": b"websocket"}


REFUSALS = ["401 Unauthorized", "403 Forbidden", "404 Not Found", "426 Upgrade Required", "500 Internal Server Error"]


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_refused_handshake_is_an_ordinary_answer(status):
    """Head and body are the engine's, and both connections serve the next request, whose bytes may have come already."""
    refusal = answer(b'{"error":"no"}', "www-authenticate: Bearer", status=status)
    async with scripted([refusal], [answer(b"ok")]) as engine, sidecar(engine.url) as front:
        raw = await front.send(hello("/v1/realtime") + b"GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert raw.startswith(refusal + b"HTTP/1.1 200 OK\r\n")
        assert (engine.connections, len(engine.requests)) == (1, 2)
        assert not front.sink.records


async def test_a_client_that_was_refused_may_ask_again_over_its_connection():
    """Once it has read the refusal, too: what it sends then is HTTP, and is heard as such."""
    refusal = answer(b'{"error":"no"}', status="401 Unauthorized")
    async with scripted([refusal], [refusal], [answer(b"ok")]) as engine, sidecar(engine.url) as front:
        reader, writer = await front.connect()
        for request, end in ((hello("/v1/realtime"), b"}"), (hello("/v1/realtime"), b"}"),
                             (b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", b"ok")):
            writer.write(request)
            await asyncio.wait_for(reader.readuntil(end), SOON_S)
        writer.close()
        assert (engine.connections, len(engine.requests)) == (1, 3)


NO_CONSENT = {
    "another protocol": SWITCHING.replace("websocket", "h2c"),
    "two protocols": SWITCHING.replace("websocket", "websocket, h2c"),
    "no proof": SWITCHING.replace("Sec-WebSocket-Accept", "X-Accept"),
    "another handshake's proof": SWITCHING.replace(accept_of(KEY).decode(), accept_of(b"another key").decode()),
    "no upgrade": "HTTP/1.1 101 Switching Protocols\r\n",
}


@pytest.mark.parametrize("head", NO_CONSENT.values(), ids=NO_CONSENT)
async def test_t34_a_101_that_does_not_prove_websocket_opens_no_tunnel(head):
    """It is a 502: behind it, the client could say to the engine what it likes."""
    async with scripted([head.encode() + b"\r\n"]) as engine, sidecar(engine.url) as front:
        raw = await front.send(hello("/v1/realtime"), until=b'"code":502')
        assert raw.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert len(engine.requests) == 1


ORDINARY = {
    "a POST": hello("/ws", "Content-Length: 0", method="POST"),
    "HTTP/1.0": hello(version="1.0"),
    "not in Connection": hello(connection="keep-alive"),
    "without a key": hello().replace(b"Sec-WebSocket-Key", b"X-Key"),
    "h2c": hello(upgrade="h2c"),
    "two protocols": hello(upgrade="websocket, h2c"),
    "with a body": hello("/ws", "Content-Length: 2") + b"{}",
}


@pytest.mark.parametrize("request_", ORDINARY.values(), ids=ORDINARY)
async def test_t34_what_is_no_handshake_goes_on_without_an_upgrade(request_):
    """The engine is asked as for any other request, and cannot consent to what it was not asked."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        raw = await front.send(request_, until=b"\r\n\r\n{}")
        assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
        (asked,) = engine.requests
        assert b"upgrade" not in asked.lower().replace(b"sec-websocket", b"")


async def test_a_handshake_may_follow_an_ordinary_request_in_one_segment():
    """The first is answered, the second is consented to, and what is behind it is the tunnel's."""
    async with raw_engine() as engine, sidecar(engine.url) as front:
        reader, writer = await front.connect()
        writer.write(b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n" + hello() + b"behind")
        assert (await reader.readuntil(b"an ordinary answer")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == CONSENT
        e_in, e_out = await asyncio.wait_for(engine.ends.get(), SOON_S)
        assert await asyncio.wait_for(e_in.readexactly(6), SOON_S) == b"behind"
        writer.close()
        e_out.close()


async def test_an_engine_that_is_not_there_is_a_502():
    """As for any request."""
    async with sidecar("http://127.0.0.1:1") as front:
        assert (await front.send(hello(), until=b'"code":502')).startswith(b"HTTP/1.1 502 ")


async def test_what_a_client_says_before_the_consent_is_kept_within_bounds():
    """The sidecar takes some of it, holds the client back, and passes all of it on when the engine has consented."""
    consent = asyncio.Event()
    async with raw_engine(consent=consent) as engine, sidecar(engine.url) as front:
        reader, writer = await front.connect()
        writer.write(hello())
        sent = await flood(writer)
        assert sent < MOST_HELD
        consent.set()
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SOON_S) == CONSENT
        e_in, e_out = await engine.ends.get()
        assert await asyncio.wait_for(e_in.readexactly(sent), SOON_S) == b"a" * sent
        writer.close()
        e_out.close()


async def test_a_handshake_that_is_not_answered_ends_with_the_sidecar():
    """Neither side is left waiting for the other."""
    async with scripted([20.0]) as engine:
        async with sidecar(engine.url) as front:
            reader, writer = await front.connect()
            writer.write(hello())
            while not engine.requests:
                await asyncio.sleep(0.01)
        await asyncio.wait_for(engine.closed.wait(), SOON_S)
        assert await asyncio.wait_for(reader.read(), SOON_S) == b""
        writer.close()


# metering


async def converse(socket, tokens, *, until="transcription.done"):
    """One transcription, as vLLM's own example asks for one."""
    await socket.send_json({"type": "input_audio_buffer.commit"})
    for _ in range(tokens):
        await socket.send_json({"type": "input_audio_buffer.append", "audio": "A"})
    await socket.send_json({"type": "input_audio_buffer.commit", "final": True})
    while (got := await socket.receive_json())["type"] != until:
        pass
    return got


@pytest.mark.parametrize("compress", [0, 15])
async def test_each_transcription_of_a_session_has_its_record_and_its_joules(compress):
    """Two of them and half a second of silence: the silence is nobody's, the rest adds up to what was measured."""
    async with speaking(0.03) as engine, sidecar(engine.url) as front, aiohttp.ClientSession() as session:
        await asyncio.sleep(0.2)
        headers = {"X-Request-Id": "mine", "Authorization": "Bearer somebody"}
        async with session.ws_connect(front.url + "/v1/realtime", compress=compress, headers=headers) as socket:
            assert (await socket.receive_json())["type"] == "session.created"
            await socket.send_json({"type": "session.update", "model": "voxtral"})
            assert (await converse(socket, 12))["usage"]["completion_tokens"] == 12
            await asyncio.sleep(0.5)
            await converse(socket, 4)
        first, second = await front.records(2)
        for record, tokens in ((first, 12), (second, 4)):
            facts, charge = record.facts, record.charge
            assert (facts.endpoint, facts.model, facts.outcome, facts.http_status) == ("realtime", "voxtral", Outcome.COMPLETED, 101)
            assert (facts.input_tokens, facts.output_tokens, facts.output_source) == (PROMPT_TOKENS, tokens, TokenSource.USAGE)
            assert (charge.status, charge.settled) == (Status.MEASURED, True)
            assert charge.energy_uj == pytest.approx(400_000 * facts.end_ns / 1e6, rel=0.3)  # 400 W as long as it ran
        assert first.facts.tenant == second.facts.tenant is not None
        assert first.facts.request_id == second.facts.request_id == "mine"
        assert first.facts.record_id != second.facts.record_id
        assert "X-Request-Id" in engine.handshakes[0].headers
        balance = front.service.desk.meter.balance
        assert balance.measured_uj == balance.requests_uj + balance.idle_uj + balance.unattributed_uj
        assert balance.idle_uj > 400_000 * 500  # the silence


@pytest.mark.parametrize(("how", "outcome"), [("client", (Outcome.CANCELLED, "client_disconnected")),
                                              ("close", (Outcome.CANCELLED, "client_disconnected")),
                                              ("engine", (Outcome.ERRORED, "upstream_closed"))])
async def test_a_session_that_breaks_off_ends_what_runs(how, outcome):
    """One record, with the tokens that were seen and what they cost; the engine's side is told at once."""
    async with speaking(0.02) as engine, sidecar(engine.url) as front, aiohttp.ClientSession() as session:
        socket = await session.ws_connect(front.url + "/v1/realtime")
        await socket.send_json({"type": "session.update", "model": "voxtral"})
        running = asyncio.ensure_future(converse(socket, 1000))
        while engine.handshakes == [] or not front.service.desk.meter.running or front.service.desk.meter.running[0].work.shown < 5:
            await asyncio.sleep(0.01)
        running.cancel()
        if how == "client":
            reset(socket._response.connection.transport)
        elif how == "close":
            closing = asyncio.ensure_future(socket.close())
        else:
            reset(engine.handshakes[0].transport)
        await asyncio.wait_for(engine.ended.wait(), SOON_S)
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.facts.error_type) == outcome
        assert record.facts.output_tokens >= 5
        assert record.facts.output_source is TokenSource.FRAMES
        assert record.charge.energy_uj > 0
        if how == "close":
            await closing


async def test_what_comes_with_the_handshakes_is_looked_at():
    """A Close in the client's first segment, a response in the engine's: the client has ended it, whoever closes the connection."""
    async with joined(BEGUN, "/v1/realtime", behind=b"\x88\x80abcd") as (_, (_, e_out), front):
        e_out.close()
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.facts.error_type) == (Outcome.CANCELLED, "client_disconnected")


async def test_nothing_begins_when_the_engine_has_ended():
    """It says nothing more: what ran has ended with it, and what the client asks for after that is asked of nobody."""
    async with joined(event(type="session.created", id="s"), "/v1/realtime?a=1&model=a%2Fb") as ((_, c_out), (e_in, e_out), front):
        c_out.write(COMMIT)
        await asyncio.wait_for(e_in.readexactly(len(COMMIT)), SOON_S)
        e_out.write_eof()
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.facts.error_type, record.facts.model) == (Outcome.ERRORED, "upstream_closed", "a/b")
        c_out.write(COMMIT)
        assert await asyncio.wait_for(e_in.readexactly(len(COMMIT)), SOON_S) == COMMIT
        assert front.service.desk.meter.begun == 1


async def test_other_sockets_have_no_record():
    """Only a realtime session is inference; and a handshake that was refused is no session."""
    async with speaking() as engine, sidecar(engine.url) as front, aiohttp.ClientSession() as session:
        async with session.ws_connect(front.url + "/echo") as socket:
            await socket.send_str("a")
            await socket.receive_str()
        with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
            await session.ws_connect(front.url + "/v1/realtime", headers={"Authorization": "Bearer nobody"})
        assert raised.value.status == 401
        await asyncio.sleep(0.1)
        assert front.service.desk.meter.begun == 0
        assert "X-Request-Id" not in engine.handshakes[0].headers


async def test_traffic_flows_on_when_it_cannot_be_read(caplog):
    """Law 5: bytes that are no frames pass as they are; the failure is counted and said once, not for each of them."""
    async with joined(path="/v1/realtime") as ((c_in, c_out), (e_in, e_out), front):
        for _ in range(3):
            c_out.write(b"\xff" * 100)
            assert await asyncio.wait_for(e_in.readexactly(100), SOON_S) == b"\xff" * 100
            e_out.write(b"\xff" * 100)
            assert await asyncio.wait_for(c_in.readexactly(100), SOON_S) == b"\xff" * 100
        assert front.service.desk.failures == 2  # one for each direction
        assert caplog.text.count("metering a WebSocket failed") == 2
