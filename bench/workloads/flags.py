"""The filters as flags of a command, so that whoever reads workloads does the same to them."""

import math
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable

from perjoule.bench.workloads import filters
from perjoule.bench.workloads.files import ALWAYS, Window
from perjoule.bench.workloads.workload import Workload, WorkloadError

FLAGS = ("window", "thin", "scale_lengths", "max_output", "max_context", "clip", "limit", "time_scale", "prompts")  # in their order


def add_flags(parser: ArgumentParser) -> None:
    """The filters, in the order in which they are applied. A seed is the command's own flag."""
    group = parser.add_argument_group("workload", "what is done to it, in this order; the result says what")
    group.add_argument("--window", type=_window, metavar="A:B", help="only these seconds of a trace, which then begin at 0")
    group.add_argument("--thin", type=_probability, metavar="P", help="keep each request, or whole session, with probability P")
    group.add_argument("--scale-lengths", type=_above(0.0), metavar="F", help="multiply all lengths by F (at least 1 token)")
    group.add_argument("--max-output", type=_count(1), metavar="N", help="cap answers at N tokens")
    group.add_argument("--max-context", type=_count(2), metavar="N", help="drop what has more than N tokens, input and output together")
    group.add_argument("--clip", action="store_true", help="with --max-context: cut to fit instead")
    group.add_argument("--limit", type=_count(1), metavar="N", help="only the first N requests of what is left")
    group.add_argument("--time-scale", type=_above(0.0), metavar="X", help="multiply all times by X: 2 is half as fast, 0.5 twice as fast")
    group.add_argument("--prompts", choices=("token_ids", "text"), default="token_ids",
                       help="of lengths: exact token ids, or chat messages of about as many words (default: token_ids)")


def filtered(workload: Workload, args: Namespace) -> Workload:
    """A workload with the flags of `add_flags` applied. Raises WorkloadError where one cannot be, as times of a workload
    without, or nothing is left."""
    seed = getattr(args, "seed", None) or 0
    steps: tuple[tuple[object, Callable[[Workload], Workload]], ...] = (
        (args.window, lambda w: filters.windowed(w, args.window)),
        (args.thin, lambda w: filters.thinned(w, args.thin, seed)),
        (args.scale_lengths, lambda w: filters.scaled_lengths(w, args.scale_lengths)),
        (args.max_output, lambda w: filters.capped_output(w, args.max_output)),
        (args.max_context, lambda w: filters.within_context(w, args.max_context, clip=args.clip)),
        (args.limit, lambda w: filters.limited(w, args.limit)),
        (args.time_scale, lambda w: filters.scaled_time(w, args.time_scale)),
        (args.prompts == "text", filters.in_words),
    )
    for asked, step in steps:
        if asked:
            workload = step(workload)
    if not workload.turns:
        dropped = ", ".join(f"{count} {reason}" for reason, count in workload.dropped.items())
        raise WorkloadError(f"{workload.name}: got no requests left of {workload.read} ({dropped}), expected at least one")
    return workload


def window_of(args: Namespace) -> Window:
    """The window, for a reader that need not keep what is outside of it."""
    window: Window | None = args.window
    return window or ALWAYS


def said(args: Namespace) -> list[str]:
    """The filters that were asked for, as on a command line: of two runs that compare, these are equal."""
    values = {f"--{name.replace('_', '-')}": getattr(args, name) for name in FLAGS if name != "prompts"}
    values["--window"] = None if args.window is None else f"{args.window[0]:g}:{args.window[1]:g}"
    return [name if value is True else f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in values.items() if value]


def _window(text: str) -> Window:
    begin, colon, end = text.partition(":")
    try:
        window = (float(begin or 0.0), float(end or math.inf))
        if colon and 0 <= window[0] < window[1]:
            return window
    except ValueError:
        pass
    raise ArgumentTypeError(f"got {text!r}, expected A:B, seconds, A before B")


def _probability(text: str) -> float:
    value = _above(0.0)(text)
    if value > 1:
        raise ArgumentTypeError(f"got {text!r}, expected a probability, more than 0 and at most 1")
    return value


def _above(least: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            if least < (value := float(text)) < math.inf:
                return value
        except ValueError:
            pass
        raise ArgumentTypeError(f"got {text!r}, expected a number above {least:g}")
    return number


def _count(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            if (value := int(text)) >= least:
                return value
        except ValueError:
            pass
        raise ArgumentTypeError(f"got {text!r}, expected a whole number, at least {least}")
    return number
