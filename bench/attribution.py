"""How far the sidecar's shares are from the measured Shapley value, on recordings in which every coalition was run.

The recordings go through the meter that serves production, event by event. Where each request is a player (or identical requests
make it symmetric), the distance is over requests; where whole classes were the players, over classes, which is another game.

    python bench/attribution.py DIRECTORY|FILE... [--json]
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from perjoule.bench.recording import Mark, Recording, play
from perjoule.bench.shapley import Counts, normalized_l1, shapley
from perjoule.sidecar.record import EnergyRecord
from perjoule.sidecar.units import NS_PER_S, joules

METHODS = ("token-share",)
BEFORE_NS = NS_PER_S // 4  # quiet time before a coalition that its energy is taken from, so that no window straddles its start
QUIET_NS = NS_PER_S // 10  # after the last answer, until the counter shows nothing but idle
NEIGHBOURS = 5  # quiet gaps on either side of a coalition that its idle power is taken from: it drifts with temperature


def run(argv: Sequence[str]) -> int:
    """`perjoule accuracy`; 2 if there is nothing to read."""
    parser = argparse.ArgumentParser(prog="perjoule accuracy", description="Distance of the sidecar's shares from measured Shapley values.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="DIRECTORY|FILE", help="recordings (.json.gz)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    asked = parser.parse_args(argv)
    files = [file for path in asked.paths for file in (sorted(path.glob("*.json.gz")) if path.is_dir() else [path])]
    if not files:
        parser.error(f"got no recording in {', '.join(map(str, asked.paths))}, expected files that end in .json.gz")
    try:
        found = {recording.name: assess(recording) for recording in map(Recording, files)}
    except ValueError as error:
        parser.error(str(error))
    if asked.json:
        print(json.dumps({"recordings": found}))
    else:
        Console().print(_table(found))
    return 0


def assess(recording: Recording) -> dict[str, Any]:
    """What is said of one recording; `players` is what the game is over, None where there are no coalitions."""
    said: dict[str, Any] = {"l1": {}, "players": None, "noise_floor": noise_floor(recording), "conserved": True}
    for method in METHODS:
        meter, records = play(recording, method)
        charged_uj = sum(record.charge.energy_uj or 0 for record in records.values())
        tokens = sum(record.facts.output_tokens or 0 for record in records.values())
        said["conserved"] &= meter.balance.conserved and charged_uj == meter.balance.requests_uj
        said["joules_per_output_token"] = joules(charged_uj) / tokens if tokens else None
        if recording.marks:
            said["l1"][method], said["players"] = distance(recording, records)
    return said


def distance(recording: Recording, records: dict[int, EnergyRecord]) -> tuple[float, str]:
    """Normalized L1 over the runs of the grand coalition, on average, and who the players are."""
    names = sorted({name for mark in recording.marks for name in mark.classes})
    values = {counts: fmean(worths) for counts, worths in coalition_worths(recording, names).items()}
    full = max(values, key=sum)
    fair = shapley(values, full)
    members = defaultdict(list)
    for i, request in enumerate(recording.requests):
        members[request["coal"]].append(i)
    distances, by_request = [], True
    for run_index, mark in enumerate(recording.marks):
        if _counts(mark, names) != full:
            continue
        charged = {i: float(records[i].charge.active_uj or 0) for i in members[run_index]}
        classes = Counter(recording.requests[i]["cls"] for i in charged)
        by_request = all(classes[name] == count for name, count in zip(names, full, strict=True))
        if by_request:
            fair_uj = [fair[names.index(recording.requests[i]["cls"])] for i in charged]
            distances.append(normalized_l1(list(charged.values()), fair_uj))
        else:
            sums = [sum(uj for i, uj in charged.items() if recording.requests[i]["cls"] == name) for name in names]
            distances.append(normalized_l1(sums, fair))
    return fmean(distances), "requests" if by_request else "classes"


def coalition_worths(recording: Recording, names: Sequence[str]) -> dict[Counts, list[float]]:
    """Microjoules above the loaded idle of each coalition's runs, from quiet to quiet."""
    idle = [_power(recording, mark.t1_ns + QUIET_NS, mark.quiet_ns) for mark in recording.marks]
    worths: dict[Counts, list[float]] = defaultdict(list)
    for i, mark in enumerate(recording.marks):
        near = idle[max(0, i - NEIGHBOURS):i + NEIGHBOURS + 1]
        t0_ns = mark.t0_ns - BEFORE_NS
        worths[_counts(mark, names)].append(recording.drawn_uj(t0_ns, mark.quiet_ns) - fmean(near) * (mark.quiet_ns - t0_ns))
    return worths


def noise_floor(recording: Recording) -> float | None:
    """How much two runs of one coalition differ, relative to their mean, on average; None where none was repeated."""
    names = sorted({name for mark in recording.marks for name in mark.classes})
    repeated = [worths for worths in coalition_worths(recording, names).values() if len(worths) > 1]
    return fmean((max(w) - min(w)) / fmean(w) for w in repeated) if repeated else None


def _counts(mark: Mark, names: Sequence[str]) -> Counts:
    return tuple(mark.classes.count(name) for name in names)


def _power(recording: Recording, t0_ns: int, t1_ns: int) -> float:
    """Microjoules a nanosecond."""
    return recording.drawn_uj(t0_ns, t1_ns) / (t1_ns - t0_ns)


def _table(found: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Distance from the measured Shapley value (normalized L1, 0 is exact)")
    for column in ("recording", *METHODS, "players", "noise floor", "conserved", "J / output token"):
        table.add_column(column, justify="left" if column in ("recording", "players") else "right")
    for name, said in found.items():
        floor, per_token = said["noise_floor"], said["joules_per_output_token"]
        table.add_row(name, *(f"{said['l1'][m]:.4f}" if m in said["l1"] else "" for m in METHODS), said["players"] or "",
                      "" if floor is None else f"{floor:.4f}", "exact" if said["conserved"] else "NO",
                      "" if per_token is None else f"{per_token:.4f}")
    return table


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
