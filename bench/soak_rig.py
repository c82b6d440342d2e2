"""What bench/soak.py puts its load on: the mortal engine, a collector of spans, and the sidecar before them with everything on."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from perjoule.bench.child import child
from perjoule.bench.process_tree import memory, open_files, threads
from perjoule.bench.relay_peers import port_of
from perjoule.sidecar.telemetry import IN_FLIGHT, METERING_FAILURES, OUTBOX_DROPPED, OUTBOX_PENDING, OUTBOX_STORED, REQUESTS_JOULES

LEDGER_MB = 10_000_000  # it deletes nothing, so that what is not there was never written


class Files:
    """What a run writes: for each request what its client `saw` and how often it `reached` the engine, one byte a request; the ledger;
    and what the sidecar says."""

    def __init__(self, folder: Path, requests: int) -> None:
        self.folder = folder
        self.saw, self.reached, self.log, self.ledger = (folder / name for name in ("saw", "reached", "log", "ledger.sqlite3"))
        for file in (self.saw, self.reached):
            file.write_bytes(bytes(requests))

    @property
    def ledger_bytes(self) -> int:
        """With what SQLite has beside it."""
        return sum(file.stat().st_size for file in self.folder.glob(self.ledger.name + "*"))


class Sidecar:
    """The sidecar while it runs: its process, its ports, and what it sends its spans to."""

    def __init__(self, said: dict[str, Any], spans_url: str | None, session: aiohttp.ClientSession) -> None:
        self.port: int = port_of(said["listen"])
        self._pid: int = said["pid"]
        self._admin, self._spans_url, self._session = said["admin"], spans_url, session
        self._began_s = time.monotonic()

    async def look(self, requests: int) -> dict[str, Any]:
        """What it holds, and what it has counted, when so many requests are over."""
        async with self._session.get(f"{self._admin}/metrics") as answer:
            page = await answer.text()
        counted, sinks = {}, dict[str, dict[str, int]]()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if "sink" in sample.labels:
                    sinks.setdefault(sample.labels["sink"], {})[sample.name] = int(sample.value)
                else:
                    counted[sample.name] = sample.value
        held = memory(self._pid)
        return {"t_s": round(time.monotonic() - self._began_s, 3), "requests": requests, "rss_bytes": held.rss, "pss_bytes": held.pss,
                "open_files": open_files(self._pid), "threads": threads(self._pid), "in_flight": int(counted[IN_FLIGHT.name]),
                "joules": counted[REQUESTS_JOULES.name], "metering_failures": int(counted[METERING_FAILURES.name]),
                "sinks": {name: {"stored": each[OUTBOX_STORED.name], "dropped": each[OUTBOX_DROPPED.name],
                                 "waiting": each[OUTBOX_PENDING.name]} for name, each in sinks.items()}}

    async def balance(self) -> dict[str, Any]:
        """The account as it is now."""
        async with self._session.get(f"{self._admin}/energy/balance") as answer:
            balance: dict[str, Any] = await answer.json()
        return balance

    async def spans(self) -> int | None:
        """How many spans have come, None if they go nowhere."""
        if self._spans_url is None:
            return None
        async with self._session.get(f"{self._spans_url}/spans") as answer:
            return int((await answer.json())["spans"])


@asynccontextmanager
async def files_for(requests: int) -> AsyncIterator[Files]:
    """In a folder that is gone afterwards."""
    with TemporaryDirectory(prefix="perjoule-soak-") as folder:
        yield Files(Path(folder), requests)


@asynccontextmanager
async def served(files: Files, *, workers: int, spans: bool, dev: bool) -> AsyncIterator[Sidecar]:
    """All of it while the block runs. Raises FailedError."""
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(child("perjoule.bench.soak_engine", "--notes", str(files.reached)))
        flags = ["--upstream", engine["url"], "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--energy", "simulated",
                 "--ledger", str(files.ledger), "--ledger-mb", str(LEDGER_MB), "--calibrations", str(files.folder / "calibrations"),
                 "--workers", str(workers)]
        collector = await stack.enter_async_context(child("perjoule.bench.relay_spans")) if spans else None
        if collector is not None:
            flags += ["--otlp", collector["url"]]
        said = await stack.enter_async_context(child("perjoule.main", "serve", *flags, python=("-X", "dev") if dev else (), log=files.log))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Sidecar(said, collector["url"] if collector is not None else None, session)
