"""The flags of `perjoule replay`: what is replayed, how it is put on the engine, and what is made of it."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from perjoule.bench.load.schedule import ARRIVALS, Plan
from perjoule.bench.measures.objectives import objectives
from perjoule.bench.runs.sweep import SERVER, axis
from perjoule.bench.workloads import filters, flags
from perjoule.bench.workloads.open import workload_of
from perjoule.bench.workloads.workload import Workload

ROOM = 16  # tokens of a context that chat templates take


def parser() -> argparse.ArgumentParser:
    """All flags."""
    made = argparse.ArgumentParser("perjoule replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--url", required=True, metavar="URL", help="where requests go: the sidecar's port")
    made.add_argument("--model", required=True, metavar="NAME", help="as the engine calls it")
    made.add_argument("--trace", required=True, metavar="KIND:…", help="what is replayed: azure2023:FILE, azure2024:FILE, burstgpt:FILE,"
                      " mooncake:FILE, servegen:FOLDER, sharegpt:FILE, jsonl:FILE, hf:ID, fixed:IN,OUT, pareto:…, bins:…, diffusion:…"
                      " (docs/workloads.md)")
    made.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for all that is seen and for the result")
    made.add_argument("--name", default="", help="free text for the result")
    flags.add_flags(made)
    load = made.add_argument_group("load", "a closed loop (--concurrency), an open one (--request-rate), else the trace's own times")
    load.add_argument("--concurrency", type=int, metavar="N", help="so many requests in flight: the next is sent when one has ended")
    load.add_argument("--request-rate", type=float, metavar="R", help="requests a second, whatever the engine does")
    load.add_argument("--arrivals", choices=ARRIVALS, help="of an open loop (default: poisson)")
    load.add_argument("--burstiness", type=float, metavar="B", help="of gamma arrivals: 1 is poisson, less is burstier")
    load.add_argument("--ramp", type=float, default=0.0, metavar="S", help="open the places, or rise to --request-rate-end, in S seconds")
    load.add_argument("--request-rate-end", type=float, metavar="R", help="the rate after the ramp")
    load.add_argument("--requests", type=int, metavar="N", help="so many (default: each of the workload once)")
    load.add_argument("--duration", type=float, metavar="S", help="for so long (open and closed loops)")
    load.add_argument("--seed", type=int, default=0, metavar="N", help="of everything that is drawn (default: 0); repeats count up from it")
    load.add_argument("--cancel-share", type=float, default=0.0, metavar="P", help="hang up on a share of the requests")
    load.add_argument("--cancel-after", type=float, default=1.0, metavar="S", help="so long after they were sent (default: 1)")
    load.add_argument("--sweep", type=axis, action="append", default=[], metavar="NAME=V,V,…",
                      help=f"a run for each value of a flag, as concurrency=1,8,64; `{SERVER}=…` are what --restart is given")
    load.add_argument("--restart", metavar="COMMAND", help=f"shell command that starts the server anew, with {{{SERVER}}} in it")
    load.add_argument("--repeats", type=int, default=1, metavar="N", help="of each run, in turns (default: 1)")
    client = made.add_argument_group("client")
    client.add_argument("--processes", type=int, metavar="N", help="client processes (default: as many as the load needs)")
    client.add_argument("--ray", metavar="ADDRESS", help="clients on every host of a Ray cluster (`auto`: the one this machine is in)")
    client.add_argument("--timeout", type=float, default=600.0, metavar="S", help="for an answer (default: 600)")
    client.add_argument("--free-length", action="store_true", help="the model ends its answers itself (no ignore_eos)")
    client.add_argument("--vocabulary", type=int, metavar="N", help="token ids below N are sent (default: what the model takes)")
    client.add_argument("--api-key-env", metavar="NAME", help="environment variable with the key that the sidecar or the engine asks for")
    client.add_argument("--ca-file", metavar="FILE", help="certificates that an https URL is known by")
    what = made.add_argument_group("result")
    what.add_argument("--admin", metavar="URL", help="the sidecar's operator's port (default: port 9464 on the same host)")
    what.add_argument("--admin-token-env", metavar="NAME", help="environment variable with its token")
    what.add_argument("--slo", metavar="TEXT", help="objectives of goodput, as 'ttft:200ms tpot:50ms e2e:5s'")
    what.add_argument("--setting", type=_setting, action="append", default=[], metavar="KEY=VALUE",
                      help="what else is known of engine and machine, as weight_precision=fp8 (docs/results.md)")
    what.add_argument("--steady-min", type=float, default=30.0, metavar="S", help="the steady state must last so long (default: 30)")
    what.add_argument("--references", type=Path, metavar="FILE", help="published rows for the page of a sweep")
    what.add_argument("--require-valid", action="store_true", help="exit code 1 unless every result is valid")
    what.add_argument("--resume", action="store_true", help="go on with a run that broke off in --out")
    what.add_argument("--json", metavar="FILE|-", help="write the result there, too")
    what.add_argument("--quiet", action="store_true", help="no progress")
    made.add_argument("--calibrate", action="store_true", help="measure this client's own limits instead (see --calibrate --help)")
    return made


def read_flags(argv: Sequence[str]) -> argparse.Namespace:
    """What was asked for; exits with 2 for what cannot be."""
    made = parser()
    args = made.parse_args(argv)
    args.said, args.shown = flags.said(args), list(argv)
    if args.repeats < 1:
        made.error(f"--repeats: got {args.repeats}, expected 1 or more")
    names = [name for name, _ in args.sweep]
    known = {action.option_strings[0].removeprefix("--") for action in made._actions if action.nargs is None} | {SERVER}
    for name in names:
        if name not in known:
            made.error(f"--sweep: got {name}, expected a flag with a value, or {SERVER}")
    if (SERVER in names) != bool(args.restart):
        made.error(f"--restart and --sweep {SERVER}=… go together: got one of them")
    for flag in ("api_key_env", "admin_token_env"):
        if (name := getattr(args, flag)) and name not in os.environ:
            made.error(f"--{flag.replace('_', '-')}: got {name}, which is not set")
    try:
        if args.slo:
            objectives(args.slo)
        if not args.sweep:  # whose points are checked one by one
            check(args)
    except ValueError as error:
        made.error(str(error))
    return args


def workload_for(args: argparse.Namespace) -> Workload:
    """The workload, filtered. Raises WorkloadError."""
    return flags.filtered(workload_of(args.trace, seed=args.seed, window=flags.window_of(args)), args)


def fitted(workload: Workload, args: argparse.Namespace, context: int | None) -> Workload:
    """A workload that is longer than the engine's context is scaled to fit where the flags say nothing of lengths, and says so."""
    if context is None or args.max_context or args.scale_lengths:
        return workload
    longest = max(((turn.input_tokens or 0) + (turn.output_tokens or 0) for turn in workload.turns if turn.body is None), default=0)
    if longest <= context - ROOM:
        return workload
    scaled = filters.scaled_lengths(workload, factor := (context - ROOM) / longest)
    args.said.append(f"--scale-lengths {factor:.4f}")
    note = f"the longest request had {longest} tokens, the engine takes {context}: all lengths were scaled to fit"
    return replace(scaled, notes=(*scaled.notes, note))


