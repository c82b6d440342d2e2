"""The soak: a million requests and 200,000 streams, a third of them left by their clients, through one sidecar, every one accounted for.

The engine is prepared and dies now and then, the clients are drawn from a seed. In the end each request has exactly one record, which
says what its client saw, the joules add up, and the sidecar holds nothing that it did not hold before.

    python bench/soak.py [--requests 1000000] [--streams 200000] [--workers N] [--seed S] [--dev] [--json FILE]
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from perjoule.bench.child import FailedError, program
from perjoule.bench.relay_machine import machine
from perjoule.bench.soak_checks import cases, checks, complaints, is_at_rest, read_ledger, tables
from perjoule.bench.soak_engine import IDLE_S, open_notes
from perjoule.bench.soak_rig import Files, Sidecar, files_for, served

SAMPLES = 250  # of a whole run, about
SAMPLE_LEAST_S, SAMPLE_MOST_S = 0.25, 5.0
SETTLE_S = 120.0  # within so long after the load everything is stored, sent, and closed
WIDTH = 150  # characters, where the output is no terminal


async def soak(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """The whole run, as the object that is written. Raises FailedError."""
    began_s, requests = time.monotonic(), args.requests + args.streams
    found: dict[str, Any] = {"machine": machine()}
    async with files_for(requests) as files:
        async with served(files, workers=args.workers, spans=args.spans, dev=args.dev) as sidecar:
            found["at_start"] = await sidecar.look(0)
            found["samples"] = await loaded(args, sidecar, files, progress)
            found["at_end"] = await settled(sidecar, found["at_start"], requests)
            found |= {"balance": await sidecar.balance(), "spans_received": await sidecar.spans()}
        found |= {"complaints": complaints(files.log.read_text(errors="replace")), "ledger_bytes": files.ledger_bytes}
        ledger = await asyncio.to_thread(read_ledger, files.ledger, requests, f"soak-{args.seed}")
        counted, wrong = cases(open_notes(files.saw)[:], open_notes(files.reached)[:], ledger)
    found |= {"records": ledger.rows, "wrong": [f"soak-{args.seed}-{number}" for number in wrong]}
    found["cases"] = [{**case._asdict(), "saw": case.saw.name.lower(), "requests": count} for case, count in sorted(counted.items())]
    found["checks"] = [check._asdict() for check in checks(found, counted, ledger)]
    return {"seconds": round(time.monotonic() - began_s, 1), **found}


async def loaded(args: argparse.Namespace, sidecar: Sidecar, files: Files, progress: Progress) -> list[dict[str, Any]]:
    """Put the whole load on it and look at it now and then; answers what was seen. Raises FailedError."""
    requests, notes = args.requests + args.streams, open_notes(files.saw)
    task = progress.add_task("", total=requests)
    samples, every_s = [], SAMPLE_LEAST_S
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(program(
            sys.executable, "-m", "perjoule.bench.soak_clients", "--port", str(sidecar.port), "--seed", str(args.seed), "--notes",
            str(files.saw), "--requests", part(0, args.requests, number, args.workers), "--streams",
            part(args.requests, args.streams, number, args.workers))) for number in range(args.workers)]
        ended = asyncio.gather(*(process.wait() for process, _ in clients))
        while not ended.done():
            samples.append(sample := await sidecar.look(requests - notes[:].count(0)))
            done, waiting = sample["requests"], sum(sink["waiting"] for sink in sample["sinks"].values())
            if done:
                every_s = min(max(SAMPLE_LEAST_S, sample["t_s"] * requests / done / SAMPLES), SAMPLE_MOST_S)
            progress.update(task, completed=done, description=f"{done / sample['t_s']:,.0f}/s, {sample['rss_bytes'] / 1e6:.1f} MB, "
                            f"{sample['open_files']} files, {sample['in_flight']} in flight, {waiting} records wait, "
                            f"{sample['joules']:,.0f} J")
            await asyncio.wait([ended], timeout=every_s)
        for (_, last_words), code in zip(clients, await ended, strict=True):
            if code:
                raise FailedError(f"the clients broke off: {last_words()}")
    return samples


def part(first: int, count: int, number: int, parts: int) -> str:
    """One part of so many numbers from `first` on, as the clients read it."""
    return f"{first + count * number // parts}-{first + count * (number + 1) // parts}"


async def settled(sidecar: Sidecar, at_start: dict[str, Any], requests: int) -> dict[str, Any]:
    """Wait until it has stored and sent everything and closed what was idle; what it holds then, or when that takes too long."""
    give_up_s = time.monotonic() + SETTLE_S
    await asyncio.sleep(IDLE_S + 1)  # the engine closes the connections that are kept for it, and the last windows close
    while not is_at_rest(now := await sidecar.look(requests), at_start) and time.monotonic() < give_up_s:
        await asyncio.sleep(0.2)
    return now


def as_json(found: dict[str, Any]) -> str:
    """With a line for each sample, case and check."""
    def lines(value: Any) -> str:
        return "[\n " + ",\n ".join(map(json.dumps, value)) + "\n]" if isinstance(value, list) and value else json.dumps(value)
    return "{" + ",\n".join(f"{json.dumps(name)}: {lines(value)}" for name, value in found.items()) + "}\n"


def run(argv: Sequence[str]) -> int:
    """`perjoule bench soak`. Exit code 0; 1 if anything is not as it must be; 2 for a wrong flag."""
    args = read_flags(argv)
    columns = TextColumn("{task.completed:,.0f}"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    try:
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            found = asyncio.run(soak(args, progress))
    except FailedError as error:
        print(f"perjoule bench soak: {error}", file=sys.stderr)
        return 1
    found = {"schema_version": 1, "command": " ".join(["perjoule", "bench", "soak", *argv]), **found}
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    for table in tables(found):
        console.print(table)
    if args.json:
        args.json.write_text(as_json(found))
    return int(any(check["kept"] is False for check in found["checks"]))


def read_flags(argv: Sequence[str]) -> argparse.Namespace:
    """What was asked for; exits with 2 for what cannot be."""
    parser = argparse.ArgumentParser("perjoule bench soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000, metavar="N", help="not streamed (default: 1000000)")
    parser.add_argument("--streams", type=int, default=200_000, metavar="N", help="streamed (default: 200000)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="of the sidecar, and as many processes of clients (default: 1)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="another number, other requests (default: 1)")
    parser.add_argument("--no-spans", dest="spans", action="store_false", help="without OpenTelemetry, where its SDK is not installed")
    parser.add_argument("--dev", action="store_true", help="the sidecar under python -X dev: slower, and it says more")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    args = parser.parse_args(argv)
    for name, least in {"requests": 1, "streams": 1, "workers": 1, "seed": 0}.items():
        if getattr(args, name) < least:
            parser.error(f"--{name}: got {getattr(args, name)}, expected at least {least}")
    return args


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
