"""What the ledger costs: records written in a second, questions to a day of a million records, and what clients of the relay notice.

    python -m perjoule.bench.ledger_bench [--records 1000000] [--postgres URL] [--seconds 5] [--out NAME]

Rates and ratios are of one run on one machine; with --out they go to NAME.json and NAME.md. PostgreSQL needs an empty database.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import uvloop
from sqlalchemy import func, select

from perjoule.adapters.ledger.store import Ledger, Retention
from perjoule.adapters.ledger.tables import DAY_S, HOUR_S, records
from perjoule.bench.child import child
from perjoule.bench.relay_load import Job, closed
from perjoule.bench.relay_machine import machine
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status
from perjoule.sidecar.relay.ids import record_id
from perjoule.sidecar.units import NS_PER_S

BATCH = 512  # of an outbox
MODELS, TENANTS = 5, 20
ASKED = 20  # times each question
ROUNDS = 8  # of the relay without and with a ledger, in turn
LOADS: dict[str, tuple[dict[str, Any], str]] = {  # of the relay, and which of its times tells what a client notices
    "answers, one after the other": ({"connections": 1}, "answer_ms"),
    "64 streams at a time, of 25 tokens, 20 ms apart": ({"connections": 64, "frames": 25, "gap_ms": 20}, "way_ms"),
}
WRITES_S, ANSWER_MS = 5_000, 200.0  # what it must reach


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 1 where a budget is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--postgres", metavar="URL", help="an empty database; without it, SQLite alone")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="of each round of the relay; 0: leave it out")
    parser.add_argument("--out", type=Path, metavar="NAME")
    asked = parser.parse_args(argv)
    found: dict[str, Any] = {"machine": machine(), "records": asked.records, "ledgers": {}}
    with tempfile.TemporaryDirectory() as folder:
        places = {"SQLite": f"{folder}/ledger.sqlite3"} | ({"PostgreSQL": asked.postgres} if asked.postgres else {})
        for name, where in places.items():
            found["ledgers"][name] = ledger_costs(where, asked.records)
            print(f"{name}: {json.dumps(found['ledgers'][name])}", file=sys.stderr)
    if asked.seconds:
        found["relay"] = uvloop.run(relay_costs(asked.seconds))
    text = report(found)
    print(text)
    if asked.out:
        asked.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        asked.out.with_suffix(".md").write_text(text)
    return int(any(of["records_per_second"] < WRITES_S or of["groups_ms"] > ANSWER_MS for of in found["ledgers"].values()))


def day(count: int) -> Iterator[EnergyRecord]:
    """That many requests, evenly over one day."""
    chance, begin = random.Random(1), time.time_ns() // (DAY_S * NS_PER_S) * DAY_S * NS_PER_S - DAY_S * NS_PER_S
    for number in range(count):
        uj = chance.randrange(1_000_000, 900_000_000)
        facts = RequestFacts(
            record_id(), record_id(), begin + number * DAY_S * NS_PER_S // count, chance.randrange(NS_PER_S, 60 * NS_PER_S),
            Outcome.COMPLETED, "chat.completions", "vllm", True, 200, model=f"model-{chance.randrange(MODELS)}",
            tenant=f"tenant-{chance.randrange(TENANTS)}", trace_id=record_id(),
            input_tokens=chance.randrange(10, 8_000), output_tokens=chance.randrange(1, 2_000))
        yield EnergyRecord(facts, Charge(Status.MEASURED, "step-model", "nvml", True, "gpu-board", ("GPU-1",), uj, uj * 4 // 5, uj // 5,
                                         uj - uj // 5, uj // 2, NS_PER_S, uj // 50, "fitted-1", 12, 8.5), "bench", number + 1)


def ledger_costs(where: str, count: int) -> dict[str, Any]:
    """Write a day of records, then ask about it."""
    ledger = Ledger(where, Retention(36_500, 10_000_000))
    made, writing_s, rates = day(count), 0.0, []
    while batch := list(islice(made, BATCH)):
        began = time.perf_counter()
        ledger.put(batch)
        took = time.perf_counter() - began
        writing_s += took
        rates.append(len(batch) / took)
    begin = next(iter(ledger.grouped([], interval_s=DAY_S)))["interval_unix_ns"]
    that_day = {"since_unix_ns": begin, "until_unix_ns": begin + DAY_S * NS_PER_S}
    ragged = {"since_unix_ns": begin + 12_345_678_901_234, "until_unix_ns": begin + 76_543_210_987_654}
    known = ledger.latest(1)[0]["record_id"]
    slowest_tenth = statistics.quantiles(rates, n=10, method="inclusive")[0]
    costs = {"records_per_second": round(count / writing_s), "slowest_tenth_per_second": round(slowest_tenth),
             "bytes_per_record": round(ledger.extent()["bytes"] / count),
             "groups_ms": _median_ms(lambda: ledger.grouped(["model"], interval_s=HOUR_S, **that_day)),
             "ragged_groups_ms": _median_ms(lambda: ledger.grouped(["model"], interval_s=HOUR_S, **ragged)),
             "tenant_minutes_ms": _median_ms(lambda: ledger.grouped([], interval_s=60, tenant="tenant-7", **that_day)),
             "latest_100_ms": _median_ms(lambda: ledger.latest(100)), "get_ms": _median_ms(lambda: ledger.get(known)),
             "groups_from_records_ms": _median_ms(lambda: _from_records(ledger), 3)}
    ledger.close()
    return costs


def _from_records(ledger: Ledger) -> None:
    """The same sums as `groups_ms`, from the records one by one: what it would cost without sums of sums."""
    hour = records.c.arrival_unix_ns - records.c.arrival_unix_ns % (HOUR_S * NS_PER_S)
    with ledger.database.reading() as connection:
        connection.execute(select(hour, records.c.model, func.count(), func.sum(records.c.energy_uj), func.sum(records.c.output_tokens))
                           .group_by(hour, records.c.model)).all()


def _median_ms(ask: Callable[[], Any], times: int = ASKED) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(taken), 3)


async def relay_costs(seconds: float) -> list[dict[str, Any]]:
    """One sidecar without a ledger and one with, in front of the same engine, driven in turn."""
    rows = []
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        engine = await stack.enter_async_context(child("perjoule.bench.relay_upstream"))
        flags = ("--upstream", engine["url"], "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--energy", "simulated",
                 "--calibrations", "off")
        sidecars = {name: await stack.enter_async_context(child("perjoule.main", "serve", *flags, "--ledger", where))
                    for name, where in (("off", "off"), ("on", f"{folder}/ledger.sqlite3"))}
        for number in range(ROUNDS + 1):
            for load, (fields, timed) in LOADS.items():
                for name in ("off", "on") if number % 2 else ("on", "off"):
                    said = sidecars[name]
                    found = await closed(Job(int(said["listen"].rpartition(":")[2]), said["pid"], engine["pid"], seconds=seconds, **fields))
                    if number:  # the first round warms up
                        p50_ms, p99_ms = getattr(found, timed)
                        rows.append({"load": load, "ledger": name, "p50_ms": p50_ms, "p99_ms": p99_ms, "failed": found.failed,
                                     "requests_per_second": found.requests / found.wall_ns * NS_PER_S,
                                     "rss_mb": None if found.rss_bytes is None else found.rss_bytes / 1e6})
                    await asyncio.sleep(0.5)
    return rows


def report(found: dict[str, Any]) -> str:
    """All of it, as Markdown."""
    about = found["machine"]
    lines = [f"# The ledger: {found['records']:,} records of one day", "",
             (f"`python -m perjoule.bench.ledger_bench` on {about['cpus']} × {about['cpu']}, Python {about['python']}, load average"
              f" {about['load_average'][0]:.1f} at the start."), "",
             "| | " + " | ".join(found["ledgers"]) + " |", "|---|" + "---:|" * len(found["ledgers"])]
    names = {"records_per_second": f"records written in a second, batches of {BATCH} (must be ≥ {WRITES_S:,})",
             "slowest_tenth_per_second": "the same, slowest tenth of the batches",
             "bytes_per_record": "bytes for each, with indexes and sums",
             "groups_ms": f"sums by hour × model of the day, ms (must be < {ANSWER_MS:.0f})",
             "ragged_groups_ms": "the same between two odd instants, ms",
             "tenant_minutes_ms": "one tenant by minute, ms", "latest_100_ms": "the latest 100 records, ms",
             "get_ms": "one record by its id, ms",
             "groups_from_records_ms": "sums by hour × model from the records themselves, ms"}
    lines += [f"| {text} | " + " | ".join(f"{of[name]:,}" for of in found["ledgers"].values()) + " |" for name, text in names.items()]
    if "relay" in found:
        lines += ["", f"The relay without and with a ledger in turn, medians of {ROUNDS} rounds:", "", "| | without | with | ratio |",
                  "|---|---:|---:|---:|"]
    for load in dict.fromkeys(row["load"] for row in found.get("relay", [])):
        rows = [row for row in found["relay"] if row["load"] == load]
        for name in ("p50_ms", "p99_ms", "requests_per_second", "rss_mb"):
            off, on = (statistics.median(row[name] for row in rows if row["ledger"] == which) for which in ("off", "on"))
            lines.append(f"| {load}: {name} | {off:,.3f} | {on:,.3f} | {on / off:.3f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
