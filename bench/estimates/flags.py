"""The flags of `perjoule estimate`: the load, what to estimate from, and where to write it."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from perjoule.bench.estimates.batching import MAX_NUM_BATCHED_TOKENS, MAX_NUM_SEQS
from perjoule.bench.estimates.boards import RATED
from perjoule.bench.estimates.plot import PICTURES
from perjoule.bench.estimates.shapes import SHAPES
from perjoule.bench.workloads.flags import add_flags
from perjoule.bench.workloads.open import SPECS


def read_flags(argv: Sequence[str], about: str | None) -> argparse.Namespace:
    """What was asked for; exits with 2 for what cannot be. `about` goes above the flags in the help."""
    parser = argparse.ArgumentParser("perjoule estimate", description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", metavar="WORKLOAD", help=f"one of {SPECS}".replace("%", "%%"))
    add_flags(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of everything by chance (default: 0)")
    load = parser.add_argument_group("load", "without either, the workload's own times")
    load.add_argument("--concurrency", type=_count, metavar="N", help="a closed loop: so many requests are in flight")
    load.add_argument("--rate", type=_above, metavar="R", help="so many requests a second, Poisson")
    load.add_argument("--max-num-seqs", type=_count, default=MAX_NUM_SEQS, metavar="N",
                      help="most requests at a time (default: %(default)s)")
    load.add_argument("--max-num-batched-tokens", type=_count, default=MAX_NUM_BATCHED_TOKENS, metavar="N",
                      help="most tokens in a step (default: %(default)s)")
    load.add_argument("--output-tokens", type=_count, metavar="N", help="length of answers that the workload does not tell")
    load.add_argument("--prefix-cache", action="store_true", help="blocks that came before cost nothing, in a cache without end")
    basis = parser.add_argument_group("from what")
    basis.add_argument("--calibration", metavar="FILE|ID", help="of perjoule serve: what a prompt token, a step and an output token cost")
    basis.add_argument("--calibrations", default="auto", metavar="FOLDER", help="where ids are looked for (default: auto)")
    basis.add_argument("--results", type=Path, nargs="+", action="extend", metavar="DIR", help="result.json files of replay, at any depth")
    basis.add_argument("--model", metavar="PART", help="only results of models with this in their name")
    basis.add_argument("--regression", action="store_true", help="a regression over all results, for --model-shape and --gpu")
    basis.add_argument("--model-shape", metavar="NAME", help=f"one of {', '.join(SHAPES)}, or a name with its size in it (8B, 30B-A3B)")
    for flag, kind, text in (("--parameters", _above, "all of them, as 8e9"), ("--active-parameters", _above, "those that a token uses"),
                             ("--weight-bytes", _above, "of one parameter: 2 in bf16, 1 in fp8"),
                             ("--kv-bytes", _above, "of a token of context"), ("--layers", _count, "with attention"),
                             ("--attention-width", _count, "query heads × head dimension")):
        basis.add_argument(flag, type=kind, metavar="N", help=f"the model's, where the name does not tell: {text}")
    basis.add_argument("--gpu", metavar="NAME", help=f"one of {', '.join(RATED)}, or what the driver calls it; of results, only these")
    basis.add_argument("--gpus", type=_count, metavar="N", help="that serve the model together (default: 1, or the calibration's)")
    basis.add_argument("--tdp-w", type=_above, metavar="W", help="most that a GPU may draw (default: its datasheet's)")
    basis.add_argument("--idle-w", type=_above, metavar="W",
                       help="drawn by a GPU with the model loaded and nothing to do (default: 0.18 of TDP)")
    parser.add_argument("--json", metavar="FILE|-", help="write all of it")
    parser.add_argument("--each", action="store_true", help="each request's joules in the JSON, too, in the workload's order")
    parser.add_argument("--plot", type=Path, metavar="FILE", help=f"draw it ({' or '.join(PICTURES)}; needs perjoule[plot])")
    args = parser.parse_args(argv)
    if args.concurrency and args.rate:
        parser.error("got --concurrency and --rate, expected one of them: a loop is closed or open")
    if args.calibration and args.results:
        parser.error("got --calibration and --results, expected one of them")
    if args.regression and not args.results:
        parser.error("--regression: got no --results, expected some")
    if args.plot and args.plot.suffix not in PICTURES:
        parser.error(f"--plot: got {args.plot}, expected a file that ends in {' or '.join(PICTURES)}")
    return args


def _above(text: str) -> float:
    try:
        if 0 < (value := float(text)) < float("inf"):
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"got {text!r}, expected a number above 0")


def _count(text: str) -> int:
    value = _above(text)
    if value != int(value):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number")
    return int(value)
