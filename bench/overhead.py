"""What the sidecar takes away from a real engine: tokens a second and time to first token with it and without, in interleaved pairs.

The same seeded requests run in closed loop, straight to the engine and through a `perjoule serve` that is started for the run, in
alternating order, since engines and boards drift. Counted are the tokens that came while every place in flight was taken. What
differs is stated with the 95 % interval of the mean over pairs (Student's t on the logarithms of the ratios).

    python -m perjoule.bench.overhead --engine http://127.0.0.1:8000 --model m --in-flight 256 --pairs 5 --out overhead.json
"""

import argparse
import asyncio
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from perjoule.bench.child import child
from perjoule.bench.closed_loop import Run, drive, schedule, summary
from perjoule.bench.process_tree import cpu
from perjoule.sidecar.units import seconds

# The 97.5th percentile of Student's t for 1, 2, … degrees of freedom.
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The geometric mean of paired ratios and its 95 % interval. Of two pairs at least, of sixteen at most."""
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.fmean(logs)
    half = T_975[len(logs) - 2] * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def kept(run: Run) -> dict[str, Any]:
    """What is kept of a run: beside its summary, what came while all places were taken. Raises SystemExit if requests failed."""
    if run.failed or not run.frames:
        raise SystemExit(f"{run.name}: {run.failed} of {len(run.first_token_s)} requests failed, expected none; is the model's name right?")
    full_s = seconds(run.full_until_ns - run.full_from_ns)
    frames = sum(run.full_from_ns < t_ns <= run.full_until_ns for t_ns in run.frames)
    return summary(run) | {"full_seconds": full_s, "tokens_per_s_full": frames / full_s}


async def alone(args: argparse.Namespace, bodies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A run straight to the engine."""
    return kept(await drive(args.engine, args.model, bodies, Run("engine", args.in_flight)))


async def with_sidecar(args: argparse.Namespace, bodies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A run through the sidecar, and the cores that it used."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["serve", "--upstream", args.engine, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--energy", args.energy,
                 "--ledger", str(Path(folder) / "ledger.sqlite3"), "--calibrations", "off", "--workers", str(args.workers)]
        async with child("perjoule.main", *flags) as served:
            before = cpu(served["pid"])
            run = await drive(served["listen"], args.model, bodies, Run("sidecar", args.in_flight))
            used_ns = cpu(served["pid"]).since(before).ns
    return kept(run) | {"cores": used_ns / (run.ended_ns - run.began_ns), "records": len(run.records)}


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All pairs."""
    bodies = schedule(args.in_flight, args.rounds, args.seed)
    pairs = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("warming up", total=2 * args.pairs)
        await drive(args.engine, args.model, bodies[:args.in_flight * 2], Run("warm-up", args.in_flight))
        for place in range(args.pairs):
            pair: dict[str, Any] = {}
            for name in ("engine", "sidecar") if place % 2 == 0 else ("sidecar", "engine"):
                progress.update(task, description=f"pair {place + 1}, {name}")
                pair[name] = await (with_sidecar if name == "sidecar" else alone)(args, bodies)
                progress.advance(task)
            pairs.append(pair)
    ratios = {name: [pair["sidecar"][name] / pair["engine"][name] for pair in pairs]
              for name in ("tokens_per_s_full", "tokens_per_s", "first_token_p50_s", "first_token_p99_s")}
    return {"schema_version": 1, "command": " ".join(["python", "-m", "perjoule.bench.overhead", *sys.argv[1:]]),
            "in_flight": args.in_flight, "requests": len(bodies), "pairs": pairs,
            "ratios": {name: dict(zip(("mean", "low", "high"), interval(each), strict=True)) for name, each in ratios.items()}}


def show(result: dict[str, Any]) -> None:
    """The table, for people."""
    table = Table(title=f"{result['in_flight']} in flight, {result['requests']} requests a run, {len(result['pairs'])} pairs")
    for column in ("", "engine alone", "with the sidecar", "ratio (95 %)"):
        table.add_column(column, justify="right")
    for name, text in (("tokens_per_s_full", "tokens/s, batch full"), ("tokens_per_s", "tokens/s, whole run"),
                       ("first_token_p50_s", "TTFT p50, s"), ("first_token_p99_s", "TTFT p99, s")):
        engine, sidecar = ([pair[which][name] for pair in result["pairs"]] for which in ("engine", "sidecar"))
        ratio = result["ratios"][name]
        table.add_row(text, f"{statistics.median(engine):,.4g}", f"{statistics.median(sidecar):,.4g}",
                      f"{ratio['mean']:.4f} ({ratio['low']:.4f} to {ratio['high']:.4f})")
    table.add_row("cores used", "", f"{statistics.median(pair['sidecar']['cores'] for pair in result['pairs']):.3f}", "")
    Console(stderr=True).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("engine", "model"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=5, choices=range(2, len(T_975) + 2), metavar=f"2…{len(T_975) + 1}")
    parser.add_argument("--rounds", type=int, default=4, choices=range(2, 1001), metavar="2…", help="requests for each place in flight")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--energy", default="nvml")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result = asyncio.run(measure(args))
    show(result)
    text = json.dumps(result, indent=1)
    if args.out:
        args.out.write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
