"""What a look at the live page costs: CPU time of the sidecar with no viewer, one and eight, in turn, within one run.

    python -m perjoule.bench.viewer_cost [--rounds N]

The traffic is that of `perjoule demo --hold`. A viewer takes every event, as a browser does.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from statistics import mean

import aiohttp
from rich.console import Console

from perjoule.bench import demo_hold
from perjoule.bench.demo_play import stage
from perjoule.bench.process_tree import cpu
from perjoule.sidecar.units import seconds

VIEWERS = (0, 1, 8)
ROUND_S = 3.0  # traffic comes in waves of half a minute: short turns meet the same of them
SETTLE_S = 0.5
WARM_S = 20.0  # there is a past to be told


async def measure(rounds: int) -> dict[str, dict[str, float]]:
    """CPU time and bytes a second, by how many look."""
    found: dict[int, list[tuple[float, int]]] = {viewers: [] for viewers in VIEWERS}
    with demo_hold.keys() as keys:
        async with stage(1, Console(quiet=True), "--keys", str(keys), opens=False) as running, aiohttp.ClientSession() as http:
            asking = asyncio.create_task(demo_hold.ask(running.listen, 1))
            await asyncio.sleep(WARM_S)
            for _ in range(rounds):
                for viewers in VIEWERS:
                    found[viewers].append(await _round(http, running.admin, running.pid, viewers))
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
    return {str(viewers): {"cpu_ms_per_s": round(1000 * mean(spent_s for spent_s, _ in took), 2),
                           "kb_per_s": round(mean(taken for _, taken in took) / 1000, 1)} for viewers, took in found.items()}


async def _round(http: aiohttp.ClientSession, admin: str, pid: int, viewers: int) -> tuple[float, int]:
    """CPU seconds and bytes in a second while so many look."""
    looking = [asyncio.create_task(_look(http, admin)) for _ in range(viewers)]
    await asyncio.sleep(SETTLE_S)  # the past has been told
    began_s, before = time.monotonic(), cpu(pid)
    await asyncio.sleep(ROUND_S)
    spent_s, took_s = seconds(cpu(pid).since(before).ns), time.monotonic() - began_s
    for look in looking:
        look.cancel()
    taken = await asyncio.gather(*looking)
    return spent_s / took_s, round(sum(taken) / (took_s + SETTLE_S))


async def _look(http: aiohttp.ClientSession, admin: str) -> int:
    taken = 0
    with suppress(asyncio.CancelledError):
        async with http.get(admin + "/energy/live") as response:
            async for part in response.content.iter_any():
                taken += len(part)
    return taken


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m perjoule.bench.viewer_cost", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="of each (default: 15); the mean counts")
    print(json.dumps(asyncio.run(measure(parser.parse_args(argv).rounds)), indent=1))


if __name__ == "__main__":
    main()
