"""How fast this client can go on this machine, and how true its stamps are: against a golden server, beside vLLM's own client.

Both send at a constant rate, which is raised step by step. What counts is what the server saw: how far each arrival was from where the
schedule has it, counted from the arrival that was least late (a client may begin when it likes, but must then keep its own time). A
chunk's error is the client's stamp of its arrival less the server's of its write; both read one monotonic clock. Of all rounds
the best counts for each rate, for all clients alike: what else runs on the machine makes rounds worse, and never better.

    python -m perjoule.bench.load.calibrate [--vllm-python FILE --vllm-tokenizer FOLDER] [--json FILE|-] [--plot FILE.png]
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from perjoule.bench.child import FailedError, child
from perjoule.bench.load.calibration_report import PICTURES, plot, tables
from perjoule.bench.load.driver import drive
from perjoule.bench.load.job import AsGiven
from perjoule.bench.load.schedule import Plan, schedule
from perjoule.bench.load.vllm_client import vllm_client
from perjoule.bench.workloads.workload import Turn, Workload
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

FIRST_RATE, RATE_STEP, MOST_RATE = 100.0, 2 ** 0.5, 12_800.0
LIMIT_MS = 5.0  # of the 99th percentile of arrival errors
FAILURES = 2  # rates in a row that a client fails, after which it is done
PROMPT = "A request of the calibration: its answer is known to the token. " * 2
STREAMS, STREAM_TOKENS, STREAM_GAP_MS = 100, 100, 20.0
WIDTH = 150  # characters, where the output is no terminal


class Seen(NamedTuple):
    """What a client says of its requests, by their ids: when each was sent and each of its chunks came (monotonic ns)."""

    requests: Mapping[str, tuple[int, list[int]]]
    send_lag_ns: Sequence[int]  # sent − intended, where a client tells


Client = Callable[[str, Plan, int], Awaitable[Seen]]
"""Sends so many requests as the plan has, for so many tokens each, to the server at this URL."""


async def calibrate(clients: Mapping[str, Client], seconds: float, repeats: int, tokens: int, gap_ms: float,
                    say: Callable[[str], None]) -> dict[str, Any]:
    """All that was measured, as JSON. Raises FailedError."""
    steps: list[dict[str, Any]] = []
    for _ in range(repeats):
        going, rate = dict.fromkeys(clients, 0), FIRST_RATE  # how many rates in a row each has failed
        while going and rate <= MOST_RATE:
            plan = Plan("open", arrivals="constant", request_rate=round(rate), requests=max(200, round(rate * seconds)))
            for name in list(going):
                steps.append(await step(name, clients[name], plan, tokens, gap_ms))
                p99_ms = steps[-1]["arrival_error_ms"]["p99"]
                say(f"{name}, {plan.request_rate:g} requests/s: arrival error p99 {p99_ms:.2f} ms")
                going[name] = going[name] + 1 if p99_ms > LIMIT_MS else 0
                if going[name] == FAILURES:
                    del going[name]
            rate *= RATE_STEP
    streams = [await step(name, client, Plan("closed", concurrency=STREAMS, requests=2 * STREAMS), STREAM_TOKENS, STREAM_GAP_MS)
               for _ in range(repeats) for name, client in clients.items()]
    return {"schema_version": 1, "kind": "client-calibration", "machine": machine(), "limit_ms": LIMIT_MS,
            "tokens": tokens, "gap_ms": gap_ms, "seconds": seconds, "repeats": repeats, "steps": steps, "limits": limits(steps),
            "streams": streams}


async def step(name: str, client: Client, plan: Plan, tokens: int, gap_ms: float) -> dict[str, Any]:
    """One client at one load, against a golden server of its own."""
    async with child("perjoule.bench.load.golden", "--tokens", str(tokens), "--gap-ms", str(gap_ms)) as server:
        seen = await client(server["url"], plan, tokens)
        answered = await asyncio.to_thread(_log_of, server["url"])
    return {"client": name, "rate": plan.request_rate, "concurrency": plan.concurrency} | compared(answered, seen, plan.request_rate)


def compared(answered: Sequence[Mapping[str, Any]], seen: Seen, rate: float | None) -> dict[str, Any]:
    """What the server says against what the client says. Raises FailedError where they do not tell of the same requests and chunks."""
    by_id = {one["request_id"]: one for one in answered}
    if by_id.keys() != seen.requests.keys() or len(answered) != len(by_id):
        raise FailedError(f"the client tells of {len(seen.requests)} requests, the server of {len(answered)}")
    stamps, gaps = [], []
    for request_id, (_, chunk_ns) in seen.requests.items():
        sent_ns = by_id[request_id]["sent_ns"]
        if len(chunk_ns) != len(sent_ns):
            raise FailedError(f"{request_id}: the client tells of {len(chunk_ns)} chunks, the server of {len(sent_ns)}")
        late = [came - went for came, went in zip(chunk_ns, sent_ns, strict=True)]
        stamps += late
        gaps += [abs(b - a) for a, b in pairwise(late)]
    arrivals = sorted(one["arrived_ns"] for one in answered)
    said: dict[str, Any] = {"requests": len(answered), "stamp_error_ms": spread(stamps), "gap_error_ms": spread(gaps),
                            "send_lag_ms": spread(seen.send_lag_ns)}
    if rate is None:
        return said
    late = [one["arrived_ns"] - round(index_of(one["request_id"]) * NS_PER_S / rate) for one in answered]
    achieved = (len(arrivals) - 1) * NS_PER_S / (arrivals[-1] - arrivals[0]) if len(arrivals) > 1 else None
    return said | {"arrival_error_ms": spread([ns - min(late) for ns in late]), "achieved_rate": achieved}


def index_of(request_id: str) -> int:
    """The number at the end of an id."""
    return int(request_id.rpartition("-")[2])


def spread(ns: Sequence[int]) -> dict[str, float] | None:
    """Median, 99th percentile and most in milliseconds, by nearest rank; None of nothing."""
    if not ns:
        return None
    ranked = sorted(ns)
    most = len(ranked) - 1
    return {"p50": ranked[most // 2] / NS_PER_MS, "p99": ranked[min(most, len(ranked) * 99 // 100)] / NS_PER_MS,
            "max": ranked[-1] / NS_PER_MS}


def limits(steps: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """For each client the highest rate at which p99 stayed within the limit in any round; None: at none."""
    return {name: max((one["rate"] for one in steps if one["client"] == name and one["arrival_error_ms"]["p99"] <= LIMIT_MS), default=None)
            for name in dict.fromkeys(one["client"] for one in steps)}


def ours(processes: int) -> Client:
    """This project's client, with so many processes."""
    async def client(url: str, plan: Plan, tokens: int) -> Seen:
        turn = Turn(body={"model": "golden", "prompt": PROMPT, "max_tokens": tokens})
        work = Workload("calibration", "", (turn,), 1)
        going = drive(schedule(work, plan), work, url, AsGiven(), "ours", processes=processes)
        seen, lags = {}, []
        async for sample in going:
            if sample.outcome != "completed" or sample.output_tokens != tokens:
                raise FailedError(f"{sample.request_id}: got {sample.outcome} ({sample.error}) with {sample.output_tokens} tokens, "
                                  f"expected completed with {tokens}")
            seen[sample.request_id] = (sample.sent_ns + going.start_ns, [ns + going.start_ns for ns in sample.chunk_ns])
            lags.append(sample.sent_ns - sample.intended_ns)
        return Seen(seen, lags if plan.mode == "open" else [])
    return client


