"""Replays a workload through the sidecar, and says what each request took and cost, and how far to believe it.

    python bench/replay.py --url http://127.0.0.1:8080 --model NAME --trace azure2023:FILE.csv --window 0:60 --out DIR
    python bench/replay.py --url … --model NAME --trace fixed:512,128 --sweep concurrency=1,8,64 --repeats 3 --out DIR
    python bench/replay.py --calibrate

DIR gets everything that was seen, result.json, and page.html for people. docs/replay.md explains.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console

from perjoule.bench.board.page import page
from perjoule.bench.board.references import read_references
from perjoule.bench.child import FailedError
from perjoule.bench.load import calibrate
from perjoule.bench.measures.run import PAGE
from perjoule.bench.runs import engine, sweep
from perjoule.bench.runs.flags import check, fitted, plan_of, read_flags, workload_for
from perjoule.bench.runs.one import ResumeError, Task, carry_out
from perjoule.bench.runs.operator import Operator
from perjoule.bench.runs.progress import Live
from perjoule.bench.runs.report import overview, table
from perjoule.bench.workloads.prompts import Prompter
from perjoule.bench.workloads.workload import WorkloadError

SWEEP = "sweep.json"
INTERRUPTED = 130
WIDTH = 120


def run(argv: Sequence[str]) -> int:
    """`perjoule replay`. Exit code 0 when the runs were carried out, valid or not; 1 if one failed, or with --require-valid is not valid;
    2 for what cannot be asked for; 130 if it was interrupted: what was done is kept, and marked."""
    if "--calibrate" in argv:
        return calibrate.run([word for word in argv if word != "--calibrate"])
    args = read_flags(argv)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else WIDTH)
    try:
        with Live(console, quiet=args.quiet) as view:
            results, interrupted = asyncio.run(runs(argv, args, view))
    except (WorkloadError, ResumeError, engine.EngineError, ValueError) as error:
        print(f"perjoule replay: {error}", file=sys.stderr)
        return 2
    except (FailedError, OSError) as error:
        print(f"perjoule replay: {error}", file=sys.stderr)
        return 1
    show(results, args)
    if interrupted:
        return INTERRUPTED
    return int(args.require_valid and not all(result["valid"] for result in results))


async def runs(argv: Sequence[str], args: argparse.Namespace, view: Live) -> tuple[list[dict[str, Any]], bool]:
    """Every point of the sweep, or the one run; and whether it was broken off."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    points = sweep.points(args.sweep, args.repeats)
    for point in points:  # before the first is run
        check(sweep.flags_of(argv, point, read_flags))
    headers = {"Authorization": f"Bearer {os.environ[args.api_key_env]}"} if args.api_key_env else {}
    token = os.environ[args.admin_token_env] if args.admin_token_env else None
    server, results = None, []
    args.out.mkdir(parents=True, exist_ok=True)
    async with Operator(args.url, args.admin, token) as operator:
        for point in points:
            if stopped.is_set():
                break
            view.point(point.folder)
            if args.restart and point.values.get(sweep.SERVER) != server:
                view.phase("starting the server")
                server = point.values[sweep.SERVER]
                await sweep.restart(args.restart, server, args.url, args.model, headers)
            view.phase("looking at the engine")
            task = await task_of(sweep.flags_of(argv, point, read_flags), headers, server)
            result = await carry_out(task, args.out / point.folder, operator, view, stopped, resume=args.resume)
            results.append(result)
            if len(points) > 1:
                (args.out / SWEEP).write_bytes(orjson.dumps(sweep.listed(args.out, points, args.seed), option=orjson.OPT_INDENT_2))
    if len(points) > 1:
        references = read_references(args.references) if args.references else None
        (args.out / PAGE).write_text(page(results, references=references), encoding="utf-8")
    return results, stopped.is_set()


async def task_of(args: argparse.Namespace, headers: Mapping[str, str], server: str | None) -> Task:
    """One run's task: the engine is asked what it is, and whether it takes the prompts. Raises EngineError, WorkloadError, ValueError."""
    workload = workload_for(args)
    plan = plan_of(args, workload)
    found = await engine.look(args.url, args.model, headers)
    workload = fitted(workload, args, found.context)
    made_up = any(turn.body is None for turn in workload.turns)
    vocabulary = args.vocabulary
    if made_up and args.prompts == "token_ids" and vocabulary is None:
        vocabulary = await engine.vocabulary(args.url, args.model, headers)
    prompter = Prompter(args.model, args.seed, *([vocabulary] if vocabulary else []), forced=not args.free_length)
    setting = {"model_id": args.model, "model_revision": found.root,
               "workload_filters": args.said, "prompts": args.prompts if made_up else None, **dict(args.setting)}
    if server is not None:
        setting["engine_flags"] = {**(setting.get("engine_flags") or {}), "server": server}
    asked = {"name": args.name, "objectives": args.slo, "steady_min_s": args.steady_min, "exact_lengths": not args.free_length and all(
        turn.body is None for turn in workload.turns)}
    drive = {"processes": args.processes, "timeout_s": args.timeout, "ca_file": args.ca_file}
    if args.ray:
        from perjoule.bench.load import ray_hosts

        hosts = ray_hosts.hosts()
        drive |= {"link": ray_hosts.on(hosts), "processes": args.processes or len(hosts)}
        setting["client_hosts"] = len(hosts)
    return Task(args.url, workload, plan, prompter, setting, {**asked, "flags": args.shown}, headers, drive)


def show(results: Sequence[Mapping[str, Any]], args: argparse.Namespace) -> None:
    """On the console, and as JSON."""
    if not results:
        return
    out = sys.stderr if args.json == "-" else sys.stdout
    console = Console(file=out, width=None if out.isatty() else WIDTH, highlight=False)
    console.print(table(results[0]) if len(results) == 1 else overview(results))
    console.print(f"{args.out / PAGE}")
    if args.json:
        text = json.dumps(results[0] if len(results) == 1 else list(results)) + "\n"
        with suppress(BrokenPipeError):
            sys.stdout.write(text) if args.json == "-" else Path(args.json).write_text(text)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
