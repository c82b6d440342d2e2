"""Holds the sidecar against an independent reading of the GPU's counter, and against the engine alone, at fixed requests in flight.

For each concurrency the same seeded requests run in pairs: straight to the engine, and through a `perjoule serve` that is started
for the run and stopped after it. In both, another process reads NVML; through the sidecar, what its account grew by (requests +
idle + unattributed) is compared with that reading over the same time, the records are fetched and summed, and tokens a second are
compared with the engine alone.

    python -m perjoule.bench.in_flight --engine http://127.0.0.1:8000 --model m --concurrency 1,32,128 --out result.json
"""

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.progress import Progress

from perjoule.bench.child import child
from perjoule.bench.closed_loop import Run, drive, schedule, summary
from perjoule.sidecar.units import NS_PER_S, UJ_PER_MJ, joules

SETTLE_S = 1.5  # between the last answer and looking at the account: the last window closes within a quarter of a second


def independent_counter(pipe: Connection) -> None:
    """Another process's view of the same counter: every change of every GPU's total energy, as (t_before, t_after, sum in uJ)."""
    import pynvml

    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    rows: list[tuple[int, int, int]] = []
    while not pipe.poll(0.005):
        before = time.monotonic_ns()
        total_uj = sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles) * UJ_PER_MJ
        if not rows or rows[-1][2] != total_uj:
            rows.append((before, time.monotonic_ns(), total_uj))
    pipe.send(rows)


def steady_joules_per_token(run: Run, rows: Sequence[tuple[int, int, int]]) -> float | None:
    """ML.ENERGY's number: what the counter advanced while the batch was full, over the output tokens of that time."""
    changes = [row for row in rows if run.full_from_ns <= row[0] <= run.full_until_ns]
    if len(changes) < 2:
        return None
    tokens = sum(changes[0][0] < t_ns <= changes[-1][0] for t_ns in run.frames) * run.output_tokens / len(run.frames)
    return joules(changes[-1][2] - changes[0][2]) / tokens


def drawn_between(rows: Sequence[tuple[int, int, int]], t0_ns: int, t1_ns: int) -> tuple[int, int]:
    """What the counter advanced between two moments, and its largest single step (the quantum), in microjoules."""
    def shown_at(t_ns: int) -> int:
        return max((row for row in rows if row[1] <= t_ns), default=rows[0])[2]

    steps = [b[2] - a[2] for a, b in pairwise(rows) if t0_ns <= b[1] <= t1_ns + NS_PER_S]
    return shown_at(t1_ns) - shown_at(t0_ns), max(steps, default=0)


async def fetch(url: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.json()


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All runs, as the result that is written."""
    runs = []
    levels = [int(level) for level in args.concurrency.split(",")]
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("measuring", total=len(levels) * args.repeats * 2)
        for level in levels:
            bodies = schedule(level, args.rounds if level > 1 else args.rounds * 2, args.seed)
            await drive(args.engine, args.model, bodies[:level], Run("warm-up", level))
            for repeat in range(args.repeats):
                pair: dict[str, Any] = {"in_flight": level, "repeat": repeat, "requests": len(bodies)}
                for name in ("engine", "sidecar") if repeat % 2 == 0 else ("sidecar", "engine"):  # neither is always the warmer
                    progress.update(task, description=f"{level} in flight, {name}")
                    pair[name] = await (through_the_sidecar if name == "sidecar" else alone)(args, bodies, level)
                    progress.advance(task)
                pair["tokens_per_s_ratio"] = pair["sidecar"]["tokens_per_s"] / pair["engine"]["tokens_per_s"]
                runs.append(pair)
    return {"schema_version": 1, "command": " ".join(["python", "-m", "perjoule.bench.in_flight", *sys.argv[1:]]), "runs": runs}


@asynccontextmanager
async def another_reader() -> AsyncIterator[Callable[[], Awaitable[list[tuple[int, int, int]]]]]:
    """The independent process while the block runs; call what is yielded to end it and have its rows."""
    ours, theirs = multiprocessing.Pipe()
    reader = multiprocessing.get_context("spawn").Process(target=independent_counter, args=(theirs,))
    reader.start()

    async def rows() -> list[tuple[int, int, int]]:
        await asyncio.sleep(0.3)
        ours.send("enough")
        read: list[tuple[int, int, int]] = await asyncio.to_thread(ours.recv)
        return read

    try:
        yield rows
    finally:
        reader.join()


async def alone(args: argparse.Namespace, bodies: Sequence[dict[str, Any]], level: int) -> dict[str, Any]:
    """A run straight to the engine, no sidecar anywhere; the other reader reads as well, so that both runs bear it."""
    async with another_reader() as rows:
        await asyncio.sleep(SETTLE_S)
        run = await drive(args.engine, args.model, bodies, Run("engine", level))
        return summary(run) | {"steady_joules_per_output_token": steady_joules_per_token(run, await rows())}


async def through_the_sidecar(args: argparse.Namespace, bodies: Sequence[dict[str, Any]], level: int) -> dict[str, Any]:
    """A run through the sidecar, with its account held against the other process's reading."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ("serve", "--upstream", args.engine, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--energy", "nvml",
                 "--ledger", str(Path(folder) / "ledger.sqlite3"), "--calibrations", "off", "--max-num-seqs", str(level))
        async with child("perjoule.main", *flags) as served, another_reader() as rows:
            balance, url = f"{served['admin']}/energy/balance", served["listen"]
            await asyncio.sleep(SETTLE_S)
            before, t0_ns = await fetch(balance), time.monotonic_ns()
            run = await drive(url, args.model, bodies, Run("sidecar", level))
            await asyncio.sleep(SETTLE_S)
            after, t1_ns = await fetch(balance), time.monotonic_ns()
            read = await rows()
            counter_uj, quantum_uj = drawn_between(read, t0_ns, t1_ns)
            records = [await fetch(url + path) for path in run.records]
    account = {key: after[key] - before[key] for key in ("measured_uj", "requests_uj", "idle_uj", "unattributed_uj")}
    sum_uj = sum(record["energy_uj"] for record in records)
    steady = [record for record in records if record["steady_uj"]]
    return summary(run) | {
        **account, "records": len(records), "records_uj": sum_uj,
        "conserved": account["measured_uj"] == sum_uj + account["idle_uj"] + account["unattributed_uj"],
        "independent_counter_uj": counter_uj, "counter_quantum_uj": quantum_uj,
        "within_one_quantum": abs(counter_uj - account["measured_uj"]) <= quantum_uj,
        "joules_per_output_token": joules(sum_uj) / run.output_tokens,
        "steady_joules_per_output_token": steady_joules_per_token(run, read),
        "tokens_match": sum(record["output_tokens"] for record in records) == run.output_tokens,
        "steady_share": sum(record["steady_uj"] for record in steady) / sum_uj,
        "statuses": sorted({record["status"] for record in records}),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("engine", "model"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--concurrency", default="1,32,128")
    parser.add_argument("--rounds", type=int, default=5, help="requests for each place in flight")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    text = json.dumps(asyncio.run(measure(args)), indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
