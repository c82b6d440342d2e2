"""The doors over real sockets: who is turned away never reaches the engine, and who comes in is known to the record by name."""

import asyncio
import json

import pytest

from perjoule.adapters.ledger.store import Ledger
from perjoule.sidecar.access.doors import Doors
from perjoule.sidecar.access.keys import entry_for, read_keys
from perjoule.sidecar.settings.credentials import Credentials
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import answer, scripted

TEXT = (entry_for("tenant-a", "pj-a") + entry_for("tenant-b", "pj-b")
        + entry_for("poor", "pj-poor") + "interval_s = 86400\nrequests = 3\ntokens = 10\n")
KEYS = Credentials(Doors(read_keys(TEXT, "keys.toml"), upstream_key="sk-engine"))
THREE_REQUESTS = Credentials(Doors(read_keys(entry_for("poor", "pj-poor") + "interval_s = 86400\nrequests = 3\n", "keys.toml")))
CHAT = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'
ANSWER = answer(b'{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"x"},'
                b'"finish_reason":"stop"}],"usage":{"prompt_tokens":4,"completion_tokens":7,"total_tokens":11}}')


def chat(key, *fields, path="/v1/chat/completions", body=CHAT):
    return post(path, body, f"Authorization: Bearer {key}", *fields)


def status(raw):
    return int(raw.split(b" ", 2)[1])


def error(raw):
    return json.loads(body_of(raw))["error"]


async def test_the_engine_gets_its_own_key_and_the_record_a_name():
    """The client's key ends at the sidecar, in whichever field it came."""
    async with scripted([ANSWER]) as engine, sidecar(engine.url, credentials=KEYS) as front:
        assert status(await front.send(chat("pj-a", "X-Api-Key: pj-a"))) == 200
        assert status(await front.send(post("/v1/messages", CHAT, "X-Api-Key: pj-b"))) == 200
        records = await front.records(2)
        assert [record.facts.tenant for record in records] == ["tenant-a", "tenant-b"]
        for request in engine.requests:
            assert b"pj-" not in request
            assert request.count(b"\r\nAuthorization: Bearer sk-engine\r\n") == 1


async def test_who_is_turned_away_does_not_reach_the_engine():
    """Not with any spelling, not over a WebSocket; and leaves no record, since nothing was spent."""
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
    async with scripted([ANSWER]) as engine, sidecar(engine.url, credentials=KEYS) as front:
        for request, expected in [(post("/v1/chat/completions", CHAT), 401), (chat("pj-x"), 401), (chat("pj-a", path="/sleep"), 403),
                                  (chat("pj-a", path="/v1/../sleep"), 403), (chat("pj-a", path="http://h?x=/sleep", body=b""), 200),
                                  (post("/v1/realtime", b"", *upgrade, method="GET"), 401), (post("/metrics", b"", method="GET"), 401)]:
            assert status(await front.send(request)) == expected, request
        assert [request.split(b" ")[1] for request in engine.requests] == [b"/?x=/sleep"]
        assert len(await front.records(1)) == 1


async def test_a_refusal_says_what_is_expected():
    """In OpenAI's shape, with the challenge that RFC 9110 asks for."""
    async with scripted([ANSWER]) as engine, sidecar(engine.url, credentials=KEYS) as front:
        raw = await front.send(post("/v1/chat/completions", CHAT))
        assert b"\r\nWWW-Authenticate: Bearer\r\n" in raw
        assert error(raw) == {"message": "expected an API key, as `Authorization: Bearer KEY` or `X-Api-Key: KEY`; got none",
                              "type": "invalid_api_key", "param": None, "code": 401}


async def test_a_refusal_keeps_the_connection_where_the_request_has_come_whole():
    """The next request on it may have a key; a body that is still on its way is not waited for."""
    async with scripted([ANSWER]) as engine, sidecar(engine.url, credentials=KEYS) as front:
        good = chat("pj-a")
        bad = post("/v1/chat/completions", CHAT).replace(b"Connection: close\r\n", b"")
        raw = await front.send(bad + good)
        assert (status(raw), raw.count(b"HTTP/1.1 200 OK\r\n")) == (401, 1)
        raw = await front.send(bad.replace(b"Content-Length: %d" % len(CHAT), b"Content-Length: 1000000"), until=b'"code":401}}')
        assert status(raw) == 401
        assert b"\r\nConnection: close\r\n" in raw


async def test_an_unusual_spelling_of_an_inference_route_is_metered():
    """The bytes go on as they came, and the joules are counted as the engine will read them."""
    async with scripted([ANSWER]) as engine, sidecar(engine.url, credentials=KEYS) as front:
        assert status(await front.send(chat("pj-a", path="/v1/%63hat/completions?x=1"))) == 200
        assert engine.requests[0].startswith(b"POST /v1/%63hat/completions?x=1 HTTP/1.1\r\n")
        assert [record.facts.endpoint for record in await front.records(1)] == ["chat.completions"]


async def test_a_record_is_shown_to_its_owner_only():
    """By either of its ids; to others it is as if there were none."""
    async with scripted([ANSWER]) as engine, sidecar(engine.url, credentials=KEYS) as front:
        await front.send(chat("pj-a", "X-Request-Id: mine"))
        (record,) = await front.records(1)
        for any_id in (record.facts.record_id, "mine", "mine?x=1"):
            path = f"/energy/{any_id}"
            assert json.loads(body_of(await front.send(post(path, b"", "X-Api-Key: pj-a", method="GET"))))["tenant"] == "tenant-a"
            assert status(await front.send(post(path, b"", "X-Api-Key: pj-b", method="GET"))) == 404
            assert status(await front.send(post(path, b"", method="GET"))) == 401


