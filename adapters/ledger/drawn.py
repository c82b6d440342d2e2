"""What was drawn and no request bears between two times, out of the accounts that sidecars have kept; and how much is still there."""

from collections.abc import Iterator

from sqlalchemy import Connection, func, select

from perjoule.adapters.ledger.database import Database
from perjoule.adapters.ledger.queries import BALANCE, balance_of
from perjoule.adapters.ledger.tables import DAY_S, HOUR_S, MINUTE_S, balances, kept, records, rollups
from perjoule.sidecar.footprint.remainder import Accounts, accounts
from perjoule.sidecar.record import Balance
from perjoule.sidecar.units import NS_PER_S

PAGE = 500  # accounts read at a time


def drawn(database: Database, grain_s: int, since_unix_ns: int, until_unix_ns: int) -> Accounts:
    """By cells of `grain_s`. Raises LedgerError."""
    with database.reading() as connection:
        return accounts(_around(connection, since_unix_ns, until_unix_ns), grain_s * NS_PER_S, since_unix_ns, until_unix_ns)


def finest_s(database: Database, wanted_s: int, since_unix_ns: int) -> int:
    """The span of the sums that are whole from then on: the one that is wanted, or a coarser one. Raises LedgerError."""
    with database.reading() as connection:
        whole_since = {row.span_s: row.since_unix_ns for row in connection.execute(select(kept))}
    return next((span_s for span_s in (MINUTE_S, HOUR_S) if span_s >= wanted_s and whole_since.get(span_s, since_unix_ns) <= since_unix_ns),
                DAY_S)


def oldest(database: Database) -> int | None:
    """When the ledger begins, to the hour, or to the day where no hours of that day are kept; None for an empty one. Raises LedgerError."""
    def first(connection: Connection, span_s: int) -> int | None:
        found: int | None = connection.scalar(select(func.min(rollups.c.begin_unix_ns)).where(rollups.c.span_s == span_s))
        return found

    with database.reading() as connection:
        day = first(connection, DAY_S)
        hours_since = connection.scalar(select(kept.c.since_unix_ns).where(kept.c.span_s == HOUR_S))
        has_hours = day is None or hours_since is None or hours_since <= day
        found = [first(connection, HOUR_S) if has_hours else day, connection.scalar(select(func.min(balances.c.unix_ns)))]
    return min((int(time) for time in found if time is not None), default=None)


def held(database: Database, since_unix_ns: int, until_unix_ns: int) -> int:
    """How many records of [since, until) the ledger still has. Raises LedgerError."""
    when = records.c.arrival_unix_ns
    with database.reading() as connection:
        return int(connection.scalar(select(func.count()).select_from(records).where(when >= since_unix_ns, when < until_unix_ns)) or 0)


def _around(connection: Connection, since_unix_ns: int, until_unix_ns: int) -> Iterator[Balance]:
    """The accounts of [since, until), each run's with the one before and the one after, so that none of it is cut off."""
    run, time = balances.c.instance_id, balances.c.unix_ns
    before = {row[0]: row[1] for row in connection.execute(select(run, func.max(time)).where(time <= since_unix_ns).group_by(run))}
    after = {row[0]: row[1] for row in connection.execute(select(run, func.min(time)).where(time >= until_unix_ns).group_by(run))}
    within = connection.scalars(select(run).where(time > since_unix_ns, time < until_unix_ns).distinct())
    for instance_id in sorted({*within, *(before.keys() & after.keys())}):
        wanted = select(*BALANCE).where(run == instance_id, time >= before.get(instance_id, since_unix_ns),
                                        time <= after.get(instance_id, until_unix_ns)).order_by(time)
        for row in connection.execution_options(yield_per=PAGE).execute(wanted):
            yield balance_of(row._mapping)
