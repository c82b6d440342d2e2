"""`perjoule serve` with a ledger in trouble: killed under load, its disk full, its file locked. What was shown as settled is kept."""

import asyncio
import contextlib
import json
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import asynccontextmanager, closing

import aiohttp
import pytest

from perjoule.adapters.ledger.database import open_database
from perjoule.adapters.ledger.queries import Queries
from perjoule.adapters.ledger.verify import verify, wrong_sums
from tests.fakes.upstream import answer, scripted

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
WHOLE = answer(b'{"id":"c","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"ab"},'
               b'"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}')
SETTLED = {"X-Energy-Include": "usage, settled"}
KILLS, CLIENTS = 12, 8
PATIENCE_S = 60


@asynccontextmanager
async def serving(upstream, ledger):
    """A `perjoule serve`, killed at the end if it is still there; yields the process, its addresses and its log."""
    command = [sys.executable, "-m", "perjoule.main", "serve", "--upstream", upstream, "--engine", "vllm", "--listen", "127.0.0.1:0",
               "--admin", "127.0.0.1:0", "--energy", "simulated", "--calibrations", "off", "--ledger", str(ledger)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    log = []

    async def listen():
        async for line in process.stderr:
            log.append(line.decode())  # noqa: PERF401  it is read meanwhile

    listening = asyncio.ensure_future(listen())
    try:
        where = json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE_S))
        yield process, where, log
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await listening


async def until(condition):
    """Wait for something that is asked again and again."""
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await asyncio.sleep(0.02)


async def get(url):
    async with aiohttp.ClientSession() as session, session.get(url) as found:
        return await found.json()


async def clients(url, shown):
    """Ask for answers with a settled value until the sidecar is gone; `shown` gets each such value by its record id."""

    async def one(session):
        with contextlib.suppress(aiohttp.ClientError, json.JSONDecodeError):
            while True:
                async with session.post(f"{url}/v1/chat/completions", json=CHAT, headers=SETTLED) as told:
                    energy = (await told.json())["usage"]["energy"]
                if energy.get("settled"):
                    shown[energy["record"].rpartition("/")[2]] = energy["energy_joules"]

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(one(session) for _ in range(CLIENTS)))


@pytest.mark.slow
async def test_a_record_shown_as_settled_survives_kill_9(tmp_path):
    """Law "once": a sidecar under load is killed a dozen times; all that clients were shown as settled is in the ledger, once, as shown."""
    chance, path = random.Random(20260701), tmp_path / "ledger.db"
    shown = {}
    async with scripted([WHOLE]) as engine:
        for some in chance.choices(range(1, 60), k=KILLS):
            least = len(shown) + some
            async with serving(engine.url, path) as (process, where, _):
                traffic = asyncio.ensure_future(clients(where["listen"], shown))
                async with asyncio.timeout(PATIENCE_S):
                    while len(shown) < least:
                        await asyncio.sleep(0.01)
                await asyncio.sleep(chance.uniform(0, 0.05))
                process.send_signal(signal.SIGKILL)
                await traffic
    database = open_database(path, create=False)
    ledger = Queries(database)
    kept = {record["record_id"]: record["energy_joules"] for record in map(json.loads, ledger.walk())}
    assert len(shown) >= KILLS
    assert {record_id: kept.get(record_id) for record_id in shown} == shown
    assert ledger.grouped([])[0]["requests"] == len(kept)
    assert wrong_sums(database, None, None) == 0
    runs = verify(database, None, None)
    assert (len(runs), sum(run.lost + run.twice for run in runs)) == (KILLS, 0)
    database.close()


def full(process, _path):
    """No file of that process may grow."""
    limits = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, limits[1]))
    return lambda: resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)


def locked(_process, path):
    """Another program holds the file."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other.close


@pytest.mark.slow
@pytest.mark.parametrize("trouble", [full, locked])
async def test_with_a_ledger_in_trouble_traffic_flows_and_the_alarm_is_raised(trouble, tmp_path):
    """Answers come as before, /readyz and the log name the ledger; when the trouble is over all records are there, none was dropped."""
    path = tmp_path / "ledger.db"
    async with scripted([WHOLE]) as engine, serving(engine.url, path) as (process, where, log), aiohttp.ClientSession() as session:

        async def ask(count):
            for _ in range(count):
                async with session.post(f"{where['listen']}/v1/chat/completions", json=CHAT) as told:
                    assert (told.status, (await told.json())["usage"]["total_tokens"]) == (200, 11)

        async def failing():
            return "ledger" in (await get(where["admin"] + "/readyz"))["sinks_failing"]

        async def well_again():
            return not await failing()

        async def all_kept():
            return (await get(where["admin"] + "/energy?interval=86400"))["groups"][0]["requests"] == 30

        await ask(10)
        end = trouble(process, path)
        await ask(10)
        await until(failing)
        assert any("ledger: cannot store records, trying again" in line for line in log)
        await ask(10)
        end()
        await until(well_again)
        await until(all_kept)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    database = open_database(path, create=False)
    [run] = verify(database, None, None)
    assert (run.accounted, run.present, run.later, run.lost) == (True, 30, 0, 0)
    assert wrong_sums(database, None, None) == 0
    database.close()
    with closing(sqlite3.connect(path)) as found:
        assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
