"""Measures the truth: runs every coalition of a few requests on a real engine with the energy counter beside, and writes a recording.

A game has kinds of requests (tokens in and out, when they start), up to so many of each together. Requests of a kind are alike, hence
symmetric, so every count vector is run instead of every subset: 80 runs for two of each of four kinds, not 255. With `--through` a
running sidecar takes the same requests, and what it said of each is kept beside. `perjoule accuracy` reads what comes out.

    python bench/coalitions.py --engine http://127.0.0.1:8000 --model m --kind gen:48/320 --kind chat:300/150@0.45
        --each 2 --repeat-largest 5 --traffic mix:35 --out symmetric.json.gz
"""

import argparse
import asyncio
import random
import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.progress import Progress

from perjoule.adapters.energy import EXPECTED
from perjoule.adapters.engines.questions import recognise
from perjoule.bench.recorder import Client, RecordingError, counted, write
from perjoule.bench.recording import SUFFIX

BEFORE_S, AFTER_S = 0.45, 0.35  # of quiet before and after each coalition: three changes of the counter
WORKLOADS = {"chat": (128, 256), "rag": (6144, 64), "gen": (64, 768), "sum": (2048, 128)}  # of traffic: tokens in and out, each ± half
RATE_PER_S = 9.0

Marks = list[tuple[list[str], int, int, int]]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of request in the game; `start_s` counts from the begin of its coalition."""

    name: str
    input_tokens: int
    output_tokens: int
    start_s: float = 0.0

    @property
    def arrival(self) -> tuple[float, str, int, int]:
        """One such request."""
        return self.start_s, self.name, self.input_tokens, self.output_tokens


def kind(text: str) -> Kind:
    """`NAME:IN/OUT` or `NAME:IN/OUT@SECONDS`."""
    found = re.fullmatch(r"(\w+):(\d+)/(\d+)(?:@(\d+(?:\.\d+)?))?", text)
    if not found or not int(found[2]) or not int(found[3]):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected NAME:IN/OUT or NAME:IN/OUT@SECONDS, at least one token each")
    return Kind(found[1], int(found[2]), int(found[3]), float(found[4] or 0))


def traffic(text: str) -> tuple[float, float]:
    """`mix:SECONDS` or `mix:SECONDS@RATE`: for how long, and how many requests a second."""
    found = re.fullmatch(r"mix:(\d+(?:\.\d+)?)(?:@(\d+(?:\.\d+)?))?", text)
    if not found or not float(found[1]) or not float(found[2] or RATE_PER_S):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected mix:SECONDS or mix:SECONDS@REQUESTS_PER_SECOND")
    return float(found[1]), float(found[2] or RATE_PER_S)


def schedule(kinds: Sequence[Kind], each: int, largest: int, nearly: int, seed: int) -> list[list[Kind]]:
    """Every coalition, the largest and those that lack one of it as often as asked, shuffled so that no drift favours a size."""
    runs: list[list[Kind]] = []
    for counts in product(range(each + 1), repeat=len(kinds)):
        lacking = each * len(kinds) - sum(counts)
        members = [one for one, count in zip(kinds, counts, strict=True) for _ in range(count)]
        if members:
            runs += [members] * (largest if lacking == 0 else nearly if lacking == 1 else 1)
    random.Random(seed).shuffle(runs)
    return runs


async def play_coalitions(client: Client, runs: Sequence[Sequence[Kind]], done: Callable[[], None]) -> Marks:
    """Run them one after another with quiet around each; answers who ran when."""
    marks: Marks = []
    for members in runs:
        await asyncio.sleep(BEFORE_S)
        t0_ns = time.monotonic_ns()
        await client.send((one.arrival for one in members), coal=len(marks))
        t1_ns = time.monotonic_ns()
        await asyncio.sleep(AFTER_S)
        marks.append(([one.name for one in members], t0_ns, t1_ns, time.monotonic_ns()))
        await client.fetch_records()
        done()
    return marks


async def play_mix(client: Client, seconds: float, per_s: float, seed: int) -> Marks:
    """Four workloads that arrive at random (Poisson), each length within half of its usual one. No coalitions."""
    draw, at_s, arrivals = random.Random(seed), 0.0, []
    while (at_s := at_s + draw.expovariate(per_s)) < seconds:
        name = draw.choice(list(WORKLOADS))
        tokens_in, tokens_out = (max(1, round(usual * draw.uniform(0.5, 1.5))) for usual in WORKLOADS[name])
        arrivals.append((at_s, name, tokens_in, tokens_out))
    await client.send(arrivals)
    await client.fetch_records()
    return []


async def measure(asked: argparse.Namespace) -> list[Path]:
    """Traffic first if it was asked for, then the coalitions; answers the files. Raises RecordingError."""
    engine = await recognise(asked.engine)
    if engine is None:
        raise RecordingError(f"--engine {asked.engine}: got no answer, expected an inference server")
    about = {"engine": f"{engine.name} {engine.version or ''}".strip(), "model": engine.model or asked.model}
    connector, timeout = aiohttp.TCPConnector(limit=0, keepalive_timeout=2), aiohttp.ClientTimeout(total=None)
    files: list[Path] = []
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=1 << 20) as session:
        with Progress(console=Console(stderr=True)) as progress:

            async def record(path: Path, steps: int, play: Callable[[Client, Callable[[], None]], Awaitable[Marks]]) -> None:
                task = progress.add_task(path.name, total=steps)
                client = Client(session, asked.through or asked.engine, asked.model, asked.seed, through_sidecar=bool(asked.through))
                async with counted(asked.energy, asked.gpus, asked.poll_ms / 1000) as counter:
                    marks = await play(client, lambda: progress.advance(task))
                write(path, client, counter, marks, **about)
                progress.update(task, completed=steps)
                files.append(path)

            warm_up = Client(session, asked.engine, asked.model, asked.seed)
            for _ in range(asked.warm_up):
                await warm_up.send([one.arrival for one in asked.kind] * asked.each)
            if asked.traffic:
                path = asked.out.with_name(f"{asked.out.name.removesuffix(SUFFIX)}-traffic{SUFFIX}")
                seconds, per_s = asked.traffic
                await record(path, 1, lambda client, _: play_mix(client, seconds, per_s, asked.seed))
            runs = schedule(asked.kind, asked.each, asked.repeat_largest, asked.repeat_nearly, asked.seed)
            await record(asked.out, len(runs), lambda client, done: play_coalitions(client, runs, done))
    return files


def at_least_one(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number, at least 1")
    return int(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", required=True, metavar="URL", help="where it answers; it must serve nobody else meanwhile")
    parser.add_argument("--through", metavar="URL", help="send through the sidecar that listens here, and keep its records")
    parser.add_argument("--model", required=True)
    parser.add_argument("--kind", type=kind, action="append", required=True, metavar="NAME:IN/OUT[@SECONDS]", help="give one or more")
    parser.add_argument("--each", type=at_least_one, default=2, metavar="N", help="up to so many of each kind (default: 2)")
    parser.add_argument("--repeat-largest", type=at_least_one, default=5, metavar="N", help="runs of all together (default: 5)")
    parser.add_argument("--repeat-nearly", type=at_least_one, default=3, metavar="N", help="runs of all but one (default: 3)")
    parser.add_argument("--traffic", type=traffic, metavar="mix:SECONDS[@RATE]", help="before that, into a recording beside")
    parser.add_argument("--warm-up", type=int, default=3, metavar="N", help="runs of all together before anything is recorded (default: 3)")
    parser.add_argument("--energy", default="auto", metavar="SOURCE", help=f"{EXPECTED} (default: auto)")
    parser.add_argument("--gpus", default="all", metavar="all|UUID,…", help="the boards that serve it (default: all)")
    parser.add_argument("--poll-ms", type=at_least_one, default=3, metavar="MS", help="between looks at the counter (default: 3)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True, metavar=f"FILE{SUFFIX}")
    asked = parser.parse_args()
    if not asked.out.name.endswith(SUFFIX) or not asked.out.parent.is_dir():
        parser.error(f"--out: got {asked.out}, expected a file that ends in {SUFFIX}, in a folder that is there")
    if len({one.name for one in asked.kind}) < len(asked.kind):
        parser.error(f"--kind: got {', '.join(one.name for one in asked.kind)}, expected each name once")
    try:
        files = asyncio.run(measure(asked))
    except RecordingError as error:
        print(f"coalitions: {error}", file=sys.stderr)
        return 1
    print(*files, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
