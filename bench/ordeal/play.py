"""The ordeal itself: an engine, a collector, clients, and one sidecar after the other, each killed but the last, which is asked to stop."""

import asyncio
import signal
import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from os import kill
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from perjoule.bench.child import child
from perjoule.bench.ordeal.clients import Clients, Sent
from perjoule.bench.ordeal.collector import Collector, Spans
from perjoule.bench.process_tree import memory
from perjoule.bench.relay_peers import port_of
from perjoule.sidecar.telemetry import OUTBOX_DROPPED, OUTBOX_PENDING, REQUEST_JOULES, REQUESTS, TENANT_REQUESTS

LOOK_EVERY_S = 0.5
PEOPLE = 24
REST_S = 60.0
KILLS = (.08, .16, .23, .33, .70, .79, .88)  # parts of the whole time
FLOOD = (.25, .40)  # every request with a key of its own
HANGS, AWAY = (.45, .53), (.53, .65)  # the collector


@dataclass(slots=True)
class Run:
    """One sidecar while it lived: what it last said of itself, and the most memory it had."""

    started_unix_ns: int
    began_s: float
    ended_s: float = 0.0
    killed: bool = True
    requests: int = 0
    joules: float = 0.0
    tenants: int = 0
    waiting: int = 0
    dropped: int = 0
    rss_bytes: int = 0


@dataclass(slots=True)
class Played:
    """What happened."""

    runs: list[Run]
    sent: list[Sent]
    spans: dict[str, Spans]
    engine_uj: int
    happened: list[tuple[float, str]] = field(default_factory=list)

    def run_at(self, unix_ns: int) -> int:
        """The number of the run that a request of that moment came to."""
        return bisect_right([run.started_unix_ns for run in self.runs], unix_ns) - 1


class Ordeal:
    """One ordeal of so many seconds, its ledger in `folder`; `tell` is told what happens."""

    def __init__(self, seconds: float, seed: int, folder: Path, tell: Callable[[str], None]) -> None:
        self._seconds, self._random, self._seed, self._folder = seconds, Random(seed), seed, folder
        self._begun_s, self._tell, self._happened = 0.0, tell, list[tuple[float, str]]()
        self._runs: list[Run] = []

    @property
    def ledger(self) -> Path:
        """The one ledger of all runs."""
        return self._folder / "ledger.sqlite3"

    async def play(self) -> Played:
        """All of it. Raises FailedError."""
        collector = Collector()
        await collector.open()
        try:
            flags = ("--port", "0", "--seed", str(self._seed))
            async with aiohttp.ClientSession() as session, child("perjoule.bench.engine", *flags) as engine:
                before = await _counter(session, engine["url"])
                self._begun_s = time.monotonic()
                sent = await self._live(engine["url"], collector, session)
                advanced = await _counter(session, engine["url"]) - before
        finally:
            await collector.close()
        return Played(self._runs, sent, collector.runs, advanced, self._happened)

    async def _live(self, engine_url: str, collector: Collector, session: aiohttp.ClientSession) -> list[Sent]:
        flags = ["serve", "--upstream", engine_url, "--energy", f"simulated:{engine_url}", "--ledger", str(self.ledger), "--otlp",
                 collector.url, "--calibrations", "off", "--log-level", "error", "--listen"]
        listen, admin, clients = "127.0.0.1:0", "127.0.0.1:0", None
        tasks: list[asyncio.Task[None]] = []
        for at in (*KILLS, None):
            started_unix_ns = time.time_ns()
            async with child("perjoule.main", *flags, listen, "--admin", admin, log=self._folder / f"log-{len(self._runs)}") as sidecar:
                self._runs.append(run := Run(started_unix_ns, time.monotonic()))
                if clients is None:
                    listen, admin = (f"127.0.0.1:{port_of(sidecar[name])}" for name in ("listen", "admin"))
                    clients = Clients(sidecar["listen"], self._seed)
                    tasks = [asyncio.create_task(clients.ask(PEOPLE)), asyncio.create_task(self._happen(collector, clients))]
                await self._watch(run, sidecar, session, at)
                if at is not None:
                    kill(sidecar["pid"], signal.SIGKILL)
                    run.ended_s = time.monotonic()
                    self._note("kill -9")
                    continue
                clients.stopped, run.killed = True, False
                await asyncio.gather(*tasks)
                await self._rest(run, sidecar, session)
            run.ended_s = time.monotonic()
        assert clients is not None
        return clients.sent

    async def _watch(self, run: Run, sidecar: dict[str, Any], session: aiohttp.ClientSession, at: float | None) -> None:
        """Look at it until its time has come."""
        jitter = 0.0 if at is None else self._random.uniform(-.01, .01)
        until_s = self._begun_s + self._seconds * ((at or 1.0) + jitter)
        while time.monotonic() < until_s:
            with suppress(aiohttp.ClientError, TimeoutError):
                await self._look(run, sidecar, session)
            await asyncio.sleep(min(LOOK_EVERY_S, max(0.0, until_s - time.monotonic())))

    async def _look(self, run: Run, sidecar: dict[str, Any], session: aiohttp.ClientSession) -> None:
        """What a scraper sees."""
        async with session.get(sidecar["admin"] + "/metrics") as answer:
            samples = [s for family in text_string_to_metric_families(await answer.text()) for s in family.samples]
        run.requests = sum(int(s.value) for s in samples if s.name == REQUESTS.name)
        run.joules = sum(s.value for s in samples if s.name == REQUEST_JOULES.name)
        run.tenants = len({s.labels["tenant"] for s in samples if s.name == TENANT_REQUESTS.name})
        run.waiting = sum(int(s.value) for s in samples if s.name == OUTBOX_PENDING.name)
        run.dropped = sum(int(s.value) for s in samples if s.name == OUTBOX_DROPPED.name)
        run.rss_bytes = max(run.rss_bytes, memory(sidecar["pid"]).rss)

    async def _rest(self, run: Run, sidecar: dict[str, Any], session: aiohttp.ClientSession) -> None:
        """Until nothing is in flight, unsettled or waiting to be sent; or for as long as anybody would wait."""
        until_s, unsettled = time.monotonic() + REST_S, 1
        while (unsettled or run.waiting) and time.monotonic() < until_s:
            await asyncio.sleep(LOOK_EVERY_S)
            async with session.get(sidecar["admin"] + "/energy/balance") as answer:
                unsettled = (await answer.json())["unsettled"]
            await self._look(run, sidecar, session)

    async def _happen(self, collector: Collector, clients: Clients) -> None:
        """What befalls collector and clients, at its time."""
        usual, number = clients.new_key, 0

        def flood() -> str:
            nonlocal number
            number += 1
            return f"stranger-{number}"

        events = {FLOOD[0]: "every request has a key of its own", FLOOD[1]: "the usual tenants again",
                  HANGS[0]: "the collector hangs", AWAY[0]: "the collector is gone", AWAY[1]: "the collector is back"}
        for part, text in sorted(events.items()):
            await asyncio.sleep(max(0.0, self._begun_s + part * self._seconds - time.monotonic()))
            self._note(text)
            if part in FLOOD:
                clients.new_key = flood if part == FLOOD[0] else usual
            elif part == HANGS[0]:
                collector.hang()
            elif part == AWAY[0]:
                await collector.go_away()
            else:
                await collector.open()

    def _note(self, text: str) -> None:
        self._happened.append((round(time.monotonic() - self._begun_s, 1), text))
        self._tell(text)


async def _counter(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url + "/simulated/counter") as answer:
        return int((await answer.json())["energy_uj"])
