"""`perjoule ledger export`: every record, or a bill as FOCUS rows, for other programs: Parquet, CSV or JSON lines, in bounded memory.

    perjoule ledger export --format parquet --since 2026-07-01 --out july.parquet
    perjoule ledger export --focus --price 0.30 --currency EUR --format csv --out bill.csv
"""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from perjoule.adapters.ledger.database import LedgerError
from perjoule.adapters.ledger.drawn import held
from perjoule.adapters.ledger.queries import Queries
from perjoule.bench.ledger_factors import add_factor_arguments, add_time_arguments, asked_of, period_of
from perjoule.bench.ledger_files import FORMATS, columns_of_records, writer
from perjoule.sidecar.footprint.allocation import bill
from perjoule.sidecar.footprint.focus import COLUMNS, About, rows

EVERY = 1_000  # records between two looks at the progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("--format", choices=FORMATS, required=True, help="parquet needs perjoule[parquet]")
    parser.add_argument("--out", required=True, metavar="FILE|-", help="where to; - is the standard output")
    add_time_arguments(parser)
    parser.add_argument("--focus", action="store_true", help="instead of records: the energy bill as FOCUS rows, by tenant, model and hour")
    parser.add_argument("--account", default="perjoule", metavar="NAME", help="with --focus: BillingAccountId (default: perjoule)")
    parser.add_argument("--provider", default="self-hosted", metavar="NAME",
                        help="with --focus: who sells the energy (default: self-hosted)")
    add_factor_arguments(parser)


def run(asked: argparse.Namespace, ledger: Queries) -> int:
    """Write it. Raises ValueError for what cannot be asked, LedgerError."""
    money = {"--price": asked.price, "--prices": asked.prices, "--currency": asked.currency}
    given = [flag for flag, value in money.items() if value is not None]
    if given and not asked.focus:
        raise ValueError(f"{given[0]}: got it without --focus, which alone makes rows of money")
    columns: Mapping[str, type]
    if asked.focus:
        columns, found, total = COLUMNS, *_focus(asked, ledger)
    else:
        since, until = period_of(asked, ledger)
        columns, total = columns_of_records(), held(ledger.database, since, until)
        found = map(orjson.loads, ledger.walk(since_unix_ns=since, until_unix_ns=until))
    with _out(asked.out) as out, _progress(asked.out, total) as watched, writer(asked.format, out, columns) as write:
        for row in watched(found):
            write(row)
    return 0


def _focus(asked: argparse.Namespace, ledger: Queries) -> tuple[Iterator[dict[str, Any]], int]:
    of = asked_of(asked, ledger)
    if of.factors.price is None or of.factors.currency is None:
        raise ValueError("--focus: a bill needs a price, expected --price or --prices, and --currency")
    by = ["tenant", "model"]
    groups = ledger.grouped(by, interval_s=of.grain_s, since_unix_ns=of.since_unix_ns, until_unix_ns=of.until_unix_ns)
    spread = asked.idle == "spread"
    found = bill(groups, by, of.accounts(ledger), of.factors, of.grain_s, of.since_unix_ns, of.until_unix_ns, spread=spread)
    for text in (*of.notes, *(["the ledger has no account of this time: the bill is what records say, without idle energy"]
                              if found.from_records else [])):
        print(f"perjoule ledger export: note: {text}", file=sys.stderr)
    about = About(of.factors.currency, asked.account, asked.provider, of.since_unix_ns, of.until_unix_ns, asked.pue, spread)
    return rows(found, about), len(found.parts)


@contextmanager
def _out(name: str) -> Iterator[BinaryIO]:
    """The standard output, or a file that is there only once it is whole."""
    if name == "-":
        try:
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # who reads has enough; the interpreter must not try again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    part = Path(name + ".part")
    try:
        with part.open("wb") as out:
            yield out
        part.replace(name)
    except LedgerError:
        raise
    except OSError as error:
        raise ValueError(f"--out: cannot write {name}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _progress(name: str, total: int) -> Iterator[Any]:
    """On standard error, where that is a terminal: how many rows of how many."""
    console = Console(stderr=True)
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
                   disable=not console.is_terminal)
    with bar:
        task = bar.add_task(name if name != "-" else "rows", total=total)

        def watched(found: Iterator[Any]) -> Iterator[Any]:
            number = 0
            for number, row in enumerate(found, 1):
                yield row
                if number % EVERY == 0:
                    bar.update(task, completed=number)
            bar.update(task, completed=number, total=number)

        yield watched