def _log_of(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/golden/log", timeout=60) as answer:  # noqa: S310 - our own child's
        said: list[dict[str, Any]] = json.load(answer)
    return said


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {"cores": len(os.sched_getaffinity(0)), "machine": platform.machine(), "python": platform.python_version(),
            "load_1min": os.getloadavg()[0]}


async def measure(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """What the flags ask for. Raises FailedError."""
    clients = {f"perjoule, {count} process{'es' * (count > 1)}": ours(count) for count in args.processes}
    async with AsyncExitStack() as stack:
        if args.vllm_python:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            peer = await stack.enter_async_context(vllm_client(args.vllm_python, args.vllm_tokenizer, folder))

            async def theirs(url: str, plan: Plan, tokens: int) -> Seen:
                assert plan.requests is not None
                flags = (["--max-concurrency", str(plan.concurrency)] if plan.concurrency else
                         ["--request-rate", str(plan.request_rate), "--burstiness", "inf"])
                return Seen(await peer.run(url, plan.requests, tokens, flags), [])

            clients["vllm bench serve"] = theirs
        return await calibrate(clients, args.seconds, args.repeats, args.tokens, args.gap_ms, say)


def run(argv: Sequence[str]) -> int:
    """`--calibrate`. Exit code 0; 1 if something failed; 2 for a wrong flag."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], metavar="N", help="of ours, one curve each (default: 1 2)")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of each step (default: 3)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="rounds, of which the best counts for each rate (default: 3)")
    parser.add_argument("--tokens", type=int, default=8, metavar="N", help="of each answer (default: 8)")
    parser.add_argument("--gap-ms", type=float, default=10.0, metavar="MS", help="between them (default: 10)")
    parser.add_argument("--vllm-python", metavar="FILE", help="the Python of an environment with vLLM, whose client is measured as well")
    parser.add_argument("--vllm-tokenizer", metavar="FOLDER", help="any tokenizer, which vLLM's client needs for its prompts")
    parser.add_argument("--json", metavar="FILE|-", help="write everything that was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE", help=f"draw it ({' or '.join(PICTURES)}; needs perjoule[plot])")
    args = parser.parse_args(argv)
    for name, got in {"processes": min(args.processes), "seconds": args.seconds, "repeats": args.repeats, "tokens": args.tokens}.items():
        if not got > 0:
            parser.error(f"--{name}: got {got:g}, expected more than 0")
    if bool(args.vllm_python) != bool(args.vllm_tokenizer):
        parser.error("--vllm-python and --vllm-tokenizer: got one of them, expected both or none")
    if args.plot and args.plot.suffix not in PICTURES:
        parser.error(f"--plot: got {args.plot}, expected a file that ends in {' or '.join(PICTURES)}")
    try:
        found = asyncio.run(measure(args, Console(stderr=True).print))
        if args.plot:
            plot(found, args.plot)
    except (FailedError, OSError, ImportError) as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 1
    if args.json:
        text = json.dumps(found, indent=1) + "\n"
        sys.stdout.write(text) if args.json == "-" else Path(args.json).write_text(text)
    if args.json != "-":
        console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
        for table in tables(found):
            console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
