"""A record as a row of the ledger, and what some rows add to the sums by minute, hour and day."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import import_module
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Table, func, insert

from perjoule.adapters.ledger.tables import COUNTS, DAY_S, GROUPS, HOUR_S, MINUTE_S, SUMS, dropped, kept, records, rollups
from perjoule.sidecar.record import EnergyRecord
from perjoule.sidecar.units import NS_PER_S

Row = dict[str, Any]


def row_of(record: EnergyRecord) -> Row:
    """The columns of `records`."""
    facts, charge = record.facts, record.charge
    return {
        "record_id": facts.record_id, "request_id": _text(facts.request_id), "instance_id": record.instance_id, "sequence": record.sequence,
        "arrival_unix_ns": facts.arrival_unix_ns, "duration_ns": facts.end_ns, "tenant": _text(facts.tenant) or None,
        "model": _text(facts.model) or None, "engine": facts.engine, "endpoint": facts.endpoint, "outcome": str(facts.outcome),
        "http_status": facts.http_status, "input_tokens": facts.input_tokens, "output_tokens": facts.output_tokens,
        "energy_uj": charge.energy_uj, "active_uj": charge.active_uj, "prefill_uj": charge.prefill_uj, "decode_uj": charge.decode_uj,
        "steady_uj": charge.steady_uj, "status": str(charge.status), "method": charge.method, "trace_id": facts.trace_id,
        "record": record.as_text().decode()}


def _text(text: str | None) -> str | None:
    """Without the one character that PostgreSQL does not take; the record's JSON has it, escaped."""
    return text.replace("\0", "\ufffd") if text and "\0" in text else text


def sums_of(rows: Iterable[Row]) -> list[Row]:
    """What these rows add to `rollups`: whole minutes first, from them the hours, from them the days."""
    alike: dict[tuple[Any, ...], list[tuple[int | None, ...]]] = defaultdict(list)
    for row in rows:
        alike[row["arrival_unix_ns"] // _MINUTE_NS, *_names_of(row)].append(_numbers_of(row))
    minutes: dict[tuple[Any, ...], list[tuple[int | None, ...]]] = defaultdict(list)
    for (minute, model, tenant, *names), numbers_of_each in alike.items():
        columns = list(zip(*numbers_of_each, strict=True))
        counts = len(numbers_of_each), len(numbers_of_each) - columns[_ENERGY].count(None)
        minutes[minute, model or "", tenant or "", *names].append((*counts, *map(_sum, columns)))
    found, span_s, of_span = [], MINUTE_S, minutes
    while True:
        sums = {key: numbers[0] if len(numbers) == 1 else tuple(map(_sum, zip(*numbers, strict=True))) for key, numbers in of_span.items()}
        found += [dict(zip(_KEYS, (span_s, key[0] * span_s * NS_PER_S, *key[1:], *numbers), strict=True))
                  for key, numbers in sorted(sums.items())]
        if span_s == DAY_S:
            return found
        coarser_s, of_span = _NEXT_S[span_s], {}
        for (number, *names), numbers in sums.items():
            of_span.setdefault((number * span_s // coarser_s, *names), []).append(numbers)
        span_s = coarser_s


_names_of, _numbers_of = itemgetter(*GROUPS), itemgetter(*SUMS)
_KEYS = ("span_s", "begin_unix_ns", *GROUPS, *COUNTS, *SUMS)
_ENERGY = SUMS.index("energy_uj")
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


def add_records(connection: Connection, rows: list[Row]) -> None:
    """Insert rows of records that are not there yet."""
    _send(connection, rows, insert(records), "records")


def add_sums(connection: Connection, rows: list[Row]) -> None:
    """Add these sums to those that are there."""
    _send(connection, rows, _adding(connection.dialect.name), "rollups")


_texts: dict[tuple[str, str], tuple[str, Callable[[Row], Any] | None]] = {}


def _send(connection: Connection, rows: list[Row], statement: Any, name: str) -> None:
    """Execute for each row. The statement is made to text once, and its rows go to the driver as they are: handed to the library, each
    record would cost half as much again, in a thread that competes with the relay."""
    if not rows:
        return
    key = connection.dialect.name, name
    if key not in _texts:
        compiled = statement.compile(dialect=connection.dialect, column_keys=list(rows[0]))
        _texts[key] = str(compiled), itemgetter(*compiled.positiontup) if compiled.positional else None
    text, in_order = _texts[key]
    connection.exec_driver_sql(text, rows if in_order is None else list(map(in_order, rows)))


def add_dropped(connection: Connection, rows: list[Row]) -> None:
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
def _adding(dialect: str) -> Any:
    statement = _insert(dialect, rollups)
    new: dict[str, Any] = {name: rollups.c[name] + statement.excluded[name] for name in COUNTS}
    for name in SUMS:
        mine, more = rollups.c[name], statement.excluded[name]
        new[name] = func.coalesce(mine + more, mine, more)
    return statement.on_conflict_do_update(index_elements=list(rollups.primary_key.columns), set_=new)


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
