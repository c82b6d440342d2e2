"""Questions to the ledger: one record, the latest, groups, and all of them, while records are written."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Table, func, select

from perjoule.adapters.ledger.database import Database
from perjoule.adapters.ledger.rows import added
from perjoule.adapters.ledger.tables import COUNTS, GROUPS, SUMS, balances, kept, records, rollups
from perjoule.adapters.ledger.tiers import RECORDS, Piece, pieces
from perjoule.sidecar.record import Balance, Status
from perjoule.sidecar.units import NS_PER_S

PAGE = 500  # records read at a time by who walks through all
BALANCE = [balances.c[name] for name in Balance.__dataclass_fields__]


class Queries:
    """Answers from any thread. Times are of arrival; all raise LedgerError (an OSError) while the ledger cannot be read.

    `model=""` or `tenant=""` asks for the requests without one.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, any_id: str) -> dict[str, Any] | None:
        """The record of that record id, else the latest of that request id, else None."""
        any_id = any_id.replace("\0", "\ufffd")
        with self.database.reading() as connection:
            found = connection.scalar(select(records.c.record).where(records.c.record_id == any_id))
            found = found or connection.scalar(select(records.c.record).where(records.c.request_id == any_id)
                                               .order_by(*_newest_first()).limit(1))
        return orjson.loads(found) if found else None

    def latest(self, limit: int, *, model: str | None = None, tenant: str | None = None, since_unix_ns: int | None = None,
               until_unix_ns: int | None = None) -> list[dict[str, Any]]:
        """The newest records that arrived in [since, until), newest first."""
        wanted = select(records.c.record).where(*_of(records, model, tenant), *_within(since_unix_ns, until_unix_ns))
        with self.database.reading() as connection:
            return [orjson.loads(text) for text in connection.scalars(wanted.order_by(*_newest_first()).limit(limit))]

    def walk(self, *, model: str | None = None, tenant: str | None = None, since_unix_ns: int | None = None,
             until_unix_ns: int | None = None) -> Iterator[str]:
        """The JSON text of every record that arrived in [since, until), oldest first, a few at a time, all of one moment."""
        wanted = select(records.c.record).where(*_of(records, model, tenant), *_within(since_unix_ns, until_unix_ns))
        with self.database.reading() as connection:
            yield from connection.execution_options(yield_per=PAGE).scalars(wanted.order_by(records.c.arrival_unix_ns, records.c.position))

    def after(self, position: int, limit: int) -> list[tuple[int, str]]:
        """The next records behind that position as (position, JSON text), in the order in which they were stored."""
        wanted = select(records.c.position, records.c.record).where(records.c.position > position).order_by(records.c.position)
        with self.database.reading() as connection:
            return [(row.position, row.record) for row in connection.execute(wanted.limit(limit))]

    def balances(self, *, since_unix_ns: int | None = None, until_unix_ns: int | None = None) -> list[Balance]:
        """The accounts that were kept in [since, until), run by run, oldest first."""
        within = _between(balances.c.unix_ns, *_bounds(since_unix_ns, until_unix_ns))
        with self.database.reading() as connection:
            found = connection.execute(select(*BALANCE).where(*within).order_by(balances.c.instance_id, balances.c.unix_ns))
            return [balance_of(row._mapping) for row in found]

    def extent(self) -> dict[str, Any]:
        """How much there is: bytes, the oldest and the newest arrival, and from when on each span is whole (0: records)."""
        ends = select(func.min(records.c.arrival_unix_ns), func.max(records.c.arrival_unix_ns))
        with self.database.reading() as connection:
            oldest, newest = connection.execute(ends).one()
            return {"bytes": self.database.used_bytes(connection), "oldest_unix_ns": oldest, "newest_unix_ns": newest,
                    "whole_since_unix_ns": {row.span_s: row.since_unix_ns for row in connection.execute(select(kept))}}

    def grouped(self, by: Sequence[str], *, interval_s: int | None = None, model: str | None = None, tenant: str | None = None,
                since_unix_ns: int | None = None, until_unix_ns: int | None = None) -> list[dict[str, Any]]:
        """Counts, tokens and microjoules of the requests that arrived in [since, until), for each group of `by`.

        `by` is any of GROUPS (else ValueError); with `interval_s` each group is also cut by time of arrival. A sum is over the requests
        that have the number (`with_energy` counts those with energy), None where none has; `statuses` says what kinds of joules are in
        it. The answer is that of adding up the records, and is made of sums of days, hours and minutes where they do (`tiers`).
        """
        for name in by:
            if name not in GROUPS:
                raise ValueError(f"by: got {name!r}, expected some of {', '.join(GROUPS)}")
        keys = [*(["interval_unix_ns"] if interval_s is not None else []), *by]
        groups: dict[tuple[Any, ...], dict[str, Any]] = {} if keys else {(): _nothing()}
        with self.database.reading() as connection:
            since_by_span = {row.span_s: row.since_unix_ns for row in connection.execute(select(kept))}
            for piece in pieces(since_unix_ns, until_unix_ns, interval_s, since_by_span):
                for row in _sums(connection, piece, by, interval_s, model, tenant):
                    key = tuple(row[name] for name in keys)
                    _add(groups.setdefault(key, _nothing()), row)
        ordered = sorted(groups, key=lambda key: [(part is not None, part) for part in key])
        return [{**dict(zip(keys, key, strict=True)), **groups[key], "statuses": sorted(groups[key]["statuses"])} for key in ordered]


