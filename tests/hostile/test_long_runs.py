"""T45–T51: what a day of traffic would pile up: memory, connections, series, doubles and counters that never come down."""

import asyncio
import contextlib
import gc
import json
import random
import re
from collections import Counter

import aiohttp
import pytest

from perjoule.sidecar.dialects.endpoints import PATHS
from perjoule.sidecar.http.upstream import IDLE_LIMIT_S
from perjoule.sidecar.record import Outcome
from perjoule.sidecar.records.tally import MODELS
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import CUT, answer, chunked, scripted, sse, stream_head
from tests.hostile.wire import ASKED, CHAT, COUNTED, INFER, LAST, STREAM, TWO, WITH_USAGE, frame, rss_kb, serving, until


def ours():
    """The objects of the sidecar's classes that are alive, by class."""
    gc.collect()
    return Counter(type(thing).__qualname__ for thing in gc.get_objects() if type(thing).__module__.startswith("perjoule.sidecar"))


async def test_t45_nothing_of_a_request_stays_behind():
    """Two thousand requests, whole, streamed, left, refused and cut: objects, tasks and memory are as before, and each record is one."""
    chance = random.Random(45)
    scripts = [[answer(COUNTED)], [stream_head(), chunked(WITH_USAGE)], [stream_head(), chunked(sse(TWO))[:-5], 0.002, CUT],
               [stream_head(), *[chunked(sse(frame("x")))[:-5], 0.002] * 4, chunked(sse(LAST, "[DONE]"))],
               [0.01, answer(b"no", status="500 No")]]
    chosen = [chance.choice(scripts) for _ in range(2500)]

    async with scripted(*chosen) as engine, sidecar(engine.url) as front:

        async def ask():
            reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
            writer.write(post(CHAT, chance.choice((INFER, STREAM, ASKED))))
            with contextlib.suppress(TimeoutError, ConnectionError):
                await asyncio.wait_for(reader.read(), chance.choice((0.003, 0.01, 10)))
            writer.close()

        async def ask_many(count):
            for _ in range(count // 50):
                await asyncio.gather(*(ask() for _ in range(50)))
            await until(lambda: front.service.traffic.active == front.service.meter.unsettled == 0)

        await ask_many(500)
        before, tasks, before_kb = ours(), len(asyncio.all_tasks()) - front_connections(front), rss_kb()
        await ask_many(2000)
        after = ours()
        kept = {"EnergyRecord", "RequestFacts", "Charge"}  # by the test, and for `GET /energy/{id}`
        assert {name: count - before[name] for name, count in after.items() if count > before[name] + 100 and name not in kept} == {}
        assert len(asyncio.all_tasks()) - front_connections(front) <= tasks
        assert rss_kb() - before_kb < 30_000
        records = await front.records(len(engine.requests))  # who left before it had asked has none
        assert len({record.facts.record_id for record in records}) == len(records) <= 2500
        assert front.service.balance()["conserved"]


def front_connections(front):
    """Connections that wait in the pool for the next request; the scripted engine has a task for each."""
    return len(front.service.traffic.relay.upstream._idle)


async def test_t46_giving_up_idle_connections_touches_none_that_is_used():
    """The pool is cleared of what has lain idle for too long while a stream runs: the stream goes on to its end."""
    long = [stream_head(), *[chunked(sse(frame("x")))[:-5], 0.05] * 8, chunked(sse(LAST, "[DONE]"))]
    async with scripted(long, [0.05, answer(b"{}")]) as engine, sidecar(engine.url, comment=False) as front:
        streaming = asyncio.ensure_future(front.send(post(CHAT, ASKED)))
        await until(lambda: engine.requests)
        await asyncio.gather(*(front.send(post(CHAT, INFER)) for _ in range(20)))
        idle = front.service.traffic.relay.upstream._idle
        assert len(idle) > 1
        for connection in idle:
            connection.idle_since -= IDLE_LIMIT_S
        await front.send(post(CHAT, INFER))
        assert len(idle) == 1
        assert body_of(await streaming) == sse(*[frame("x")] * 8, LAST, "[DONE]")


async def test_t47_nobody_s_request_makes_series_without_end():
    """Three hundred made-up models: as many series as there is room for, the rest together, and no path or id among the labels."""
    async with scripted([answer(COUNTED)]) as engine, serving(engine.url) as front, aiohttp.ClientSession() as client:
        for number in range(MODELS + 50):
            body = json.dumps({"model": f"made-up-{number}", "messages": []})
            async with client.post(front["listen"] + CHAT, data=body, headers={"X-Request-Id": f"id-{number}"}) as got:
                assert got.status == 200
        async with asyncio.timeout(10):
            while True:
                async with client.get(front["admin"] + "/metrics") as got:
                    text = await got.text()
                if sum(map(float, re.findall(r"^perjoule_requests_total\{.*\} (.*)$", text, re.MULTILINE))) == MODELS + 50:
                    break
                await asyncio.sleep(0.05)
        assert len(set(re.findall(r'model="([^"]*)"', text))) == MODELS + 1
        assert 'model="other"' in text
        assert "id-" not in text


@pytest.mark.parametrize("path", sorted(PATHS))
async def test_t48_a_body_is_not_helped(path):
    """What was not asked to be streamed goes on byte for byte on every inference route: nothing is added, ordered or defaulted."""
    body = b'{ "model":"m" ,"input":["a"], "encoding_format" : null,"model":"m","stream":false, "stream_options":null,"\\u00fc":1e400 }\n'
    async with scripted([answer(COUNTED)]) as engine, sidecar(engine.url) as front:
        await front.send(post(path or "/", body))
        assert engine.requests[0].endswith(b"\r\n\r\n" + body)
        (record,) = await front.records(1)
        assert record.facts.outcome is Outcome.COMPLETED


async def test_t49_workers_count_once_together():
    """Two processes on one port: a hundred requests are a hundred records, and all their joules are in one balance that holds."""
    async with scripted([0.01, answer(COUNTED)]) as engine, serving(engine.url, "--workers", "2") as front:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=20)) as client:
            asking = {"url": front["listen"] + CHAT, "data": INFER, "headers": {"X-Energy-Include": "settled"}}
            async with asyncio.timeout(20):  # what ran before the counter had changed has no joules
                while not (await (await client.get(front["admin"] + "/energy/balance")).json())["measured_uj"]:
                    await asyncio.sleep(0.05)

            async def ask():
                async with client.post(**asking) as got:
                    return got.headers["X-Energy-Record"], float(got.headers["X-Energy-Joules"])

            said = dict(await asyncio.gather(*(ask() for _ in range(100))))
            async with client.get(front["admin"] + "/energy/balance") as got:
                balance = await got.json()
            async with client.get(front["admin"] + "/metrics") as got:
                counted = sum(map(float, re.findall(r"^perjoule_requests_total\{.*\} (.*)$", await got.text(), re.MULTILINE)))
        assert (len(said), counted) == (100, 100)
        assert balance["conserved"]
        assert balance["requests_uj"] == round(sum(said.values()) * 1e6)


