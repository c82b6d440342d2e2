"""Several worker processes behind one port and one meter: shares stay conserved, and a worker that dies takes only what is its own."""

import asyncio
import hashlib
import json
import os
import signal
import sqlite3
from collections import Counter
from contextlib import asynccontextmanager, closing
from pathlib import Path

import aiohttp

from perjoule.bench.child import child
from perjoule.bench.relay_upstream import Wish

WORKERS = 2


@asynccontextmanager
async def served(*flags, workers=WORKERS, listen="127.0.0.1:0"):
    """The prepared engine, and the sidecar with two workers in front of it."""
    async with (child("perjoule.bench.relay_upstream") as engine,
                child("perjoule.main", "serve", "--upstream", engine["url"], "--listen", listen, "--admin", "127.0.0.1:0",
                      "--engine", "vllm", "--energy", "simulated", "--ledger", "off", "--calibrations", "off",
                      "--workers", str(workers), *flags) as front):
        yield front


def body(frames, gap_ms, *, stream=True):
    return {"model": "m", "stream": stream, "messages": [{"role": "user", "content": str(Wish(frames, gap_ms, 400))}]}


async def ask(front, asked, request_id="", **fields):
    """POST on a connection of its own; answers the fields and the text, which is what came before a cut."""
    got, url = b"", front["listen"]
    is_unix = url.startswith("unix:")
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(url.removeprefix("unix:")) if is_unix else None) as session:
        try:
            async with session.post(("http://unix" if is_unix else url) + "/v1/chat/completions", json=asked,
                                    headers={"X-Request-Id": request_id, **fields}) as answer:
                async for piece in answer.content.iter_any():
                    got += piece
            return answer.headers, got.decode()
        except aiohttp.ClientError:
            return None, got.decode()


async def get(url):
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.json()


async def record(front, request_id):
    """The settled record of a request, asked on the traffic port."""
    for _ in range(100):
        found = await get(f"{front['listen']}/energy/{request_id}")
        if found.get("settled"):
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"{request_id} never settled: {found}")


def processes_of(front, module):
    """The ids of the processes that the sidecar has started, from any of its threads, to run this module."""
    found = [int(pid) for thread in Path(f"/proc/{front['pid']}/task").iterdir() for pid in (thread / "children").read_text().split()]
    return sorted(pid for pid in found if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))


def workers_of(front):
    """The process ids of the workers."""
    return processes_of(front, "perjoule.sidecar.process.worker")


def sockets_of(pid):
    """How many TCP connections a process has open."""
    return sum(each.readlink().name.startswith("socket:") for each in Path(f"/proc/{pid}/fd").iterdir())


async def test_one_meter_serves_all():
    """Requests of every worker are charged in their answers, settled and conserved, as if there were one process."""
    async with served() as front:
        await asyncio.sleep(0.3)
        answers = await asyncio.gather(*(ask(front, body(10, 20), f"s{i}") for i in range(20)),
                                       *(ask(front, body(0, 0, stream=False), f"w{i}") for i in range(20)))
        for fields, text in answers[:20]:
            (comment,) = [line for line in text.splitlines() if line.startswith(": energy ")]
            said = json.loads(comment.removeprefix(": energy "))
            assert (said["status"], said["energy_joules"] > 0) == ("simulated", True)
            assert text.endswith("data: [DONE]\n\n")
            assert fields["X-Energy-Record"] == said["record"]
        assert all(fields["X-Energy-Status"] == "simulated" for fields, _ in answers[20:])
        records = [await record(front, name) for name in [f"s{i}" for i in range(20)] + [f"w{i}" for i in range(20)]]
        assert {(each["outcome"], each["output_source"]) for each in records} == {("completed", "usage")}
        balance = await get(front["admin"] + "/energy/balance")
        assert balance["conserved"]
        assert balance["requests_uj"] >= sum(each["energy_uj"] for each in records) > 0


async def test_a_settled_charge_is_waited_for_across_processes():
    """What the stream's last comment says is what the record says."""
    async with served() as front:
        await asyncio.sleep(0.3)
        _, text = await ask(front, body(10, 20), "mine", **{"X-Energy-Include": "settled"})
        said = json.loads(next(line for line in text.splitlines() if line.startswith(": energy "))[9:])
        found = await record(front, "mine")
        assert (said["settled"], said["energy_joules"]) == (True, found["energy_joules"])


async def test_a_worker_that_dies_takes_only_its_own():
    """Its requests are cut and recorded as errored, with what they had cost; the others' go on, and another worker takes its place."""
    async with served() as front:
        names = [f"k{i}" for i in range(12)]
        asking = [asyncio.ensure_future(ask(front, body(100, 20), name)) for name in names]
        while len(await get_in_flight(front)) < len(names):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        victim = max(workers_of(front), key=sockets_of)
        os.kill(victim, signal.SIGKILL)
        texts = {name: text for name, (_, text) in zip(names, await asyncio.gather(*asking), strict=True)}
        records = {name: await record(front, name) for name in names}
        outcomes = Counter((each["outcome"], each["error_type"]) for each in records.values())
        assert set(outcomes) == {("completed", None), ("errored", "worker_died")}
        for name, each in records.items():
            assert (each["outcome"] == "completed") == texts[name].endswith("data: [DONE]\n\n")
            assert each["energy_uj"] > 0
            assert each["output_tokens"] > 0
        balance = await get(front["admin"] + "/energy/balance")
        assert balance["conserved"]
        for _ in range(200):
            if (await get(front["admin"] + "/readyz"))["workers_alive"] == WORKERS:
                break
            await asyncio.sleep(0.05)
        assert victim not in workers_of(front)
        assert all(text.endswith("data: [DONE]\n\n") for _, text in await asyncio.gather(*(ask(front, body(2, 1)) for _ in range(8))))


