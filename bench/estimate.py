"""What would it cost? The expected joules of a workload before it is run, from a calibration, from results, or from physics alone.

    python bench/estimate.py WORKLOAD [filters] [--concurrency N | --rate R] [--json FILE|-] [--plot FILE]
        --calibration FILE|ID                 joules as this machine has shown them
        --results DIR… [--regression]         runs of replay: between their concurrencies, or to another model
        --model-shape NAME --gpu NAME         nothing but datasheets
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from perjoule.bench.estimates.asked import Asked, asked_of, paced
from perjoule.bench.estimates.basis import made_of
from perjoule.bench.estimates.bounds import idealized_j, tdp_j
from perjoule.bench.estimates.by_length import by_bins, offline_total_j
from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.estimates.flags import read_flags
from perjoule.bench.estimates.plot import plot
from perjoule.bench.estimates.report import SCHEMA_VERSION, as_json, tables
from perjoule.bench.workloads.flags import filtered, said, window_of
from perjoule.bench.workloads.open import workload_of
from perjoule.bench.workloads.workload import Workload, WorkloadError

USAGE_ERROR = 2
WIDTH = 150  # characters, where the output is no terminal


def run(argv: Sequence[str]) -> int:
    """`perjoule estimate`. Exit code 0; 2 for a wrong flag, or where something is missing that an estimate needs."""
    args = read_flags(argv, __doc__)
    try:
        workload = filtered(workload_of(args.workload, seed=args.seed, window=window_of(args)), args)
        asked, notes = asked_of(workload, output_tokens=args.output_tokens, prefix_cache=args.prefix_cache)
        if args.rate:
            asked = paced(asked, args.rate, args.seed)
        elif not args.concurrency and all(one.at_s is None for one in asked):
            raise EstimateError(f"{workload.name} has no times, expected --concurrency N or --rate R")
        told = _told(args, workload, asked, notes)
        if args.plot:
            plot(told, args.plot)
    except (EstimateError, WorkloadError, OSError) as error:
        print(f"perjoule estimate: {error}", file=sys.stderr)
        return USAGE_ERROR
    if args.json != "-":
        console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
        for table in tables(told):
            console.print(table, "")
        for text in (*told["workload"]["notes"], *told["warnings"]):
            console.print(f"note: {text}", markup=False)
    if args.json:
        text = json.dumps(told, indent=1) + "\n"
        sys.stdout.write(text) if args.json == "-" else Path(args.json).write_text(text)
    return 0


def _told(args: argparse.Namespace, workload: Workload, asked: Sequence[Asked], notes: Sequence[str]) -> dict[str, Any]:
    made = made_of(args, asked)
    found, warnings = made.estimate, [*made.estimate.warnings, *made.warnings]
    idealized = idealized_j(asked, made.shape, made.boards) if made.shape and made.boards else None
    tdp = tdp_j(found.duration_s, made.boards) if made.boards else None
    if idealized is None:
        warnings.append("no idealized bound and no TDP × time: the model's shape or the GPU is not known (--model-shape, --gpu)")
    elif idealized > found.energy_j:
        warnings.append("the idealized bound is above the estimate: prompts are so long that attention, which grows with their square, "
                        "outweighs what was measured of shorter ones")
    if tdp is not None and found.energy_j > tdp * 1.0001:
        warnings.append("the estimate is above TDP × time: the power limit or the GPU is another one than that of the measurement")
    bins = by_bins(found, made.costs, made.limits, made.shape, made.boards)
    mode = "closed" if args.concurrency else "open" if args.rate else "trace"
    each = {"input_tokens": [one.prompt for one in asked], "output_tokens": [one.output for one in asked], "energy_j": found.requests_j}
    return {
        "schema_version": SCHEMA_VERSION, "kind": "estimate",
        "workload": {"name": workload.name, "source": args.workload, "sha256": workload.sha256, "read": workload.read,
                     "kept": len(workload.turns), "dropped": dict(workload.dropped), "filters": said(args),
                     "notes": [*workload.notes, *notes]},
        "load": {"mode": mode, "concurrency": args.concurrency, "request_rate": args.rate, "seed": args.seed,
                 "max_num_seqs": args.max_num_seqs, "max_num_batched_tokens": args.max_num_batched_tokens},
        "basis": made.told,
        **({"each": each} if args.each else {}),
        **as_json(found, idealized=idealized, tdp=tdp, bins=bins, offline=offline_total_j(bins), warnings=warnings),
    }


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
