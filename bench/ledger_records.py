"""`perjoule ledger records`: the latest records, or one of them whole."""

import argparse
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

from perjoule.adapters.ledger.queries import Queries
from perjoule.bench.columns import Columns
from perjoule.bench.ledger_summary import add_stretch, amount, query_of, when

SPARE = ("tenant", "tokens in>", "status", "model")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags; they mean what the parameters of GET /energy mean."""
    parser.add_argument("id", nargs="?", metavar="ID", help="of a record or a request; without it, the latest are shown")
    parser.add_argument("--limit", metavar="N", help="how many (default: 100)")
    add_stretch(parser)


def run(asked: argparse.Namespace, ledger: Queries) -> int:
    """Raises ValueError for an id that is not there, or no time; LedgerError."""
    if asked.id is not None:
        found = ledger.get(asked.id)
        if found is None:
            raise ValueError(f"got {asked.id!r}, expected the id of a kept record or request")
        _show(found, asked.json)
        return 0
    query = query_of(asked)
    records = ledger.latest(query.limit, **query.where)
    if asked.json:
        print(orjson.dumps({"records": records}, option=orjson.OPT_INDENT_2).decode())
        return 0
    if not records:
        print("No such records.")
        return 0
    columns = {"arrival": [when(record["arrival_unix_ns"]) for record in records], "record": [record["record_id"] for record in records],
               "model": [_text(record["model"]) for record in records], "tenant": [_text(record["tenant"]) for record in records],
               "outcome": [record["outcome"] for record in records], "tokens in>": [_text(record["input_tokens"]) for record in records],
               "tokens out>": [_text(record["output_tokens"]) for record in records],
               "joules>": [amount(record["energy_uj"]) for record in records], "status": [record["status"] for record in records]}
    Console(highlight=False).print(Columns({head: [Text(cell) for cell in column] for head, column in columns.items()}, SPARE))
    return 0


def _show(record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(orjson.dumps(record, option=orjson.OPT_INDENT_2).decode())
        return
    for name, value in record.items():
        print(f"{name:32} {_text(value)}")


def _text(value: Any) -> str:
    return "–" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