async def test_a_spent_budget_is_a_429_until_there_is_room():
    """The engine is not asked, nobody else is held back, and what does not infer goes on."""
    async with scripted([ANSWER]) as engine, sidecar(engine.url, credentials=KEYS) as front:
        assert status(await front.send(chat("pj-poor"))) == 200
        await front.records(1)  # eleven tokens of ten
        raw = await front.send(chat("pj-poor"))
        assert status(raw) == 429
        assert error(raw)["type"] == "rate_limit_exceeded"
        assert "10 tokens in 86400 s and has used 11" in error(raw)["message"]
        fields = dict(line.split(": ") for line in raw.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:])
        assert 0 < int(fields["Retry-After"]) <= 86400
        assert fields["x-ratelimit-remaining-tokens"] == "0"
        assert status(await front.send(chat("pj-a"))) == 200
        assert status(await front.send(post("/v1/models", b"", "X-Api-Key: pj-poor", method="GET"))) == 200
        assert len(engine.requests) == 3


async def test_requests_are_taken_while_they_run():
    """Of four at once that a budget of three has room for, one waits."""
    async with scripted([0.2, ANSWER]) as engine, sidecar(engine.url, credentials=KEYS) as front:
        statuses = [status(raw) for raw in await asyncio.gather(*(front.send(chat("pj-poor")) for _ in range(4)))]
        assert sorted(statuses) == [200, 200, 200, 429]


async def test_without_keys_the_engine_s_own_is_lent():
    """To who shows none; everything is open, as if the engine stood there."""
    lending = Credentials(Doors(upstream_key="sk-engine"))
    async with scripted([ANSWER]) as engine, sidecar(engine.url, credentials=lending) as front:
        assert status(await front.send(post("/sleep", b""))) == 200
        assert status(await front.send(chat("sk-mine"))) == 200
        assert b"\r\nAuthorization: Bearer sk-engine\r\n" in engine.requests[0]
        assert b"\r\nAuthorization: Bearer sk-mine\r\n" in engine.requests[1]
        assert b"sk-engine" not in engine.requests[1]
        assert len((await front.records(1))[0].facts.tenant) == 32


@pytest.mark.parametrize("path", ["/health", "/ping"])
async def test_health_goes_through_without_a_key(path):
    """The engine answers it, and is shown no key of its own."""
    async with scripted([ANSWER]) as engine, sidecar(engine.url, credentials=KEYS) as front:
        assert status(await front.send(post(path, b"", "Authorization: Bearer pj-x", method="GET"))) == 200
        assert b"uthorization" not in engine.requests[0]


async def test_t43_a_body_that_trickles_is_cut_off():
    """408 after --slow-sender-s, and the engine has heard nothing; a body that is merely large and steady goes through."""
    async with scripted([ANSWER]) as engine, sidecar(engine.url, slow_sender_s=0.5) as front:
        reader, writer = await front.connect()
        head, _, body = post("/v1/chat/completions", CHAT).partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        for byte in body[:20]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)
        raw = await asyncio.wait_for(reader.readuntil(b"}}"), 10)
        assert status(raw) == 408
        assert error(raw)["message"] == "the request's body came too slowly (--slow-sender-s 0.5)"
        writer.close()
        assert engine.requests == []
        reader, writer = await front.connect()
        large = b'{"model":"m","messages":[{"role":"user","content":"%s"}]}' % (b"x" * 100_000)
        raw = post("/v1/chat/completions", large)
        for start in range(0, len(raw), 10_000):  # 100 kB in a second: ten times what it must do
            writer.write(raw[start:start + 10_000])
            await asyncio.sleep(0.1)
        assert status(await asyncio.wait_for(reader.read(), 10)) == 200
        assert engine.requests[0].endswith(large)
        writer.close()


async def test_a_budget_outlives_a_restart(tmp_path):
    """What the ledger says was used in the present interval is used."""
    async with scripted([ANSWER]) as engine:
        for expected in ([200, 200], [200, 429]):
            ledger = Ledger(tmp_path / "ledger.sqlite3")
            async with sidecar(engine.url, credentials=THREE_REQUESTS, ledger=ledger) as front:
                assert [status(await front.send(chat("pj-poor"))) for _ in expected] == expected
                await front.records(expected.count(200))


@pytest.mark.parametrize("sent", ["a\tERROR all is lost", "\x1b[31mred", "a b", "q" * 129, "h\u00e9", "a,b", "$(id)"])
async def test_t42_a_request_id_that_could_write_into_a_log_is_not_taken_over(sent):
    """It goes to the engine as it came; the record, the span and the log have ours."""
    async with scripted([ANSWER]) as engine, sidecar(engine.url) as front:
        raw = await front.send(post("/v1/chat/completions", CHAT, f"X-Request-Id: {sent}"))
        if status(raw) == 400:  # control characters are no field values at all
            assert engine.requests == []
            return
        (record,) = await front.records(1)
        assert record.facts.request_id == record.facts.record_id
        assert f"\r\nX-Request-Id: {sent}\r\n".encode() in engine.requests[0]
