"""`perjoule bench ordeal`: minutes of mixed load with kills, a collector's outage and a flood of tenants; then one table.

    perjoule bench ordeal [--minutes 10] [--seed 1] [--json]
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from perjoule.adapters.ledger.database import open_database
from perjoule.adapters.ledger.queries import Queries
from perjoule.bench.child import FailedError
from perjoule.bench.columns import Columns
from perjoule.bench.ordeal.play import KILLS, Ordeal
from perjoule.bench.ordeal.reckoning import reckon

LEAST_MINUTES = 0.5
MB = 1e6
WIDTH = 130  # characters, where the output is no terminal


def run(argv: Sequence[str]) -> int:
    """The command; 0 if everything is there or known to be lost, else 1; 2 for a wrong flag."""
    parser = argparse.ArgumentParser("perjoule bench ordeal", description=(__doc__ or "").partition(": ")[2].split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="how long (default: 10)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another number, other requests and moments (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    asked = parser.parse_args(argv)
    if not asked.minutes >= LEAST_MINUTES:
        parser.error(f"--minutes: got {asked.minutes:g}, expected at least {LEAST_MINUTES:g}")
    console = Console(stderr=True, quiet=asked.json)
    try:
        found = asyncio.run(_play(asked, console))
    except FailedError as error:
        print(f"perjoule bench ordeal: {error}", file=sys.stderr)
        return 1
    if asked.json:
        print(json.dumps(found))
    else:
        Console(width=None if sys.stdout.isatty() else WIDTH).print(shown(found))
    return 0 if all(check["holds"] for check in found["checks"]) else 1


async def _play(asked: argparse.Namespace, console: Console) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="perjoule-ordeal-") as folder, Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("mixed load", total=asked.minutes * 60)

        async def advance() -> None:
            while True:
                await asyncio.sleep(1.0)
                progress.advance(task, 1.0)

        ticking = asyncio.create_task(advance())
        try:
            ordeal = Ordeal(asked.minutes * 60, asked.seed, Path(folder), lambda text: progress.update(task, description=text))
            played = await ordeal.play()
        finally:
            ticking.cancel()
        database = open_database(ordeal.ledger, create=False)
        try:
            return {"minutes": asked.minutes, "seed": asked.seed, **await asyncio.to_thread(reckon, played, Queries(database))}
        finally:
            database.close()


def shown(found: dict[str, Any]) -> RenderableType:
    """The table, a line for each run, and what must hold."""
    rows = found["runs"]
    total = {name: sum(row[name] for row in rows) for name in rows[0] if name not in ("ended", "rss_bytes")}
    rows = [*rows, total | {"ended": "all", "rss_bytes": found["peak_rss_bytes"]}]
    table = Columns({
        "run": [*map(str, range(1, len(rows))), ""], "ended": [row["ended"] for row in rows],
        "s>": [f"{row['seconds']:.0f}" for row in rows],
        "in ledger>": [f"{row['ledger']:,}" for row in rows], "J>": [f"{row['ledger_joules']:,.3f}" for row in rows],
        "holes>": [f"{row['holes']:,}" for row in rows],
        "in spans>": [f"{row['spans']:,}" for row in rows], " J>": [f"{row['spans_joules']:,.3f}" for row in rows],
        "cut by the kill>": [f"{row['spans_cut']:,}" for row in rows],
        "in metrics>": [f"{row['metrics']:,}" for row in rows], "  J>": [f"{row['metrics_joules']:,.3f}" for row in rows],
        "peak MB>": [f"{row['rss_bytes'] / MB:.1f}" for row in rows]}, spare=("s>", "holes>"))
    went = ", ".join(f"{count:,} {how}" for how, count in sorted(found["went"].items()))
    checks = [Text.assemble(("kept    " if check["holds"] else "BROKEN  ", "green" if check["holds"] else "bold red"), check["text"], ": ",
                            (check["told"], "dim")) for check in found["checks"]]
    happened = "; ".join(f"{at_s:.0f} s {text}" for at_s, text in found["happened"])
    said = f"{found['minutes']:g} minutes, {len(KILLS)} kills. Requests: {went}. All joules are simulated."
    return Group(Text(said), Text(happened, "dim"), table, *checks)


