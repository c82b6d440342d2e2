"""How rows are written, and what some rows of records add to the sums by minute, hour and day."""

from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from itertools import chain
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Table, func, insert

from perjoule.adapters.ledger.tables import COUNTS, DAY_S, GROUPS, HOUR_S, MINUTE_S, SUMS, dropped, kept, records, rollups
from perjoule.sidecar.records.row import COLUMNS, Row
from perjoule.sidecar.units import NS_PER_S

TOGETHER = 16  # records in one INSERT of SQLite, which opens all indexes anew and looks for the last position for each
OR_ROLLBACK = "OR ROLLBACK"  # what fails takes all back, so that SQLite need not keep a copy of each page that such an INSERT changes


def sums_of(rows: Iterable[Row]) -> list[Row]:
    """What these rows of `records` add to `rollups`, as rows of it: whole minutes first, from them the hours, from them the days."""
    alike: dict[Row, list[Row]] = defaultdict(list)
    for row in rows:
        alike[row[_ARRIVAL] // _MINUTE_NS, *_names_of(row)].append(_numbers_of(row))
    minutes: dict[Row, list[Row]] = defaultdict(list)
    for (minute, model, tenant, *names), numbers_of_each in alike.items():
        columns = list(zip(*numbers_of_each, strict=True))
        counts = len(numbers_of_each), len(numbers_of_each) - columns[_ENERGY].count(None)
        minutes[minute, model or "", tenant or "", *names].append((*counts, *map(_sum, columns)))
    found, span_s, of_span = [], MINUTE_S, minutes
    while True:
        sums = {key: numbers[0] if len(numbers) == 1 else tuple(map(_sum, zip(*numbers, strict=True))) for key, numbers in of_span.items()}
        found += [(span_s, key[0] * span_s * NS_PER_S, *key[1:], *numbers) for key, numbers in sorted(sums.items())]
        if span_s == DAY_S:
            return found
        coarser_s, of_span = _NEXT_S[span_s], {}
        for (number, *names), numbers in sums.items():
            of_span.setdefault((number * span_s // coarser_s, *names), []).append(numbers)
        span_s = coarser_s


_names_of, _numbers_of = (itemgetter(*map(COLUMNS.index, names)) for names in (GROUPS, SUMS))
_ARRIVAL, _ENERGY = COLUMNS.index("arrival_unix_ns"), SUMS.index("energy_uj")
_MINUTE_NS = MINUTE_S * NS_PER_S
_NEXT_S = {MINUTE_S: HOUR_S, HOUR_S: DAY_S}


def _sum(numbers: tuple[int | None, ...]) -> int | None:
    """The sum of what is known, None if nothing is."""
    try:
        return sum(numbers)  # type: ignore[arg-type]  # mostly all of them are known, and to look takes longer than to add
    except TypeError:
        known = [number for number in numbers if number is not None]
        return sum(known) if known else None


def added(a: int | None, b: int | None) -> int | None:
    """The sum of what is known, None if nothing is."""
    return b if a is None else a if b is None else a + b


# The two that follow give the driver text and rows as they are: handed to the library, each record would cost half as much again, in a
# thread that competes with the relay.

def add_records(connection: Connection, rows: list[Row]) -> None:
    """Insert rows of records that are not there yet."""
    dialect: Any = type(connection.dialect)
    single = len(rows) % TOGETHER if dialect.name == "sqlite" else len(rows)
    if together := [tuple(chain.from_iterable(rows[first:first + TOGETHER])) for first in range(0, len(rows) - single, TOGETHER)]:
        connection.exec_driver_sql(_inserting(dialect, TOGETHER), together)
    if single:
        connection.exec_driver_sql(_inserting(dialect, 1), rows[-single:])


def add_sums(connection: Connection, rows: list[Row]) -> None:
    """Add these sums to those that are there."""
    dialect: Any = type(connection.dialect)
    connection.exec_driver_sql(_adding(dialect), rows)


def add_dropped(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Remember what retention has dropped of some runs."""
    if rows:
        connection.execute(_dropping(connection.dialect.name), rows)


def set_kept(connection: Connection, span_s: int, since_unix_ns: int) -> None:
    """From then on, that span is whole (0: records); it never becomes whole again before."""
    statement = _insert(connection.dialect.name, kept)
    connection.execute(statement.on_conflict_do_update(
        index_elements=[kept.c.span_s], set_={"since_unix_ns": statement.excluded.since_unix_ns},
        where=statement.excluded.since_unix_ns > kept.c.since_unix_ns), {"span_s": span_s, "since_unix_ns": since_unix_ns})


@lru_cache
def _inserting(dialect: Any, count: int) -> str:
    statement = insert(records).inline().prefix_with(OR_ROLLBACK, dialect="sqlite").values([dict.fromkeys(COLUMNS)] * count)
    return _text_of(statement, dialect)


@lru_cache
def _adding(dialect: Any) -> str:
    statement = _insert(dialect.name, rollups)
    new: dict[str, Any] = {name: rollups.c[name] + statement.excluded[name] for name in COUNTS}
    for name in SUMS:
        mine, more = rollups.c[name], statement.excluded[name]
        new[name] = func.coalesce(mine + more, mine, more)
    return _text_of(statement.on_conflict_do_update(index_elements=list(rollups.primary_key.columns), set_=new), dialect)


def _text_of(statement: Any, kind: Any) -> str:
    """A statement whose values are told by their place."""
    dialect = kind()
    return str(statement.compile(dialect=dialect if dialect.positional else kind(paramstyle="format")))


@lru_cache
def _dropping(dialect: str) -> Any:
    statement = _insert(dialect, dropped)
    least, most = ("min", "max") if dialect == "sqlite" else ("least", "greatest")
    mine, more = dropped.c, statement.excluded
    return statement.on_conflict_do_update(index_elements=[mine.instance_id], set_={
        "records": mine.records + more.records, "energy_uj": mine.energy_uj + more.energy_uj,
        "first_sequence": getattr(func, least)(mine.first_sequence, more.first_sequence),
        "last_sequence": getattr(func, most)(mine.last_sequence, more.last_sequence)})


def _insert(dialect: str, table: Table) -> Any:
    """The INSERT of that database, which knows ON CONFLICT; the other one's module stays unloaded."""
    return import_module(f"sqlalchemy.dialects.{dialect}").insert(table)
