"""What a second worker adds: perjoule with one worker and with two, each driven as hard as it can be, in turns.

Requests are counted that come through. Frames that come faster than they can be relayed come many at a time, which costs less: so of a
steady load it is counted how many frames the busiest process would carry, going by its CPU time. Each worker has as many connections: of
fewer streams fewer frames come at a time, and of few requests all may wait for the meter at once, while it divides a window. Several
workers are metered by a process beside them, and ledger and spans are kept by two more, which share a core here: one worker has one core,
two have four. Engine and load are several processes each, on cores of their own, so that they are not the limit; the row without a relay
shows it.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from statistics import median
from typing import Any

from rich.console import RenderableType
from rich.progress import Progress
from rich.table import Table

from perjoule.bench.process_tree import each
from perjoule.bench.relay_budgets import LEAST, Budget
from perjoule.bench.relay_machine import Cores, divided, machine, on_cores, whole_cores
from perjoule.bench.relay_peers import Peer, direct, perjoule
from perjoule.bench.relay_report import budget_table
from perjoule.bench.relay_rig import Rig, rig
from perjoule.bench.relay_run import loads
from perjoule.sidecar.units import NS_PER_S

WORKERS = (1, 2)
LEAST_CORES = 8
GOAL = 1.8  # times as much with two workers as with one
ENGINES = 3  # processes of the engine, and of the load
CONNECTIONS = 128  # of each load process, for each worker
REQUESTS, FRAMES = (f"{what}, {ENGINES * CONNECTIONS} connections a worker" for what in ("1 KB requests", "paced streams"))
COUNTED = {REQUESTS: "requests", FRAMES: "frames"}  # by load
LEAST_GAIN = {REQUESTS: 1.5, FRAMES: 1.6}  # what it is held to: of every request the one meter has its part


def cores_for_scaling() -> Cores:
    """Four for the relay, the others for engine and load. Raises ValueError."""
    cpus = whole_cores()
    if len(cpus) < LEAST_CORES:
        raise ValueError(f"--workers-scaling: got {len(cpus)} cores, expected {LEAST_CORES} or more: engine and load must not be the limit")
    return divided(cpus, cores_of(max(WORKERS)))


def cores_of(workers: int) -> int:
    """Those that a relay with so many workers has: one does everything, beside several there is the meter, and what keeps its records."""
    return workers if workers == 1 else workers + 2


async def scaled(cores: Cores, seconds: float, repeats: int, progress: Progress) -> dict[str, Any]:
    """The whole run, as the object that is written. Raises FailedError."""
    before = machine()
    plan = {workers: {REQUESTS: planned["1 KB requests"] | {"connections": workers * CONNECTIONS},
                      FRAMES: planned[f"paced {workers * CONNECTIONS}"]}
            for workers in WORKERS for planned in [loads((workers * CONNECTIONS,), seconds)]}
    async with rig(cores, processes=ENGINES) as it, AsyncExitStack() as stack:
        peers = {"direct": (1, await stack.enter_async_context(direct(it.setting)))}
        for workers in WORKERS:
            folder = it.setting.folder / str(workers)
            folder.mkdir()
            with on_cores(cores.relay[:cores_of(workers)]):
                started = perjoule(replace(it.setting, folder=folder, workers=workers))
                peers[f"workers {workers}"] = workers, await stack.enter_async_context(started)
        task = progress.add_task("", total=repeats * len(COUNTED) * len(peers))
        rows = []
        for number in range(repeats):
            for load in COUNTED:
                for name, (workers, peer) in peers.items():
                    progress.update(task, description=f"{load}, {name}")
                    per_s = await rate(it, peer, COUNTED[load], plan[workers][load])
                    rows.append({"round": number, "load": load, "peer": name, "per_s": per_s})
                    progress.advance(task)
    gains = {load: gain(rows, load) for load in COUNTED}
    budgets = [Budget(f"{load}: two workers over one", LEAST, GOAL, LEAST_GAIN[load]).judged(got) for load, got in gains.items()]
    return {"machine": before, "cores": cores._asdict(), "rows": rows, "budgets": budgets}


async def rate(it: Rig, peer: Peer, counted: str, fields: dict[str, Any]) -> float | None:
    """Requests a second that come through, all load processes together; or frames a second that the busiest process would carry, None
    where there is no relay."""
    before = {} if peer.pid is None else each(peer.pid)
    rows = await asyncio.gather(*(it.put(peer, fields, place) for place in range(len(it.loads))))
    if counted == "requests":
        return float(sum(row["requests"] * NS_PER_S / row["wall_ns"] for row in rows))
    if peer.pid is None:
        return None
    busiest_ns = max(ns - before.get(pid, 0) for pid, ns in each(peer.pid).items())
    return float(len(rows) * fields["connections"] * fields["frames"] * NS_PER_S / busiest_ns)


def gain(rows: list[dict[str, Any]], load: str) -> float:
    """The median over the rounds of what two workers do over what one does."""
    by = {(row["round"], row["peer"]): row["per_s"] for row in rows if row["load"] == load}
    return float(median(by[number, "workers 2"] / by[number, "workers 1"] for number in {number for number, _ in by}))


def scaling_tables(found: dict[str, Any]) -> Iterator[RenderableType]:
    """Each load and what came through, the median of the rounds."""
    table = Table(title="Workers: median of the rounds", title_justify="left")
    for column in ("load", "direct", *(f"workers {workers}" for workers in WORKERS), "two over one"):
        table.add_column(column, justify="left" if column == "load" else "right")
    for load, budget in zip(COUNTED, found["budgets"], strict=True):
        of_peers = [[row["per_s"] for row in found["rows"] if (row["load"], row["peer"]) == (load, peer) and row["per_s"] is not None]
                    for peer in ("direct", *(f"workers {workers}" for workers in WORKERS))]
        table.add_row(f"{load}, {COUNTED[load]}/s", *(f"{median(of):,.0f}" if of else "" for of in of_peers), f"{budget['got']:.2f}×")
    yield table
    yield budget_table(found["budgets"])
