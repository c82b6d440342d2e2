"""What one sidecar's scrape holds, and the fleet's table."""

from dataclasses import replace
from typing import Any

from perjoule.adapters.prometheus import render
from perjoule.bench.ledger_bench import day
from perjoule.sidecar.records.tally import Tally

SHAPES = ((1, 1), (1, 20), (5, 20), (50, 200))  # models and tenants of one sidecar


def scrapes() -> list[dict[str, int]]:
    """How many series the records of a sidecar make, and how long the text is."""
    rows = []
    for models, tenants in SHAPES:
        tally = Tally()
        for number, record in enumerate(day(max(4 * models, 4 * tenants))):
            record.facts = replace(record.facts, model=f"model-{number % models}", tenant=f"tenant-{number % tenants}")
            tally.add(record)
        text = render(tally.shown(), "text/plain")[0]
        rows.append({"models": models, "tenants": tenants, "series": sum(not line.startswith(b"#") for line in text.splitlines()),
                     "bytes": len(text)})
    return rows


def report(found: dict[str, Any]) -> str:
    """As Markdown."""
    machine = found["machine"]
    lines = [f"# A fleet's records: {found['records']:,} by each number of writers", "",
             (f"`python -m perjoule.bench.fleet` on {machine['cpus']} × {machine['cpu']}, Python {machine['python']}, load average "
             f"{machine['load_average'][0]:.1f} at the start; writers, PostgreSQL and the receiver share these processors."), "",
             "| into | writers | records/s | writers' CPU µs a record | bytes a record | batches tried again | every microjoule there |",
             "|---|---:|---:|---:|---:|---:|---|"]
    lines += [_row(one.get("ledger", "OTLP"), one) for one in found["ledgers"] + found["otlp"]]
    lines += ["", "What requests put into one scrape of one sidecar:", "", "| models | tenants | series | bytes |", "|---:|---:|---:|---:|"]
    lines += [f"| {one['models']} | {one['tenants']} | {one['series']:,} | {one['bytes']:,} |" for one in found["scrapes"]]
    return "\n".join(lines) + "\n"


def _row(name: str, one: dict[str, Any]) -> str:
    return (f"| {name} | {one['writers']} | {one['records_per_second']:,} | {one['cpu_us_per_record']} | {one['bytes_per_record']:,} | "
            f"{one['tried_again']} | "
            f"{'yes' if one['conserved'] else 'NO'} |")
