"""`perjoule demo`: an embedded engine, the sidecar in front of it, a few dozen requests, and what each of them cost.

Nothing is needed but this package. The joules are simulated, which has one advantage over real ones: the engine knows
what each request truly cost, so the demo also says how far off the sidecar's shares are.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import aiohttp
from openai import AsyncOpenAI
from rich.console import Console
from rich.live import Live

from perjoule.bench.child import FailedError, child
from perjoule.bench.demo_report import report
from perjoule.bench.demo_view import live_view, summary
from perjoule.bench.dialect import MODEL
from perjoule.bench.visits import Visit, make, plan

SPEED = 0.25  # slow motion: hundreds of tokens a second, which any laptop can follow
MAX_NUM_SEQS = 16
SETTLE_S = 5.0
LOOK_S = 0.125
INTERRUPTED = 130  # what a shell answers for a program ended by Ctrl-C


def run(argv: Sequence[str]) -> int:
    """Run `perjoule demo`; 0 if every request has one record and the joules add up exactly, else 1."""
    parser = argparse.ArgumentParser(prog="perjoule demo", description="See it work without a GPU: an embedded engine, "
                                     "the sidecar in front of it, and what each request cost in simulated joules.")
    parser.add_argument("--requests", type=int, default=36, metavar="N", help="how many requests (default: 36)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another number, another mix (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    asked = parser.parse_args(argv)
    if asked.requests < 1:
        parser.error(f"--requests: got {asked.requests}, expected at least 1")
    console = Console(quiet=asked.json)
    try:
        told = asyncio.run(demonstrate(plan(asked.requests, asked.seed), asked.seed, console))
    except FailedError as error:
        print(f"perjoule demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    if asked.json:
        print(json.dumps(told))
    else:
        console.print(summary(told))
    return 1 if told["problems"] else 0


async def demonstrate(visits: list[Visit], seed: int, console: Console) -> dict[str, Any]:
    """Start everything, send the visits, and report. Raises FailedError."""
    begun = time.monotonic()
    engine_flags = ["--port", "0", "--seed", str(seed), "--speed", str(SPEED), "--max-num-seqs", str(MAX_NUM_SEQS)]
    async with child("perjoule.bench.engine", *engine_flags) as engine:
        serve = ["serve", "--upstream", engine["url"], "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ledger",
                 "off", "--energy", f"simulated:{engine['url']}", "--max-num-seqs", str(MAX_NUM_SEQS)]
        async with child("perjoule.main", *serve) as sidecar, aiohttp.ClientSession() as http:
            async with AsyncOpenAI(base_url=sidecar["listen"] + "/v1", api_key="demo", max_retries=0) as client:
                visiting = asyncio.gather(*(see(visit, client, http, sidecar["listen"]) for visit in visits))
                await watch(visiting, visits, http, sidecar["admin"], console)
            balance = await get(http, sidecar["admin"] + "/energy/balance")
            truth = await get(http, engine["url"] + "/simulated/energy")
    return report(visits, balance, truth["requests"]) | {"seconds": round(time.monotonic() - begun, 1)}


async def see(visit: Visit, client: AsyncOpenAI, http: aiohttp.ClientSession, listen: str) -> None:
    """Make one visit, then fetch its record once it is settled."""
    await make(visit, client, MODEL)
    give_up_s = time.monotonic() + SETTLE_S
    while visit.record_path and visit.record is None and time.monotonic() < give_up_s:
        async with http.get(listen + visit.record_path) as response:
            record = await response.json()
        if response.status == 200 and record["settled"]:
            visit.record = record
        else:
            await asyncio.sleep(LOOK_S)


async def watch(visiting: "asyncio.Future[Any]", visits: list[Visit], http: aiohttp.ClientSession, admin: str,
                console: Console) -> None:
    """Wait for the visits, and show them where somebody is looking."""
    if not console.is_terminal or console.quiet:
        await visiting
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not visiting.done():
            balance = await get(http, admin + "/energy/balance")
            running = await get(http, admin + "/energy/in-flight")
            live.update(live_view(visits, balance, running["requests"]), refresh=True)
            await asyncio.wait([visiting], timeout=LOOK_S)
    await visiting


async def get(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """A JSON object. Raises FailedError."""
    async with http.get(url) as response:
        if response.status != 200:
            raise FailedError(f"GET {url}: got status {response.status}: {await response.text()}")
        answer: dict[str, Any] = await response.json()
        return answer
