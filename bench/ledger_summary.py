"""`perjoule ledger summary`: requests, tokens and joules, together and for each model, tenant, outcome or interval."""

import argparse
from datetime import UTC, datetime
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

from perjoule.adapters.ledger.queries import Queries
from perjoule.adapters.ledger.tables import GROUPS
from perjoule.bench.columns import Columns
from perjoule.sidecar.admin.queries import KNOWN, Query
from perjoule.sidecar.units import NS_PER_S, joules

SPARE = ("prefill>", "decode>", "J/token>", "tokens in>", "status")
STRETCH = ("since", "until", "model", "tenant")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; they mean what the parameters of GET /energy mean."""
    parser.add_argument("--by", default="model", metavar="NAME,…", help=f"any of {', '.join(GROUPS)} (default: model)")
    parser.add_argument("--interval", metavar="S", help="apart by time of arrival, too, in seconds")
    add_stretch(parser)


def add_stretch(parser: argparse.ArgumentParser) -> None:
    """Which requests, and in which form: flags that several commands have."""
    parser.add_argument("--since", metavar="TIME", help="arrived at or after, as 2026-07-01T12:00:00Z or Unix seconds")
    parser.add_argument("--until", metavar="TIME", help="arrived before")
    parser.add_argument("--model", help="of this model only")
    parser.add_argument("--tenant", help="of this tenant only")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")


def query_of(asked: argparse.Namespace) -> Query:
    """The flags as a question. Raises ValueError."""
    given = {name: getattr(asked, name, None) for name in KNOWN}
    return Query({name: value for name, value in given.items() if value is not None})


def run(asked: argparse.Namespace, ledger: Queries) -> int:
    """Raises ValueError for what is no group or no time, LedgerError."""
    query = query_of(asked)
    [total] = ledger.grouped([], **query.where)
    groups = ledger.grouped(query.by, interval_s=query.interval_s, **query.where)
    extent = ledger.extent()
    if asked.json:
        print(orjson.dumps({"ledger": ledger.database.name, "extent": extent, "total": total, "by": query.by, "groups": groups},
                           option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode())
        return 0
    console = Console(highlight=False)
    oldest, newest = extent["oldest_unix_ns"], extent["newest_unix_ns"]
    kept = "no records" if oldest is None else f"records from {when(oldest)} to {when(newest)}"
    console.print(f"{ledger.database.name}: {extent['bytes'] / 1e6:.1f} MB, {kept}", soft_wrap=True)
    rows = [total, *(groups if query.by or query.interval_s else [])]
    heads = [*(["interval_unix_ns"] if query.interval_s else []), *query.by]
    cells = {head.removesuffix("_unix_ns"): ["all", *(_name(head, row) for row in rows[1:])] for head in heads}
    cells |= {"requests>": [f"{row['requests']:,}" for row in rows],
              "tokens in>": [_count(row["input_tokens"]) for row in rows], "tokens out>": [_count(row["output_tokens"]) for row in rows],
              "joules>": [amount(row["energy_uj"]) for row in rows], "prefill>": [amount(row["prefill_uj"]) for row in rows],
              "decode>": [amount(row["decode_uj"]) for row in rows], "J/token>": [_each(row) for row in rows],
              "status": [", ".join(row["statuses"]) for row in rows]}
    console.print(Columns({head: [Text(cell) for cell in column] for head, column in cells.items()}, SPARE))
    if "simulated" in total["statuses"]:
        console.print("Simulated joules are among these: no sensor stands behind them.")
    return 0


def when(unix_ns: int) -> str:
    """A time for people, in UTC."""
    return f"{datetime.fromtimestamp(unix_ns // NS_PER_S, UTC):%Y-%m-%d %H:%M:%S}Z"


def amount(uj: int | None) -> str:
    """Joules for people; what is not known is a dash."""
    return "–" if uj is None else f"{joules(uj):,.3f}"


def _name(head: str, row: dict[str, Any]) -> str:
    if head == "interval_unix_ns":
        return when(row[head])
    return "–" if row[head] is None else str(row[head])


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _each(row: dict[str, Any]) -> str:
    """Joules for each output token, where all requests of the group have both."""
    known = row["energy_uj"] is not None and row["output_tokens"] and row["with_energy"] == row["requests"]
    return f"{joules(row['energy_uj']) / row['output_tokens']:.4g}" if known else "–"
