"""`perjoule demo`: an embedded engine, the sidecar in front of it, a few dozen requests, and what each of them cost.

Nothing is needed but this package. The joules are simulated, which has one advantage over real ones: the engine knows
what each request truly cost, so the demo also says how far off the sidecar's shares are.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

INTERRUPTED = 130  # what a shell answers for a program ended by Ctrl-C


def run(argv: Sequence[str]) -> int:
    """Run `perjoule demo`; 0 if every request has one record and the joules add up, else 1; 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="perjoule demo", description="See it work without a GPU: an embedded engine, "
                                     "the sidecar in front of it, and what each request cost in simulated joules.")
    parser.add_argument("--requests", type=int, default=36, metavar="N", help="how many requests (default: 36)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another number, another mix (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--open", action="store_true", help="show the live page in a browser")
    parser.add_argument("--hold", action="store_true", help="mixed traffic until Ctrl-C instead, for who looks at the live page")
    asked = parser.parse_args(argv)
    if asked.requests < 1:
        parser.error(f"--requests: got {asked.requests}, expected at least 1")
    if asked.hold and asked.json:
        parser.error("--hold: got --json too, expected one of them, since what is held has no end to report")
    before = signal.signal(signal.SIGINT, _leave)
    try:
        import asyncio

        from rich.console import Console

        from perjoule.bench.child import FailedError
        from perjoule.bench.demo_play import hold, play
        from perjoule.bench.demo_view import summary

        signal.signal(signal.SIGINT, before)
        console = Console(quiet=asked.json)
        try:
            if asked.hold:
                asyncio.run(hold(asked.seed, console, opens=asked.open))  # until KeyboardInterrupt
                return 0
            told = asyncio.run(play(asked.requests, asked.seed, console, opens=asked.open))
        except FailedError as error:
            print(f"perjoule demo: {error}", file=sys.stderr)
            return 1
        if asked.json:
            print(json.dumps(told))
        else:
            console.print(summary(told))
        return 1 if told["problems"] else 0
    except KeyboardInterrupt:
        _say_interrupted()
        return INTERRUPTED


def _leave(*_: Any) -> NoReturn:
    """Ctrl-C while modules load. An exception could land in a callback of the import machinery, which prints it as a
    traceback and loads on; and there is nothing to clean up yet."""
    _say_interrupted()
    os._exit(INTERRUPTED)


def _say_interrupted() -> None:
    print("perjoule demo: interrupted", file=sys.stderr, flush=True)
