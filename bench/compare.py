"""Did it get better or worse? Two runs, or repeats of two, compared request by request, with intervals and an exit code for CI.

    perjoule compare A B [--metric energy_per_output_token] [--tolerance 1%] [--json FILE|-] [--force]

A and B are each a result.json, the folder of a run, or a folder of such folders: repeats. Exit code 0: no regression; 1: a regression;
2: not comparable, or not readable.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from perjoule.bench.measures.comparable import Difference, alike, differences
from perjoule.bench.measures.comparison_report import show
from perjoule.bench.measures.difference import Change, change, paired_by
from perjoule.bench.measures.formulas import FORMULAS, definitions, formula_id
from perjoule.bench.measures.result import SCHEMA_VERSION
from perjoule.bench.measures.results import results_of

REGRESSION, USAGE_ERROR = 1, 2
WIDTH = 120  # characters, where the output is no terminal
DEFAULT = "energy_per_output_token"
PAIRED_NAME = {DEFAULT: "paired_energy_per_output_token"}  # request by request it is another formula than that of a window
ALSO = ("energy_per_response", "energy_per_total_token", "output_throughput", "ttft", "tpot", "e2e")


def run(argv: Sequence[str]) -> int:
    """`perjoule compare`. Answers the exit code."""
    args = read_flags(argv)
    try:
        a, b = results_of(args.a), results_of(args.b)
        found = compared(a, b, args)
    except ValueError as error:
        print(f"perjoule compare: {error}", file=sys.stderr)
        return USAGE_ERROR
    out = sys.stderr if args.json == "-" else sys.stdout
    console = Console(file=out, width=None if out.isatty() else WIDTH, highlight=False)
    show(console, found)
    if args.json:
        text = json.dumps(found, indent=1) + "\n"
        sys.stdout.write(text) if args.json == "-" else Path(args.json).write_text(text)
    if found["forbidden"] and not args.force:
        return USAGE_ERROR
    return REGRESSION if any(each["verdict"] == "regression" and each["decides"] for each in found["changes"]) else 0


def compared(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> dict[str, Any]:
    """What is said, as JSON. Raises ValueError for a metric that was asked for and cannot be compared."""
    differ = differences(a[0], b[0], args.allow)
    forbidden = [str(each) for each in differ if each.forbids]
    notes: list[str] = []
    for side, results in (("A", a), ("B", b)):
        notes += [f"{side}: not valid: {reason['text']}" for each in results for reason in each["reasons"]]
        for each in alike(results):
            (forbidden if each.forbids else notes).append(f"{side} holds no repeats of one thing: {each}")
    if len(a) != len(b):
        notes.append(f"got {len(a)} runs of A and {len(b)} of B: {abs(len(a) - len(b))} left out, since runs are compared in pairs")
    changes = [] if forbidden and not args.force else _changes(a, b, args)
    if any(each["requests"] for each in changes) and "lengths" in map(paired_by, a, b):
        notes.append("requests of A and B were paired by their place: they are of equal lengths and differ in content")
    return {"schema_version": SCHEMA_VERSION, "a": [each["run_id"] for each in a], "b": [each["run_id"] for each in b],
            "tolerance": args.tolerance, "forbidden": list(dict.fromkeys(forbidden)),
            "differ": [_setting(each) for each in differ], "notes": list(dict.fromkeys(notes)), "changes": changes,
            "formulas": definitions({each["formula"].partition("/")[0] for each in changes})}


def _changes(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Of the metrics that were asked for, which decide, and of others that both sides can tell."""
    asked = list(dict.fromkeys(args.metric or [DEFAULT]))
    found = [_as_json(change(key, a, b, args.run_to_run), args.tolerance, decides=True) for key in asked]
    for key in ALSO:
        if key not in asked:
            with suppress(ValueError):  # these runs do not tell it
                found.append(_as_json(change(key, a, b, args.run_to_run), args.tolerance, decides=False))
    return found


def _as_json(found: Change, tolerance: float, *, decides: bool) -> dict[str, Any]:
    name = PAIRED_NAME.get(found.metric, found.metric) if found.requests else found.metric
    return {**found._asdict(), "formula": formula_id(name), "unit": FORMULAS[name].unit,
            "verdict": found.verdict(tolerance), "decides": decides}


def _setting(each: Difference) -> dict[str, Any]:
    return {"key": each.key, "a": each.a, "b": each.b, "forbids": each.forbids}


def read_flags(argv: Sequence[str]) -> argparse.Namespace:
    """What was asked for; exits with 2 for what cannot be."""
    parser = argparse.ArgumentParser("perjoule compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path, metavar="A", help="the run to compare with: result.json, its folder, or a folder of repeats")
    parser.add_argument("b", type=Path, metavar="B", help="the run that is judged")
    parser.add_argument("--metric", action="append", metavar="NAME", help=f"what decides the exit code, repeatable (default: {DEFAULT})")
    parser.add_argument("--tolerance", type=part, default=0.01, metavar="P%", help="a change within it is none (default: 1%%)")
    parser.add_argument("--run-to-run", type=part, metavar="P%",
                        help="how much two runs of one thing are thought to differ, one standard deviation (default: 1%%; of the time to "
                             "first token 13%%, of other times 3%%)")
    parser.add_argument("--allow", type=lambda text: text.split(","), default=[], metavar="KEY,…", help="settings that may differ, too")
    parser.add_argument("--json", metavar="FILE|-", help="write all of it as JSON")
    parser.add_argument("--force", action="store_true", help="compare what is not comparable")
    return parser.parse_args(argv)


def part(text: str) -> float:
    """A part of a whole, as 1% or 0.01. Raises ArgumentTypeError."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+) ?(%?)", text)
    value = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a part of 100%, as 1% or 0.01")
    return value


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
