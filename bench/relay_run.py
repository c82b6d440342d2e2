"""A run of bench/relay.py: memory first, then every load on every relay, in rounds."""

import os
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from rich.progress import Progress

from perjoule.bench.process_tree import memory
from perjoule.bench.relay_budgets import budgets
from perjoule.bench.relay_load import RAMP_S, quiet
from perjoule.bench.relay_machine import machine
from perjoule.bench.relay_peers import Peer, kept_by
from perjoule.bench.relay_report import summary
from perjoule.bench.relay_rig import Rig, relays, rig

GAP_MS = 20
MARGIN_S = 0.8  # streams go on for so much longer than until the last one has begun, and all are measured
HELD = {"connections": 512, "frames": 60, "gap_ms": 1000, "seconds": 1.0, "to_the_end": False}  # under which memory is looked at


def loads(streams: Sequence[int], seconds: float) -> dict[str, dict[str, Any]]:
    """What each load's Job has, by the load's name."""
    def frames(n: int) -> int:
        """So many that the first stream still runs when the last one has been measured."""
        return round((n * RAMP_S + seconds + MARGIN_S) * 1000 / GAP_MS)

    return {name: fields | {"seconds": seconds} for name, fields in {
        **{f"paced {n}": {"connections": n, "frames": frames(n), "gap_ms": GAP_MS} for n in streams},
        "flooded": {"connections": 8, "frames": 200},
        "1 KB requests": {"connections": 32},
        "one at a time": {"connections": 1},
        "1 MB requests": {"connections": 4, "body_bytes": 1_000_000},
        "1 MB answers": {"connections": 4, "answer_bytes": 1_000_000},
    }.items()}


async def measure(args: Namespace, progress: Progress) -> dict[str, Any]:
    """The whole run with the flags of `perjoule bench relay`, as the object that is written. Raises FailedError."""
    began_s, before = time.monotonic(), machine()
    plan = loads(args.streams, args.seconds)
    task = progress.add_task("starting", total=len(args.peers) * (1 + len(plan) * args.repeats))
    async with rig(args.cores, args.nginx, args.litellm_python, args.workers) as it, relays(it, args.peers, args.cores.relay):
        held: dict[str, dict[str, Any]] = {}
        rows: list[dict[str, Any]] = []
        for peer in it.peers:
            if peer.pid is not None:
                progress.update(task, description=f"memory, {peer.name}")
                held[peer.name] = await at_rest_and_held(it, peer)
            progress.advance(task)
        for number in range(args.repeats):
            for name, fields in plan.items():
                turn = number % len(it.peers)
                for peer in it.peers[turn:] + it.peers[:turn]:
                    progress.update(task, description=f"{name}, {peer.name}")
                    rows.append({"round": number, "load": name, "peer": peer.name} | await it.put(peer, fields))
                    progress.advance(task)
        for peer in it.peers:
            if peer.pid is not None:
                held[peer.name] |= {f"after_{key}_bytes": value for key, value in memory(peer.pid)._asdict().items()}
        metered = [await kept_by(peer, it.spans_url, sent(rows, peer)) for peer in it.peers if peer.admin is not None]
        found: dict[str, Any] = {"peers": {peer.name: peer.about for peer in it.peers}, "missing": it.missing}
    found |= {"seconds": round(time.monotonic() - began_s, 1), "machine": before | {"load_average_after": os.getloadavg()},
              "cores": args.cores._asdict(), "metered": metered, "memory": held, "rows": rows}
    return found | {"summary": summary(found), "budgets": budgets(found)}


def sent(rows: Sequence[dict[str, Any]], peer: Peer) -> int:
    """How many requests a relay has got, whatever became of them."""
    each: list[int] = [row["requests"] + row["failed"] + row["stalled"] for row in rows if row["peer"] == peer.name]
    return int(HELD["connections"]) + sum(each)


async def at_rest_and_held(it: Rig, peer: Peer) -> dict[str, Any]:
    """A relay's memory before it has done anything, and with many streams open."""
    assert peer.pid is not None
    await quiet(peer.pid)
    idle = memory(peer.pid)
    under = await it.put(peer, HELD)
    return {"idle_rss_bytes": idle.rss, "idle_pss_bytes": idle.pss, "held_streams": under["begun"],
            "held_rss_bytes": under["rss_bytes"], "held_pss_bytes": under["pss_bytes"]}
