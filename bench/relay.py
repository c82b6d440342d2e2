"""What a relay costs: nginx, a plain aiohttp relay, LiteLLM and perjoule in front of the same cheap engine, in turns.

Each relay is pinned to a core of its own, engine and load to others. In each round every load is put on every relay, one after the
other, so that a busy machine is busy for all of them; what counts is CPU time a frame and a request, beside nginx's of the same round.

    python bench/relay.py [--quick] [--json FILE|-] [--plot FILE.png] [--check]
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from perjoule.bench.child import FailedError
from perjoule.bench.relay_machine import divided, whole_cores
from perjoule.bench.relay_peers import PEERS
from perjoule.bench.relay_plot import PICTURES, plot
from perjoule.bench.relay_report import tables
from perjoule.bench.relay_run import measure
from perjoule.bench.relay_scaling import cores_for_scaling, scaled, scaling_tables

WIDTH = 150  # characters, where the output is no terminal


def run(argv: Sequence[str]) -> int:
    """`perjoule bench relay`. Exit code 0; 1 if something failed or, with --check, a limit is passed; 2 for a wrong flag."""
    args = read_flags(argv)
    try:
        with Progress(console=Console(stderr=True), transient=True) as progress:
            found = asyncio.run(scaled(args.cores, args.seconds, args.repeats, progress) if args.workers_scaling else
                                measure(args, progress))
    except FailedError as error:
        print(f"perjoule bench relay: {error}", file=sys.stderr)
        return 1
    asked = {name: getattr(args, name) for name in ("streams", "seconds", "repeats", "workers", "workers_scaling")}
    found = {"schema_version": 1, "asked": asked, **found}
    out = sys.stderr if args.json == "-" else sys.stdout
    console = Console(file=out, width=None if out.isatty() else WIDTH, highlight=False)
    for table in scaling_tables(found) if args.workers_scaling else tables(found):
        console.print(table)
    if args.json:
        text = json.dumps(found, indent=1) + "\n"
        sys.stdout.write(text) if args.json == "-" else Path(args.json).write_text(text)
    if args.plot:
        plot(found, args.plot)
    return int(args.check and any(budget["kept"] is False for budget in found["budgets"]))


def read_flags(argv: Sequence[str]) -> argparse.Namespace:
    """What was asked for; exits with 2 for what cannot be."""
    parser = argparse.ArgumentParser("perjoule bench relay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="within three minutes on two cores")
    parser.add_argument("--peers", default=",".join(PEERS), metavar="NAME,…", help=f"some of {', '.join(PEERS)} (default: all)")
    parser.add_argument("--streams", metavar="N,…", help="paced streams at a time (default: 64,512; quick: 64)")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long each load is measured (default: 4; quick: 0.8)")
    parser.add_argument("--repeats", type=int, metavar="N", help="rounds (default: 5; quick: 3)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="of perjoule, with a core for each (default: 1)")
    parser.add_argument("--workers-scaling", action="store_true", help="perjoule alone: two workers beside one, on eight cores or more")
    parser.add_argument("--nginx", metavar="FILE", help="nginx, if it is not in PATH")
    parser.add_argument("--litellm-python", metavar="FILE", help="the Python of a virtual environment with litellm[proxy]")
    parser.add_argument("--json", metavar="FILE|-", help="write everything that was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE", help=f"draw it ({' or '.join(PICTURES)}; needs perjoule[plot])")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a limit is passed")
    args = parser.parse_args(argv)
    args.peers = args.peers.split(",")
    if unknown := [name for name in args.peers if name not in PEERS]:
        parser.error(f"--peers: got {', '.join(unknown)}, expected some of {', '.join(PEERS)}")
    try:
        args.streams = [int(n) for n in (args.streams or ("64" if args.quick else "64,512")).split(",")]
    except ValueError as error:
        parser.error(f"--streams: {error}, expected numbers with commas between")
    args.seconds = args.seconds or (0.8 if args.quick else 4.0)
    args.repeats = args.repeats or (3 if args.quick else 5)
    for name, got in {"streams": min(args.streams), "seconds": args.seconds, "repeats": args.repeats, "workers": args.workers}.items():
        if not got > 0:
            parser.error(f"--{name}: got {got:g}, expected more than 0")
    if args.plot and (args.workers_scaling or args.plot.suffix not in PICTURES):
        parser.error(f"--plot: got {args.plot}, expected a file that ends in {' or '.join(PICTURES)}, and no --workers-scaling")
    try:
        args.cores = cores_for_scaling() if args.workers_scaling else divided(whole_cores(), args.workers)
    except ValueError as error:
        parser.error(str(error))
    return args


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
