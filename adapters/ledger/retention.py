"""What is dropped when: records by age and size, the sums of minutes and hours later, those of days never.

A sum goes only after the next coarser one has it, as it does from the moment that the record is stored. Each step is a transaction of a
few milliseconds, so that other writers hardly wait. What was dropped of a run is remembered: it is not lost.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, select

from perjoule.adapters.ledger.database import Database
from perjoule.adapters.ledger.rows import add_dropped, set_kept
from perjoule.adapters.ledger.tables import DAY_S, HOUR_S, MINUTE_S, balances, records, rollups
from perjoule.adapters.ledger.tiers import RECORDS
from perjoule.sidecar.units import NS_PER_S

STEP_ROWS = 500  # deleted in one transaction
NEXT_S = {RECORDS: MINUTE_S, MINUTE_S: HOUR_S, HOUR_S: DAY_S}  # the span that has what is dropped of another


@dataclass(frozen=True, slots=True)
class Retention:
    """Records older than `days` go, and the oldest beyond `megabytes`; sums of minutes after `minute_days`, of hours after `hour_days`."""

    days: int = 30
    megabytes: int = 1024
    minute_days: int = 7
    hour_days: int = 400

    def drop_old(self, database: Database, now_unix_ns: int) -> None:
        """What is too old. Of the accounts, after `minute_days`, the first of each run and the last of each hour stay."""
        for span_s, days in ((RECORDS, self.days), (MINUTE_S, self.minute_days), (HOUR_S, self.hour_days)):
            since = _down(now_unix_ns - days * DAY_S * NS_PER_S, NEXT_S[span_s])
            while _drop(database, span_s, since) == STEP_ROWS:
                pass
        with database.writing() as connection:
            connection.execute(delete(balances).where(_is_not_last_of_its_hour(now_unix_ns - self.minute_days * DAY_S * NS_PER_S)))

    def drop_excess(self, database: Database) -> None:
        """The oldest records while it all takes too much, and when there are none left, the oldest sums."""
        while True:
            with database.reading() as connection:
                if database.used_bytes(connection) <= self.megabytes * 1_000_000:
                    return
                oldest = next(filter(None, (_oldest(connection, span_s) for span_s in NEXT_S)), None)
            if oldest is None:
                return
            _drop(database, *oldest)


def _drop(database: Database, span_s: int, since: int) -> int:
    """Let the oldest that begin before `since` go, STEP_ROWS at most, and say from when on they are whole; answers how many."""
    with database.writing() as connection:
        set_kept(connection, span_s, since)
        if span_s == RECORDS:
            return _drop_records(connection, since)
        keys = [rollups.c[name.name] for name in rollups.primary_key.columns]
        old = connection.execute(select(*keys).where(rollups.c.span_s == span_s, rollups.c.begin_unix_ns < since)
                                 .order_by(*keys).limit(STEP_ROWS)).all()
        for row in old:
            connection.execute(delete(rollups).where(*(key == value for key, value in zip(keys, row, strict=True))))
        return len(old)


def _drop_records(connection: Connection, since: int) -> int:
    old = connection.execute(select(records.c.position, records.c.instance_id, records.c.sequence, records.c.energy_uj)
                             .where(records.c.arrival_unix_ns < since).order_by(records.c.arrival_unix_ns).limit(STEP_ROWS)).all()
    runs: dict[str, list[Any]] = {}
    for row in old:
        runs.setdefault(row.instance_id, []).append(row)
    add_dropped(connection, [
        {"instance_id": instance_id, "records": len(rows), "energy_uj": sum(row.energy_uj or 0 for row in rows),
         "first_sequence": min(row.sequence for row in rows), "last_sequence": max(row.sequence for row in rows)}
        for instance_id, rows in runs.items()])
    if old:
        connection.execute(delete(records).where(records.c.position.in_([row.position for row in old])))
    return len(old)


def _oldest(connection: Connection, span_s: int) -> tuple[int, int] | None:
    """The span, and a time by which some of its oldest begin and where the next span's sums end; None if there are none."""
    if span_s == RECORDS:
        first = select(records.c.arrival_unix_ns).order_by(records.c.arrival_unix_ns).limit(STEP_ROWS).subquery()
    else:
        first = (select(rollups.c.begin_unix_ns).where(rollups.c.span_s == span_s).order_by(rollups.c.begin_unix_ns)
                 .limit(STEP_ROWS).subquery())
    last = connection.scalar(select(func.max(first.c[0])))
    return None if last is None else (span_s, _down(last, NEXT_S[span_s]) + NEXT_S[span_s] * NS_PER_S)


def _is_not_last_of_its_hour(before_unix_ns: int) -> ColumnElement[bool]:
    earlier, later, hour_ns = balances.alias("earlier"), balances.alias("later"), HOUR_S * NS_PER_S
    is_not_first = exists().where(earlier.c.instance_id == balances.c.instance_id, earlier.c.unix_ns < balances.c.unix_ns)
    return and_(balances.c.unix_ns < before_unix_ns, is_not_first, exists().where(
        later.c.instance_id == balances.c.instance_id, later.c.unix_ns > balances.c.unix_ns,
        later.c.unix_ns - later.c.unix_ns % hour_ns == balances.c.unix_ns - balances.c.unix_ns % hour_ns))


def _down(t_ns: int, span_s: int) -> int:
    return t_ns - t_ns % (span_s * NS_PER_S)
