"""Estimates beside what was measured: each recording told from its lengths and times alone, calibrated on the others, and by physics.

    python -m perjoule.bench.estimates.validation RECORDING… [--closed NAME=N …] [--singly] [--model-shape NAME] [--json]
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.batching import Limits
from perjoule.bench.estimates.boards import Boards, boards_of
from perjoule.bench.estimates.bounds import idealized_j, limits_of, tdp_j
from perjoule.bench.estimates.costs import Costs, by_calibration, by_physics
from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.estimates.estimate import estimated
from perjoule.bench.estimates.shapes import ModelShape, shape_of
from perjoule.bench.held_out import learn_from
from perjoule.bench.recording import Recording
from perjoule.sidecar.units import NS_PER_S, UJ_PER_J, seconds

USAGE_ERROR = 2


def asked_of(recording: Recording) -> tuple[list[Asked], float, float]:
    """What an estimate may know of a recording, lengths and when they were sent; then what it may not: joules and seconds."""
    requests = sorted(recording.requests, key=lambda request: request["t0"])
    begin_ns, end_ns = requests[0]["t0"], max(request["end"] for request in requests)
    asked = [Asked(request["in"], sum(request["n"]), seconds(request["t0"] - begin_ns)) for request in requests]
    return asked, recording.drawn_uj(begin_ns, end_ns) / UJ_PER_J, (end_ns - begin_ns) / NS_PER_S


def compared(recording: Recording, others: Sequence[Recording], shape: ModelShape, boards: Boards,
             concurrency: int | None = None) -> list[dict[str, Any]]:
    """A row for each calibration that the others let be fitted, taught in their order, and one for physics."""
    asked, measured_j, measured_s = asked_of(recording)
    limits = limits_of(shape, boards, Limits(concurrency=concurrency))
    ways: dict[str, Costs] = {}
    for fitted in learn_from(others).values():
        if fitted.calibration.state == "fitted":
            ways[" ".join(fitted.names)] = by_calibration(fitted.calibration, fitted.calibration.versions[-1], boards, shape)
    rows = []
    for taught, costs in (ways | {"": by_physics(shape, boards)}).items():
        found = estimated(asked, costs, limits, shape)
        low, high = found.interval_j
        rows.append({"recording": recording.name, "way": found.method, "taught": taught, "requests": len(asked),
                     "measured_j": measured_j, "estimated_j": found.energy_j, "error": found.energy_j / measured_j - 1,
                     "low_j": low, "high_j": high, "inside": low <= measured_j <= high,
                     "measured_s": measured_s, "estimated_s": found.duration_s, "batch": found.batch,
                     "idealized": idealized_j(asked, shape, boards) / measured_j, "tdp_time": tdp_j(measured_s, boards) / measured_j})
    return rows


def main(argv: Sequence[str]) -> int:
    """The command. Exit code 2 for what is no recording, or no flag."""
    parser = argparse.ArgumentParser("perjoule.bench.estimates.validation", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="+", type=Path, metavar="RECORDING")
    parser.add_argument("--closed", nargs="+", default=[], metavar="NAME=N", help="recordings of a closed loop, and how many in flight")
    parser.add_argument("--singly", action="store_true", help="calibrate on each other recording by itself, not on all of them in turn")
    parser.add_argument("--model-shape", default="llama-3.1-8b", metavar="NAME")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    try:
        closed = {name: int(count) for name, _, count in (each.partition("=") for each in args.closed)}
        recordings = [recording for recording in map(Recording, args.recordings) if recording.requests]
        shape, rows = shape_of(args.model_shape), []
        for recording in recordings:
            others = [other for other in recordings if other is not recording]
            for taught in [[other] for other in others] if args.singly else [others]:
                found = compared(recording, taught, shape, boards_of(recording.gpu), closed.get(recording.name))
                rows += [row for row in found if row not in rows]
    except (EstimateError, ValueError) as error:
        print(f"perjoule.bench.estimates.validation: {error}", file=sys.stderr)
        return USAGE_ERROR
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        console = Console(width=None if sys.stdout.isatty() else 170, highlight=False)
        console.print(_table(rows))
        for way in sorted({row["way"] for row in rows}):
            errors = [row["error"] for row in rows if row["way"] == way]
            console.print(f"{way}: root mean square of {len(errors)} errors {math.sqrt(fmean(error**2 for error in errors)):.1%}")
    return 0


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("recording", "estimated by", "taught by", "measured J", "estimated J", "error", "95 %", "", "measured s", "estimated s",
                   "idealized", "TDP × time"):
        table.add_column(column, justify="left" if column.endswith(("recording", " by")) else "right")
    for row in rows:
        table.add_row(row["recording"], row["way"], row["taught"], f"{row['measured_j']:,.0f}", f"{row['estimated_j']:,.0f}",
                      f"{row['error']:+.1%}", f"{row['low_j']:,.0f} … {row['high_j']:,.0f}", "inside" if row["inside"] else "outside",
                      f"{row['measured_s']:.1f}", f"{row['estimated_s']:.1f}", f"{row['idealized']:.2f}", f"{row['tdp_time']:.2f}")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
