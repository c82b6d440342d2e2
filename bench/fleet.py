"""What a fleet's records ask of who takes them: many writers at once into one ledger and one OTLP receiver, and what each scrape holds.

    python -m perjoule.bench.fleet [--postgres URL] [--writers 1,4,16] [--records 20000] [--out NAME]

Records are synthetic, what takes them is real. Each writer is a process with a connection of its own, as a sidecar is, and all begin at the
same moment. Afterwards it is looked whether every microjoule that was written is there. With --out the result goes to NAME.json and
NAME.md; docs/fleet.md reckons with it. Each number of writers needs an empty PostgreSQL database: `{}` in the URL is that number.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perjoule.bench.fleet_report import report, scrapes
from perjoule.bench.fleet_writers import Receiver, into_ledger, into_receiver, written
from perjoule.bench.relay_machine import machine


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 1 where a microjoule is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", metavar="URL")
    parser.add_argument("--writers", default="1,4,16", metavar="N,…")
    parser.add_argument("--records", type=int, default=20_000, metavar="N", help="of each number of writers, shared among them")
    parser.add_argument("--out", type=Path, metavar="NAME")
    asked = parser.parse_args(argv)
    counts = [int(count) for count in asked.writers.split(",")]
    found: dict[str, Any] = {"machine": machine(), "records": asked.records, "ledgers": [], "otlp": [], "scrapes": scrapes()}
    spawning = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        places = {"SQLite": f"{folder}/{{}}.sqlite3"} | ({"PostgreSQL": asked.postgres} if asked.postgres else {})
        for name, place in places.items():
            for count in counts if name == "PostgreSQL" else [1]:  # a file has one writer
                wrote = written(spawning, into_ledger, place.format(count), count, asked.records)
                found["ledgers"].append({"ledger": name, **wrote.costs, **wrote.checked_in(place.format(count))})
                print(json.dumps(found["ledgers"][-1]), file=sys.stderr)
    for count in counts:
        with Receiver() as receiver:
            wrote = written(spawning, into_receiver, receiver.url, count, asked.records)
            found["otlp"].append({**wrote.costs, **receiver.checked(wrote)})
        print(json.dumps(found["otlp"][-1]), file=sys.stderr)
    text = report(found)
    print(text)
    if asked.out:
        asked.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        asked.out.with_suffix(".md").write_text(text)
    return int(any(not one["conserved"] for one in found["ledgers"] + found["otlp"]))


if __name__ == "__main__":
    sys.exit(main())
