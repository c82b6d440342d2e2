"""How far the sidecar's shares are from the measured Shapley value, on recordings in which every coalition was run.

The recordings go through the meter that serves production, event by event, once for each method. `step-model` learns as in production:
from the traffic among the recordings (those without coalitions) first, then from each window of coalitions, which knows no truth. Beside
it stands what it does if it is held still after the traffic, and if it never learns and has only physics.

    python bench/attribution.py DIRECTORY|FILE... [--json] [--plot FILE.svg|FILE.png]
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from perjoule.bench.accuracy_report import PLOTS, Point, plot, tables
from perjoule.bench.held_out import learn_from, machine
from perjoule.bench.judged import RULES, Judged
from perjoule.bench.recording import SUFFIX, Recording
from perjoule.bench.truth import Game


def run(argv: Sequence[str]) -> int:
    """`perjoule accuracy`; 2 if there is nothing to read."""
    parser = argparse.ArgumentParser(prog="perjoule accuracy", description="Distance of the sidecar's shares from measured Shapley values.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="DIRECTORY|FILE", help=f"recordings ({SUFFIX})")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--plot", type=Path, metavar="FILE", help=f"draw it ({' or '.join(PLOTS)}; needs perjoule[plot])")
    asked = parser.parse_args(argv)
    files = [file for path in asked.paths for file in (sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path])]
    if not files:
        parser.error(f"got no recording in {', '.join(map(str, asked.paths))}, expected files that end in {SUFFIX}")
    if asked.plot and asked.plot.suffix not in PLOTS:
        parser.error(f"--plot: got {asked.plot}, expected a file that ends in {' or '.join(PLOTS)}")
    try:
        found, points = assess(_named_apart([Recording(file) for file in files], files))
        if asked.plot:
            plot(found, points, asked.plot)
    except (ValueError, ImportError) as error:
        parser.error(str(error))
    if asked.json:
        print(json.dumps({"recordings": found}))
    else:
        console = Console()
        for table in tables(found):
            console.print(table)
    return 0


def assess(recordings: Sequence[Recording]) -> tuple[dict[str, dict[str, Any]], list[Point]]:
    """What is said of each recording, by its name, and each request of a grand coalition as a point. Raises ValueError."""
    games = {recording.name: Game(recording) for recording in recordings if recording.marks}
    found: dict[str, dict[str, Any]] = {}
    points: list[Point] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("traffic", total=len(recordings) * len(RULES) + 1)
        fitted = learn_from([recording for recording in recordings if not recording.marks])
        progress.advance(task)
        for recording in recordings:
            progress.update(task, description=recording.name)
            judged = Judged(recording, games.get(recording.name), fitted.get((machine(recording), recording.board)))
            for rule in RULES:
                judged.by(rule)
                progress.advance(task)
            judged.compare([game for name, game in games.items() if name != recording.name])
            found[recording.name] = judged.said
            points += judged.points
    return found, points


def _named_apart(recordings: Sequence[Recording], files: Sequence[Path]) -> Sequence[Recording]:
    """Recordings of one name take their folder's name, too. Raises ValueError where that does not help."""
    often = Counter(recording.name for recording in recordings)
    for recording, file in zip(recordings, files, strict=True):
        if often[recording.name] > 1:
            recording.name = f"{file.resolve().parent.name}/{recording.name}"
    names = [recording.name for recording in recordings]
    if len(set(names)) < len(names):
        raise ValueError(f"got recordings {', '.join(names)}, expected each name once")
    return recordings


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