def check(args: argparse.Namespace) -> None:
    """Whether the load that was asked for is one, if the workload has times. Raises ValueError."""
    _plan(args, has_times=True)


def plan_of(args: argparse.Namespace, workload: Workload) -> Plan:
    """How the workload is put on the engine. Raises ValueError."""
    return _plan(args, has_times=workload.turns[0].at_s is not None)


def _plan(args: argparse.Namespace, *, has_times: bool) -> Plan:
    if args.concurrency is not None and args.request_rate is not None:
        raise ValueError("got --concurrency and --request-rate, expected one of them")
    mode = "closed" if args.concurrency is not None else "open" if args.request_rate is not None else "trace"
    if mode == "trace" and not has_times:
        raise ValueError(f"{args.trace}: has no times; expected --concurrency or --request-rate")
    is_open = mode == "open"
    arrivals = args.arrivals or ("gamma" if args.burstiness is not None else "poisson")
    return Plan(mode, arrivals=arrivals if is_open else args.arrivals, request_rate=args.request_rate,
                request_rate_end=args.request_rate_end, burstiness=args.burstiness, concurrency=args.concurrency, ramp_s=args.ramp,
                requests=args.requests, duration_s=args.duration, seed=args.seed, cancel_share=args.cancel_share,
                cancel_after_s=args.cancel_after)


def _setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE; a value that is JSON is taken as such."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