async def test_t50_ids_that_collide_mix_nothing_up():
    """Thirty images at once under one request id: everybody gets their own, and there are thirty records with ids of their own."""
    scripts = [[0.05, answer(b'{"data":[{"b64_json":"%d"}]}' % number)] for number in range(30)]
    async with scripted(*scripts) as engine, sidecar(engine.url) as front:
        asking = post("/v1/images/generations", b'{"prompt":"a cat"}', "X-Request-Id: the-same")
        bodies = [body_of(raw) for raw in await asyncio.gather(*(front.send(asking) for _ in scripts))]
        assert sorted(bodies) == sorted(script[1].partition(b"\r\n\r\n")[2] for script in scripts)
        records = await front.records(30)
        assert {record.facts.request_id for record in records} == {"the-same"}
        assert len({record.facts.record_id for record in records}) == 30


async def test_t51_what_counts_requests_in_flight_comes_down_again():
    """Fifty clients leave in the middle: nothing is in flight, neither in the page of those that are nor in the meter."""
    async with scripted([stream_head(), chunked(sse(TWO))[:-5], 30.0]) as engine, sidecar(engine.url) as front:
        clients = [await asyncio.open_connection("127.0.0.1", front.port) for _ in range(50)]
        for _, writer in clients:
            writer.write(post(CHAT, STREAM))
        await until(lambda: front.service.meter.in_flight == len(front.service.in_flight()) == front.service.traffic.active == 50)
        for _, writer in clients:
            writer.close()
        await until(lambda: front.service.traffic.active == 0)
        assert front.service.meter.in_flight == len(front.service.in_flight()) == 0
        await until(lambda: front.service.meter.unsettled == 0)
        assert len(await front.records(50)) == 50
