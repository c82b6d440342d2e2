"""`perjoule bench diffusion`: what an image costs by the records and by the counter itself, with one, two and four requests in flight.

A `perjoule serve` is started in front of the server; beside it the same counter is read from here, as one who measures without a sidecar
would. Two such measurements are ML.ENERGY's: the energy between the begin and the end of each iteration, which is a request while one
is in flight, and the energy of the whole run; both by the images. The records must add up to the second, within one step of the counter.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from perjoule.adapters.energy import EXPECTED, open_counter
from perjoule.bench.child import FailedError, child
from perjoule.sidecar.ports import EnergyCounter, UnavailableError
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S, joules, seconds

PATH = "/v1/images/generations"
PROMPT = "an astronaut who rides a horse on the moon, in the style of a woodcut"
REST_S = 0.6  # until the counter's last change has been seen, and idle begins
SETTLED_S = 30.0
USUAL_PERIOD_NS = 100 * NS_PER_MS
STANDS_S = 1.0  # a counter that shows nothing new for so long
COLUMNS = ("in flight", "images", "s each", "records", "least", "most", "run", "iteration", "sum - counter", "step")


@dataclass(slots=True)
class Level:
    """One run with so many in flight. Joules of images are lists in the order in which they ended; `window_j` is what the counter
    advanced from the first request to the last answer, `quantum_j` what it shows at once."""

    in_flight: int
    images: int = 0
    seconds: float = 0.0
    window_j: float = 0.0
    quantum_j: float = 0.0
    record_j: list[float] = field(default_factory=list)
    uncertainty_j: list[float] = field(default_factory=list)
    iteration_j: list[float] = field(default_factory=list)
    conserved: bool = True

    def as_json(self) -> dict[str, Any]:
        """All of it, and what follows."""
        return asdict(self) | {
            "records_j": sum(self.record_j), "difference_j": sum(self.record_j) - self.window_j,
            "closes": abs(sum(self.record_j) - self.window_j) <= self.quantum_j and self.conserved,
            "joules_per_image": {"records": sum(self.record_j) / self.images, "window": self.window_j / self.images,
                                 "iterations": sum(self.iteration_j) / self.images if self.iteration_j else None}}


def drawn_uj(counter: EnergyCounter) -> int:
    """What all boards of the counter have drawn so far, as they show it now."""
    return sum(reading.energy_uj for reading in counter.read())


async def next_uj(counter: EnergyCounter) -> int:
    """The next value that the counter shows: it is of this moment."""
    shown_uj, until_ns = await asyncio.to_thread(drawn_uj, counter), time.monotonic_ns() + round(STANDS_S * NS_PER_S)
    while (now_uj := await asyncio.to_thread(drawn_uj, counter)) == shown_uj and time.monotonic_ns() < until_ns:
        await asyncio.sleep(0.002)
    return now_uj


async def ask(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> str:
    """One request; where its record is. Raises FailedError."""
    async with session.post(url + PATH, json=body) as answer:
        got = await answer.read()
        if answer.status != 200:
            raise FailedError(f"{url}{PATH} answered {answer.status}, expected 200: {got[:300]!r}")
        return answer.headers["X-Energy-Record"]


async def run_level(session: aiohttp.ClientSession, served: dict[str, Any], counter: EnergyCounter, flags: argparse.Namespace,
                    in_flight: int) -> Level:
    """So many requests in a closed loop, and what they cost by both."""
    body = {"prompt": PROMPT, "n": flags.n, "size": flags.size, "num_inference_steps": flags.steps, "response_format": "b64_json"}
    if flags.model:
        body["model"] = flags.model
    level, places, left = Level(in_flight), [], flags.requests

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            before_uj = await asyncio.to_thread(drawn_uj, counter) if in_flight == 1 else 0
            places.append(await ask(session, served["listen"], body))
            if in_flight == 1:
                level.iteration_j.append(joules(await asyncio.to_thread(drawn_uj, counter) - before_uj))

    await asyncio.sleep(REST_S)
    began_uj = await next_uj(counter)
    began_ns = time.monotonic_ns()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(client())
    ended_ns = time.monotonic_ns()
    level.window_j = joules(await next_uj(counter) - began_uj)
    level.seconds, level.images = seconds(ended_ns - began_ns), flags.requests * flags.n
    level.quantum_j = level.window_j / level.seconds * seconds(counter.period_ns or USUAL_PERIOD_NS)
    await asyncio.sleep(REST_S)
    for place in places:
        record = await settled(session, served["listen"] + place)
        level.record_j.append(record["energy_joules"])
        level.uncertainty_j.append(joules(record["uncertainty_uj"] or 0))
    async with session.get(served["admin"] + "/energy/balance") as answer:
        level.conserved = (await answer.json())["conserved"]
    return level


async def settled(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """A record, once it does not change any more. Raises FailedError."""
    async with asyncio.timeout(SETTLED_S):
        while True:
            async with session.get(url) as answer:
                record: dict[str, Any] = await answer.json()
            if answer.status == 200 and record["settled"]:
                if record["energy_joules"] is None:
                    raise FailedError(f"{url} has no joules: its status is {record['status']}, expected one with a source of energy")
                return record
            await asyncio.sleep(0.05)


async def measure(flags: argparse.Namespace, counter: EnergyCounter) -> dict[str, Any]:
    """All levels, after a request to warm up. Raises FailedError."""
    levels = []
    with tempfile.TemporaryDirectory() as folder, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("warming up", total=len(flags.in_flight))
        serve = ["serve", "--upstream", flags.engine, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--energy", flags.energy,
                 "--ledger", str(Path(folder) / "ledger.sqlite3"), "--calibrations", "off"]
        timeout = aiohttp.ClientTimeout(total=None)
        async with child("perjoule.main", *serve) as served, aiohttp.ClientSession(timeout=timeout) as session:
            await run_level(session, served, counter, argparse.Namespace(**vars(flags) | {"requests": 1}), 1)
            for in_flight in flags.in_flight:
                progress.update(task, description=f"{in_flight} in flight")
                levels.append(await run_level(session, served, counter, flags, in_flight))
                progress.advance(task)
    return {"schema_version": 1, "command": " ".join(["perjoule bench diffusion", *sys.argv[3:]]), "engine": flags.engine,
            "source": counter.name, "status": counter.status, "boards": [device.name for device in counter.devices], "size": flags.size,
            "steps": flags.steps, "images_per_request": flags.n, "levels": [level.as_json() for level in levels]}


def show(result: dict[str, Any], console: Console) -> None:
    """The table, for people."""
    table = Table(title=f"Joules per image ({result['status']}): {result['size']}, {result['steps']} steps, "
                        f"{result['images_per_request']} in a request")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for level in result["levels"]:
        each = [joule / result["images_per_request"] for joule in level["record_j"]]
        per_image = level["joules_per_image"]
        iterations = "" if per_image["iterations"] is None else f"{per_image['iterations']:,.1f}"
        table.add_row(str(level["in_flight"]), str(level["images"]), f"{level['seconds'] / level['images']:.2f}",
                      *(f"{joule:,.1f}" for joule in (statistics.fmean(each), min(each), max(each), per_image["window"])), iterations,
                      f"{level['difference_j']:+,.1f}", f"{level['quantum_j']:,.1f}")
    console.print(table)
    console.print("records: what the sidecar says; run: the counter's joules from the first request to the last answer, by the images;\n"
                  "iteration: those from the begin to the end of each request; step: what the counter shows at once.")


def run(argv: Sequence[str]) -> int:
    """The command. Exit code 0: the records add up to the counter; 1: they do not, or a request failed; 2: a wrong flag."""
    parser = argparse.ArgumentParser("perjoule bench diffusion", description="What an image costs, by the records and by the counter.")
    parser.add_argument("--engine", required=True, metavar="URL", help="a server with OpenAI's POST /v1/images/generations")
    parser.add_argument("--energy", default="auto", metavar="SOURCE", help=f"{EXPECTED} (default: auto)")
    parser.add_argument("--in-flight", default="1,2,4", metavar="N,…", help="requests in flight, one run for each (default: 1,2,4)")
    parser.add_argument("--requests", type=int, default=8, help="in each run (default: 8)")
    parser.add_argument("--n", type=int, default=1, help="images of a request (default: 1)")
    parser.add_argument("--size", default="1024x1024", help="of an image (default: 1024x1024)")
    parser.add_argument("--steps", type=int, default=28, help="of an image (default: 28)")
    parser.add_argument("--model", default="", help="the model's name, if the server wants one")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the result, as JSON")
    flags = parser.parse_args(argv)
    try:
        flags.in_flight = [int(number) for number in flags.in_flight.split(",")]
        opened = open_counter(flags.energy, "all", lambda: 0)
    except (ValueError, UnavailableError) as error:
        parser.error(str(error))
    if min(flags.in_flight) < 1 or min(flags.requests, flags.n) < 1:
        parser.error(f"got {flags.in_flight} in flight, {flags.requests} requests of {flags.n} images, expected 1 or more of each")
    if opened.counter is None:
        parser.error("no source of energy here: " + "; ".join(f"{source}: {reason}" for source, reason in opened.tried))
    try:
        result = asyncio.run(measure(flags, opened.counter))
    except (FailedError, OSError, aiohttp.ClientError, ExceptionGroup) as error:
        print(f"perjoule bench diffusion: {error.exceptions[0] if isinstance(error, ExceptionGroup) else error}", file=sys.stderr)
        return 1
    finally:
        opened.counter.close()
    show(result, Console(stderr=True))
    text = json.dumps(result, indent=1)
    if flags.out:
        flags.out.write_text(text + "\n")
    print(text)
    return 0 if all(level["closes"] for level in result["levels"]) else 1