def balance_of(row: Any) -> Balance:
    """A row of `balances`."""
    return Balance(**{**row, "status": Status(row["status"])})


def _sums(connection: Connection, piece: Piece, by: Sequence[str], interval_s: int | None, model: str | None,
          tenant: str | None) -> Iterator[dict[str, Any]]:
    """The sums of one piece, apart by status and whatever is asked for."""
    of: Table
    counts: list[ColumnElement[int]]
    if piece.span_s == RECORDS:
        of, begin, where = records, records.c.arrival_unix_ns, []
        counts = [func.count(), func.count(records.c.energy_uj)]
    else:
        of, begin, where = rollups, rollups.c.begin_unix_ns, [rollups.c.span_s == piece.span_s]
        counts = [func.sum(rollups.c[name]) for name in COUNTS]
    names = [func.coalesce(of.c[name], "").label(name) for name in dict.fromkeys((*by, "status"))]
    if interval_s is not None:
        names.append((begin - begin % (interval_s * NS_PER_S)).label("interval_unix_ns"))
    sums = [number.label(name) for name, number in zip((*COUNTS, *SUMS), (*counts, *(func.sum(of.c[name]) for name in SUMS)), strict=True)]
    found = connection.execute(select(*names, *sums).where(*where, *_of(of, model, tenant), *_between(begin, piece.begin, piece.end))
                               .group_by(*names))
    for row in found:
        numbers = {name: None if row._mapping[name] is None else int(row._mapping[name]) for name in (*COUNTS, *SUMS)}
        yield {name.name: row._mapping[name.name] or None for name in names} | numbers


def _nothing() -> dict[str, Any]:
    return {**dict.fromkeys(COUNTS, 0), **dict.fromkeys(SUMS), "statuses": set()}


def _add(group: dict[str, Any], row: dict[str, Any]) -> None:
    for name in (*COUNTS, *SUMS):
        group[name] = added(group[name], row[name])
    group["statuses"].add(row["status"])


def _of(of: Table, model: str | None, tenant: str | None) -> list[ColumnElement[bool]]:
    asked = {of.c.model: model, of.c.tenant: tenant}
    return [name.is_(None) if value == "" and of is records else name == value for name, value in asked.items() if value is not None]


def _within(since_unix_ns: int | None, until_unix_ns: int | None) -> list[ColumnElement[bool]]:
    return _between(records.c.arrival_unix_ns, *_bounds(since_unix_ns, until_unix_ns))


def _bounds(since_unix_ns: int | None, until_unix_ns: int | None) -> tuple[int | float, int | float]:
    return -math.inf if since_unix_ns is None else since_unix_ns, math.inf if until_unix_ns is None else until_unix_ns


def _between(time: ColumnElement[int], begin: int | float, end: int | float) -> list[ColumnElement[bool]]:
    return [*([time >= begin] if not math.isinf(begin) else []), *([time < end] if not math.isinf(end) else [])]


def _newest_first() -> tuple[ColumnElement[int], ...]:
    return records.c.arrival_unix_ns.desc(), records.c.position.desc()
