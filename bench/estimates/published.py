"""Estimates beside published rows of others, such as ML.ENERGY's: by physics, and by regressions that never saw the row's model.

    python -m perjoule.bench.estimates.published [FILE] [--prompt-tokens N]

FILE is as `perjoule leaderboard --references` reads it. Rows tell the mean answer, not the prompt, for which a length is assumed.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

from rich.console import Console
from rich.table import Table

from perjoule.bench.board.references import read_references
from perjoule.bench.estimates.boards import boards_of
from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.estimates.regression import cross_validated
from perjoule.bench.estimates.rows import Row, in_a_loop, row_of
from perjoule.bench.estimates.shapes import shape_of

USAGE_ERROR = 2
ROWS = Path(__file__).with_name("published.json")


def main(argv: Sequence[str]) -> int:
    """The command. Exit code 2 for a file that cannot be read, or has a model or a GPU that nobody knows."""
    parser = argparse.ArgumentParser("perjoule.bench.estimates.published", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=ROWS, metavar="FILE")
    parser.add_argument("--prompt-tokens", type=int, default=250, metavar="N", help="assumed mean (default: 250)")
    args = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    try:
        table, rows = compared(args.file, args.prompt_tokens)
    except (EstimateError, OSError, ValueError, KeyError) as error:
        print(f"perjoule.bench.estimates.published: {error}", file=sys.stderr)
        return USAGE_ERROR
    console.print(table)
    ways = {"physics": [row.physics - row.energy for row in rows]}
    if len({row.model for row in rows}) > 1:
        ways["regression"] = list(cross_validated(rows, beside_physics=False).errors)
        ways["regression beside physics"] = list(cross_validated(rows, beside_physics=True).errors)
    for way, errors in ways.items():
        half, spread = median(abs(math.exp(error) - 1) for error in errors), math.sqrt(fmean(error**2 for error in errors))
        console.print(f"{way}: half of {len(errors)} rows within {half:.0%}, relative standard deviation {spread:.2f}")
    return 0


def compared(file: Path, prompt_tokens: int) -> tuple[Table, list[Row]]:
    """A line for each row, and the rows as the regression takes them. Raises EstimateError, OSError, ValueError and KeyError."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("model", "GPUs", "B", "answer", "J/token", "by physics", "95 %", "error", ""):
        table.add_column(column, justify="left" if column in ("model", "GPUs") else "right")
    rows = []
    for each in read_references(file).rows:
        shape = shape_of(each["model_id"], each.get("weight_precision"))
        boards = boards_of(str(each.get("gpu_model")), int(each.get("num_gpus", 1)))
        token_j, response_j, batch = each["energy_per_token_joules"], each["energy_per_request_joules"], each["max_num_seqs"]
        lengths = float(prompt_tokens), response_j / token_j
        found = in_a_loop(shape, boards, lengths, batch)
        rows.append(row_of(each["model_id"], shape, boards, lengths, batch, response_j))
        told, (low, high) = found.energy_j / found.output_tokens, (joules / found.output_tokens for joules in found.interval_j)
        table.add_row(each["model_id"], f"{boards.count} × {boards.name}", f"{batch:g}", f"{lengths[1]:.0f}", f"{token_j:.3g}",
                      f"{told:.3g}", f"{low:.3g} … {high:.3g}", f"{told / token_j - 1:+.0%}",
                      "inside" if low <= token_j <= high else "outside")
    return table, rows


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
