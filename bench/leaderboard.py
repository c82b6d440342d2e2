"""Results of replay as a leaderboard: a page that is one file, a table in the terminal, rows in JSON, or ML.ENERGY's folders.

    python bench/leaderboard.py DIR… [--out page.html] [--references FILE] [--mlenergy DIR] [--json FILE|-] [--open]
"""

import argparse
import json
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from perjoule.bench.board.mlenergy import export
from perjoule.bench.board.mlenergy_files import NotTheirsError
from perjoule.bench.board.page import page, rounded
from perjoule.bench.board.references import References, read_references
from perjoule.bench.board.rows import row
from perjoule.bench.board.store import NAME, Store, read

WIDTH = 150  # characters, where the output is no terminal
COLUMNS = (("J/token", "energy_per_output_token_j"), ("J/response", "energy_per_response_j"), ("ITL ms", "p50_itl_ms"),
           ("p99", "p99_itl_ms"), ("TTFT ms", "p50_ttft_ms"), ("tokens/s", "output_tokens_per_s"), ("W", "avg_power_w"))


def run(argv: Sequence[str]) -> int:
    """`perjoule leaderboard`. Exit code 0; 1 if a file could not be read or exported; 2 for a wrong flag or where there is no result."""
    args = read_flags(argv)
    try:
        store = read(args.places)
        references = read_references(args.references) if args.references else None
        models = read_models(args.model_info) if args.model_info else {}
    except (OSError, ValueError) as error:
        return _refuse(str(error))
    for problem in store.problems:
        _say(str(problem))
    if not store.stored:
        return _refuse(f"got no result in {', '.join(map(str, args.places))}, expected files named {NAME}")
    if store.repeated:
        _say(f"{store.repeated} left out: of each run one result counts")
    try:
        left_out = write(store, args, references, models)
    except OSError as error:
        return _refuse(str(error))
    return int(bool(store.problems or left_out))


def write(store: Store, args: argparse.Namespace, references: References | None, models: Mapping[str, Any]) -> int:
    """Everything that was asked for; answers how many results ML.ENERGY's folders have no place for. Raises OSError."""
    if args.json:
        text = json.dumps([rounded(row(result)) for result in store.results], indent=1) + "\n"
        sys.stdout.write(text) if args.json == "-" else Path(args.json).write_text(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(page(store.results, references=references), encoding="utf-8")
        _say(f"{len(store.stored)} results in {args.out}")
        if args.open:
            webbrowser.open(args.out.resolve().as_uri())
    left_out = 0
    if args.mlenergy:
        for stored in store.stored:
            try:
                export(stored, args.mlenergy, models)
            except (NotTheirsError, ValueError) as error:
                left_out += 1
                _say(f"{stored.path}: left out of {args.mlenergy}: {error}")
        _say(f"{len(store.stored) - left_out} results in {args.mlenergy}")
    if not (args.json or args.out or args.mlenergy):
        console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
        console.print(table(store))
    return left_out


def table(store: Store) -> Table:
    """The rows by energy per token; those that are not valid come last, with the reason."""
    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("Model", "Precision", "GPU", "Load"):
        drawn.add_column(name, overflow="fold")
    for name, _ in COLUMNS:
        drawn.add_column(name, justify="right")
    drawn.add_column("±", justify="right")
    drawn.add_column("")
    rows = [(result, row(result)) for result in store.results]
    for result, one in sorted(rows, key=lambda pair: (not pair[1]["valid"], pair[1]["energy_per_output_token_j"] or float("inf"))):
        gpus = f"{one['num_gpus']} × " if (one["num_gpus"] or 1) > 1 else ""
        uncertainty = "" if one["uncertainty"] is None else f"{one['uncertainty']:.2%}"
        name = _text(one["model_id"]).rsplit("/", 1)[-1]
        drawn.add_row(name, _text(one["weight_precision"]), gpus + _text(one["gpu"]), _text(one["load"]),
                      *(_number(one[key]) for _, key in COLUMNS), uncertainty, _verdict(result), style=None if one["valid"] else "dim")
    return drawn


def read_models(path: Path) -> Mapping[str, Any]:
    """What model names do not tell, `{model_id: {"total_parameters_billion": …}}`. Raises ValueError and OSError."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}, expected JSON") from error
    if not (isinstance(found, dict) and all(isinstance(value, dict) for value in found.values())):
        raise ValueError(f"{path}: expected an object of objects, one a model id")
    return found


def read_flags(argv: Sequence[str]) -> argparse.Namespace:
    """What was asked for; exits with 2 for what cannot be."""
    parser = argparse.ArgumentParser("perjoule leaderboard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", nargs="+", type=Path, metavar="DIR", help=f"folders with results at any depth, or files like {NAME}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the page; without it, --json or --mlenergy, a table is printed")
    parser.add_argument("--references", type=Path, metavar="FILE", help="published rows to draw beside ours (docs/leaderboard.md)")
    parser.add_argument("--mlenergy", type=Path, metavar="DIR", help="write ML.ENERGY's folders, for its own loader")
    parser.add_argument("--model-info", type=Path, metavar="FILE", help="sizes of models whose names do not tell, for --mlenergy")
    parser.add_argument("--json", metavar="FILE|-", help="write the rows")
    parser.add_argument("--open", action="store_true", help="show the page in a browser")
    args = parser.parse_args(argv)
    for flag, needs in (("references", "out"), ("open", "out"), ("model_info", "mlenergy")):
        if getattr(args, flag) and not getattr(args, needs):
            parser.error(f"--{flag.replace('_', '-')}: got no --{needs}, expected one")
    return args


def _verdict(result: Mapping[str, Any]) -> str:
    said = [] if result["valid"] else ["not valid: " + "; ".join(str(reason.get("code")) for reason in result.get("reasons") or ())]
    return ", ".join([*said, *(["broken off"] if result.get("partial") else [])])


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def _text(value: object) -> str:
    return "–" if value is None or value == "" else str(value)


def _say(text: str) -> None:
    print(f"perjoule leaderboard: {text}", file=sys.stderr)


def _refuse(text: str) -> int:
    _say(text)
    return 2


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
