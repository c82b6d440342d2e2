"""Is every joule accounted for? The accounts that runs of the sidecar kept, held against the records that are there.

Between two accounts of a run, records n+1 to m must all be there, cost exactly what the run says it settled, and with idle and
unattributed energy make what was measured. What retention has dropped is said apart from what was lost.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, except_, func, select, true

from perjoule.adapters.ledger.database import Database
from perjoule.adapters.ledger.queries import BALANCE, balance_of
from perjoule.adapters.ledger.schema import sums_of_records
from perjoule.adapters.ledger.tables import SPANS_S, balances, dropped, kept, records, rollups
from perjoule.adapters.ledger.tiers import RECORDS
from perjoule.sidecar.record import Balance
from perjoule.sidecar.units import NS_PER_S

MOST_GAPS = 100  # named of a run


@dataclass(frozen=True, slots=True)
class Account:
    """One run between two of its accounts: `first` (None: the start of the run) and `last` (None: it kept none, only gaps can be seen).

    `present` records are behind `first` up to `last`, and cost `energy_uj`; `later` ones came after `last`, and their run has not vouched
    for their joules yet, or was killed. `dropped` of the `missing` were dropped by retention, `lost` are the rest. `twice` counts records
    whose place another one has, too. `missing_uj` is what the run settled beyond the records that are there, `unexplained_uj` what of it no
    dropped record explains; both None where that cannot be told.
    """

    instance_id: str
    first: Balance | None
    last: Balance | None
    present: int
    twice: int
    energy_uj: int
    missing: int
    dropped: int
    lost: int
    gaps: tuple[tuple[int, int], ...]
    missing_uj: int | None
    unexplained_uj: int | None
    later: int

    @property
    def settled_uj(self) -> int | None:
        """What the run says these records cost."""
        return None if self.last is None else self.last.settled_uj - (self.first.settled_uj if self.first else 0)

    @property
    def conserved(self) -> bool:
        """Whether what was measured is what was divided, at both ends."""
        return all(b.measured_uj == b.requests_uj + b.idle_uj + b.unattributed_uj for b in (self.first, self.last) if b is not None)

    @property
    def accounted(self) -> bool:
        """Nothing lost, nothing twice, and the joules are those that were settled, as far as retention has left them."""
        return not self.lost and not self.twice and self.conserved and self.unexplained_uj in (0, None)


def verify(database: Database, since_unix_ns: int | None, until_unix_ns: int | None) -> list[Account]:
    """Every run with an account or a record in [since, until). Raises LedgerError."""
    with database.reading() as connection:
        return [_account(connection, instance_id, since_unix_ns, until_unix_ns)
                for instance_id in _runs(connection, since_unix_ns, until_unix_ns)]


def wrong_sums(database: Database, since_unix_ns: int | None, until_unix_ns: int | None) -> int:
    """How many sums by minute, hour or day are not those of their records, among those whose records are all there."""
    wrong = 0
    with database.reading() as connection:
        whole_since = {row.span_s: row.since_unix_ns for row in connection.execute(select(kept))}
        for span_s in SPANS_S:
            span_ns = span_s * NS_PER_S
            starts = (whole_since.get(RECORDS), whole_since.get(span_s), since_unix_ns)
            since = max((-(-start // span_ns) * span_ns for start in starts if start is not None), default=None)
            until = None if until_unix_ns is None else until_unix_ns // span_ns * span_ns
            told = select(rollups).where(rollups.c.span_s == span_s, *_in(rollups.c.begin_unix_ns, since, until))
            summed = sums_of_records(span_s).where(*_in(records.c.arrival_unix_ns, since, until))
            for one, other in ((told, summed), (summed, told)):
                different = except_(one, other).subquery()
                wrong += connection.scalar(select(func.count()).select_from(different)) or 0
    return wrong


def _runs(connection: Connection, since: int | None, until: int | None) -> list[str]:
    of_records = select(records.c.instance_id).where(records.c.instance_id != "", *_in(records.c.arrival_unix_ns, since, until))
    of_balances = select(balances.c.instance_id).where(*_in(balances.c.unix_ns, since, until))
    return sorted({*connection.scalars(of_records.distinct()), *connection.scalars(of_balances.distinct())})


def _account(connection: Connection, instance_id: str, since: int | None, until: int | None) -> Account:
    first = None if since is None else _balance(connection, instance_id, balances.c.unix_ns < since)
    last = _balance(connection, instance_id, true() if until is None else balances.c.unix_ns < until)
    after = first.sequence if first else 0
    through = last.sequence if last else after
    of_run, place = records.c.instance_id == instance_id, records.c.sequence
    present, places, energy_uj = _sums(connection, and_(of_run, place > after, place <= through))
    later, later_places, _ = _sums(connection, and_(of_run, place > through)) if until is None else (0, 0, 0)
    top = connection.scalar(select(func.max(place)).where(of_run)) if later else through
    missing = top - after - places - later_places
    gone = connection.execute(select(dropped).where(dropped.c.instance_id == instance_id)).one_or_none()
    empty = 0 if gone is None else min(gone.records, max(0, min(gone.last_sequence, top) - max(gone.first_sequence, after + 1) + 1))
    missing_uj = unexplained_uj = None if last is None else last.settled_uj - (first.settled_uj if first else 0) - energy_uj
    if unexplained_uj is not None and missing:
        is_whole = gone is not None and missing == gone.records and after < gone.first_sequence and gone.last_sequence <= through
        unexplained_uj = unexplained_uj - gone.energy_uj if gone is not None and is_whole else None
    gaps = _gaps(connection, and_(of_run, place > after, place <= top), after, top) if missing else ()
    return Account(instance_id, first, last, present, present - places + later - later_places, energy_uj, missing, min(missing, empty),
                   max(0, missing - empty), gaps, missing_uj, unexplained_uj, later)


def _sums(connection: Connection, which: ColumnElement[bool]) -> tuple[int, int, int]:
    """How many records, how many different places, how many microjoules."""
    counted = select(func.count(), func.count(records.c.sequence.distinct()), func.sum(records.c.energy_uj))
    row = connection.execute(counted.where(which)).one()
    return row[0], row[1], int(row[2] or 0)


def _balance(connection: Connection, instance_id: str, when: ColumnElement[bool]) -> Balance | None:
    row = connection.execute(select(*BALANCE).where(balances.c.instance_id == instance_id, when)
                             .order_by(balances.c.unix_ns.desc()).limit(1)).one_or_none()
    return None if row is None else balance_of(row._mapping)


def _gaps(connection: Connection, mine: ColumnElement[bool], after: int, through: int) -> tuple[tuple[int, int], ...]:
    """The first places that no record has, as (first, last)."""
    following = func.lead(records.c.sequence, 1, through + 1).over(order_by=records.c.sequence)
    places = select(records.c.sequence.label("place"), following.label("following")).where(mine).subquery()
    found: list[Any] = [(row.place + 1, row.following - 1) for row in connection.execute(
        select(places).where(places.c.following - places.c.place > 1).order_by(places.c.place).limit(MOST_GAPS))]
    lowest = connection.scalar(select(func.min(records.c.sequence)).where(mine))
    if lowest is None:
        return ((after + 1, through),)
    return tuple(([(after + 1, lowest - 1)] if lowest > after + 1 else []) + found)


def _in(time: ColumnElement[int], since: int | None, until: int | None) -> list[ColumnElement[bool]]:
    return [*([time >= since] if since is not None else []), *([time < until] if until is not None else [])]