async def get_in_flight(front):
    return (await get(front["admin"] + "/energy/in-flight"))["requests"]


async def test_what_keeps_the_ledger_may_die_and_every_record_is_kept_once(tmp_path):
    """Rows are written in a process of their own; killed again and again among requests, it loses none, and nobody waits for it."""
    file, sent = tmp_path / "l.sqlite3", 0
    async with served("--ledger", str(file)) as front:
        await asyncio.sleep(0.3)
        for _ in range(4):
            asked = [ask(front, body(0, 0, stream=False), f"k{sent + i}") for i in range(20)]
            sent += len(asked)
            for fields, _text in await asyncio.gather(*asked):
                assert "X-Energy-Joules" in fields
            (keeper,) = processes_of(front, "perjoule.sinks") or [0]
            if keeper:
                os.kill(keeper, signal.SIGKILL)
        assert (await record(front, f"k{sent - 1}"))["outcome"] == "completed"
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT count(*), count(DISTINCT record_id), min(sequence), max(sequence) FROM records").fetchone() == (
            sent, sent, 1, sent)
        (told,) = database.execute("SELECT settled_uj FROM balances ORDER BY sequence DESC, unix_ns DESC LIMIT 1").fetchone()
        assert told == database.execute("SELECT sum(energy_uj) FROM records").fetchone()[0]


async def test_asked_to_stop_it_finishes_what_runs():
    """Every stream ends as it would have; nobody new is taken; then all processes are gone."""
    async with served("--drain-s", "20") as front:
        asking = [asyncio.ensure_future(ask(front, body(60, 20), f"d{i}")) for i in range(6)]
        while len(await get_in_flight(front)) < 6:
            await asyncio.sleep(0.02)
        workers = workers_of(front)
        os.kill(front["pid"], signal.SIGTERM)
        assert all(text.endswith("data: [DONE]\n\n") for _, text in await asyncio.gather(*asking))
        assert (await ask(front, body(1, 1)))[0] is None
        await gone(workers)


async def test_asked_twice_it_stops_at_once():
    """What runs is cut, and seen to be cut."""
    async with served("--drain-s", "60") as front:
        asking = asyncio.ensure_future(ask(front, body(3000, 20), "long"))
        while not await get_in_flight(front):
            await asyncio.sleep(0.02)
        os.kill(front["pid"], signal.SIGTERM)
        await asyncio.sleep(0.2)
        os.kill(front["pid"], signal.SIGTERM)
        async with asyncio.timeout(15):
            assert (await asking)[0] is None


async def test_a_meter_that_dies_leaves_no_stream_in_the_lurch():
    """Workers without a meter finish what runs, and end: a sidecar started anew finds its port free."""
    async with served("--drain-s", "20") as front:
        asking = [asyncio.ensure_future(ask(front, body(60, 20))) for _ in range(6)]
        while len(await get_in_flight(front)) < 6:
            await asyncio.sleep(0.02)
        workers = workers_of(front)
        os.kill(front["pid"], signal.SIGKILL)
        assert all("data: [DONE]\n\n" in text for _, text in await asyncio.gather(*asking))
        await gone(workers)


async def gone(pids):
    """Wait until these processes are no more."""
    async with asyncio.timeout(15):
        while any(Path(f"/proc/{pid}/stat").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2] for pid in pids):
            await asyncio.sleep(0.05)


async def test_a_reload_reaches_every_worker_or_none(tmp_path):
    """What the file says holds for the next request of each; a file that cannot be used changes nothing."""
    config = tmp_path / "perjoule.toml"
    config.write_text("comment = true\n")
    async with served("--config", str(config)) as front:
        async def comments():
            return [": energy" in text for _, text in await asyncio.gather(*(ask(front, body(1, 1)) for _ in range(12)))]

        assert all(await comments())
        config.write_text("comment = false\ndrain_s = 'soon'\n")
        os.kill(front["pid"], signal.SIGHUP)
        await asyncio.sleep(0.5)
        assert all(await comments())
        config.write_text("comment = false\n")
        os.kill(front["pid"], signal.SIGHUP)
        async with asyncio.timeout(10):
            while any(await comments()):
                await asyncio.sleep(0.05)


async def test_a_key_s_budget_holds_for_all_workers_together(tmp_path):
    """Twelve requests at once on twelve connections, a budget of five: five are let in, whoever they came to."""
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[key]]\nname = "a"\nsha256 = "{hashlib.sha256(b"k").hexdigest()}"\ninterval_s = 86400\nrequests = 5\n')
    async with served("--keys", str(keys)) as front:
        answers = await asyncio.gather(*(ask(front, body(1, 1), Authorization="Bearer k") for _ in range(12)))
        assert sum(text.endswith("data: [DONE]\n\n") for _, text in answers) == 5
        assert sum("rate_limit_exceeded" in text for _, text in answers) == 7


async def test_a_unix_socket_is_shared(tmp_path):
    """There is one socket file for all; it is gone when they are."""
    path = tmp_path / "p.sock"
    async with served(listen=f"unix:{path}") as front:
        assert front["listen"] == f"unix:{path}"
        answers = await asyncio.gather(*(ask(front, body(2, 1)) for _ in range(8)))
        assert all(text.endswith("data: [DONE]\n\n") for _, text in answers)
    assert not path.exists()
