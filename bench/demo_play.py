"""What happens in the demo: the engine and the sidecar start, the visits are made and watched, and all of it stops."""

import asyncio
import time
import webbrowser
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
from openai import AsyncOpenAI
from rich.console import Console
from rich.live import Live

from perjoule.bench import demo_hold
from perjoule.bench.child import FailedError, child
from perjoule.bench.demo_report import report
from perjoule.bench.demo_view import live_view
from perjoule.bench.dialect import MODEL
from perjoule.bench.visits import Visit, make, plan

SPEED = 0.25  # slow motion: hundreds of tokens a second, which any laptop can follow
MAX_NUM_SEQS = 16
SETTLE_S = 5.0
LOOK_S = 0.125


class Stage(NamedTuple):
    """Where everything is."""

    engine: str
    listen: str
    admin: str
    pid: int  # of the sidecar


@asynccontextmanager
async def stage(seed: int, console: Console, *more: str, opens: bool) -> AsyncIterator[Stage]:
    """The engine and the sidecar, with `more` flags, as processes while the block runs. Raises FailedError."""
    engine_flags = ["--port", "0", "--seed", str(seed), "--speed", str(SPEED), "--max-num-seqs", str(MAX_NUM_SEQS)]
    async with child("perjoule.bench.engine", *engine_flags) as engine:
        serve = ["serve", "--upstream", engine["url"], "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ledger",
                 "off", "--calibrations", "off", "--energy", f"simulated:{engine['url']}", "--max-num-seqs", str(MAX_NUM_SEQS), *more]
        async with child("perjoule.main", *serve) as sidecar:
            console.print(f"The live page, while this runs: {sidecar['admin']}/")
            if opens and not await asyncio.to_thread(webbrowser.open, sidecar["admin"] + "/"):
                console.print("No browser could be started here: open it in yours.")
            yield Stage(engine["url"], sidecar["listen"], sidecar["admin"], sidecar["pid"])


async def hold(seed: int, console: Console, *, opens: bool) -> None:
    """Start everything, and send mixed traffic until this is cancelled. Raises FailedError."""
    with demo_hold.keys() as keys:
        async with stage(seed, console, "--keys", str(keys), opens=opens) as running:
            console.print("Mixed traffic until Ctrl-C; every joule of it is simulated.")
            await demo_hold.ask(running.listen, seed)


async def play(requests: int, seed: int, console: Console, *, opens: bool = False) -> dict[str, Any]:
    """Start everything, send that many requests, and report. Raises FailedError."""
    begun = time.monotonic()
    visits = plan(requests, seed)
    async with stage(seed, console, opens=opens) as running, aiohttp.ClientSession() as http:
        async with AsyncOpenAI(base_url=running.listen + "/v1", api_key="demo", max_retries=0) as client:
            visiting = [asyncio.create_task(see(visit, client, http, running.listen)) for visit in visits]
            try:
                await watch(visiting, visits, http, running.admin, console)
            finally:  # nobody visits a sidecar that is being stopped
                for task in visiting:
                    task.cancel()
                await asyncio.wait(visiting)
        balance = await get(http, running.admin + "/energy/balance")
        truth = await get(http, running.engine + "/simulated/energy")
    return report(visits, balance, truth["requests"]) | {"seconds": round(time.monotonic() - begun, 1)}


async def see(visit: Visit, client: AsyncOpenAI, http: aiohttp.ClientSession, listen: str) -> None:
    """Make one visit, then fetch its record once it is settled. What goes wrong is in `visit.failure`."""
    await make(visit, client, MODEL)
    give_up_s = time.monotonic() + SETTLE_S
    try:
        while visit.record_path and visit.record is None and time.monotonic() < give_up_s:
            async with http.get(listen + visit.record_path) as response:
                record = await response.json()
            if response.status == 200 and record["settled"]:
                visit.record = record
            else:
                await asyncio.sleep(LOOK_S)
    except aiohttp.ClientError as error:
        visit.failure = visit.failure or f"{type(error).__name__}: {error}"


async def watch(visiting: Collection["asyncio.Task[None]"], visits: list[Visit], http: aiohttp.ClientSession,
                admin: str, console: Console) -> None:
    """Wait for the visits, and show them where somebody is looking. Raises FailedError."""
    if console.is_terminal and not console.quiet:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while not all(task.done() for task in visiting):
                balance = await get(http, admin + "/energy/balance")
                running = await get(http, admin + "/energy/in-flight")
                live.update(live_view(visits, balance, running["requests"]), refresh=True)
                await asyncio.wait(visiting, timeout=LOOK_S)
    await asyncio.gather(*visiting)


async def get(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """A JSON object. Raises FailedError."""
    try:
        async with http.get(url) as response:
            if response.status != 200:
                raise FailedError(f"GET {url}: got status {response.status}: {await response.text()}")
            answer: dict[str, Any] = await response.json()
            return answer
    except aiohttp.ClientError as error:
        raise FailedError(f"GET {url}: {type(error).__name__}: {error}") from error
