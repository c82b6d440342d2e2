"""A real sidecar under mixed traffic, and a real Prometheus that scrapes it by the shipped configuration and rules."""

import asyncio
import contextlib
import re
import shutil
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from perjoule.bench.child import child, program
from perjoule.bench.dialect import MODEL
from perjoule.sidecar.access.keys import entry_for

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"
TENANTS = ("acme", "globex", "initech")
CHAT = {"messages": [{"role": "user", "content": "How much is this?"}], "max_tokens": 24}


@dataclass
class Monitored:
    """What runs: where clients connect, and where Prometheus answers."""

    listen: str
    prometheus: str
    http: aiohttp.ClientSession

    async def ask(self, path: str, **params: str) -> Any:
        """The data of an answer of Prometheus."""
        async with self.http.get(self.prometheus + "/api/v1/" + path, params=params) as answer:
            told = await answer.json()
        assert told["status"] == "success", (params, told)
        return told["data"]

    async def series(self, expr: str) -> list[dict[str, Any]]:
        """What an expression gives now, without what is not a number."""
        found = (await self.ask("query", query=expr))["result"]
        return [one for one in found if one["value"][1] not in ("NaN", "+Inf", "-Inf")]

    async def visits(self) -> None:
        """A round of requests: every tenant, whole and streamed; some fail, some are left, some embed."""
        await asyncio.gather(*(self.visit(tenant, **asked) for tenant in TENANTS for asked in (
            {"model": MODEL}, {"model": MODEL, "stream": True}, {"stream": True}, {"model": "nobody/has-this"},
            {"model": MODEL, "stream": True, "max_tokens": 4000})))

    async def visit(self, tenant: str, **asked: Any) -> None:
        """One chat, of which a long one is left early."""
        body, key = CHAT | asked, {"Authorization": f"Bearer key-of-{tenant}"}
        async with self.http.post(self.listen + "/v1/chat/completions", json=body, headers=key) as answer:
            if body["max_tokens"] < 1000:
                await answer.read()
            else:
                await answer.content.read(100)
                answer.close()


def free_port() -> int:
    """A port that nobody listens on now; Prometheus does not tell which one it took."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.asynccontextmanager
async def monitored(folder: Path, speed: float = 4.0) -> AsyncIterator[Monitored]:
    """All of it while the block runs, with an engine of that speed. Alerts fire as soon as their condition is true; one target more is
    scraped, which is not there."""
    keys, port, nobody = folder / "keys.toml", free_port(), free_port()
    keys.write_text("".join(entry_for(tenant, f"key-of-{tenant}") for tenant in TENANTS))
    async with contextlib.AsyncExitStack() as stack:
        engine = await stack.enter_async_context(child("perjoule.bench.engine", "--port", "0", "--speed", str(speed)))
        serving = await stack.enter_async_context(child(
            "perjoule.main", "serve", "--upstream", engine["url"], "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--keys", str(keys),
            "--energy", f"simulated:{engine['url']}", "--ledger", str(folder / "ledger.sqlite3"), "--calibrations", "off"))
        configured = (PROMETHEUS / "prometheus.yml").read_text().replace("15s", "250ms")
        admin = serving["admin"].removeprefix("http://")
        (folder / "prometheus.yml").write_text(configured.replace('"127.0.0.1:9464"', f'"{admin}", "127.0.0.1:{nobody}"'))
        (folder / "perjoule.rules.yml").write_text(re.sub(r"(?m)^ +for: .*\n", "", (PROMETHEUS / "perjoule.rules.yml").read_text()))
        command = shutil.which("prometheus")
        assert command is not None
        await stack.enter_async_context(program(
            command, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        running = Monitored(serving["listen"], f"http://127.0.0.1:{port}", http)
        await _until_it_answers(running)
        yield running


async def _until_it_answers(running: Monitored) -> None:
    give_up_s = time.monotonic() + 30
    while True:
        try:
            async with running.http.get(running.prometheus + "/-/ready") as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientError:
            pass
        assert time.monotonic() < give_up_s, "Prometheus did not start"
        await asyncio.sleep(0.1)
