"""Where records go: each kept once, its numbers added to the sums in the same transaction, and old ones dropped."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from perjoule.adapters.ledger.database import BUSY_S, LedgerError, open_database
from perjoule.adapters.ledger.queries import Queries
from perjoule.adapters.ledger.retention import Retention
from perjoule.adapters.ledger.rows import add_records, add_sums, sums_of
from perjoule.adapters.ledger.tables import HOUR_S, balances, records
from perjoule.sidecar.record import Balance, EnergyRecord
from perjoule.sidecar.records.row import COLUMNS, Row, row_of
from perjoule.sidecar.units import NS_PER_S

DROP_EVERY = 1_000  # records put
RECORD_ID = COLUMNS.index("record_id")
KNOWN = select(records.c.record_id).where(records.c.record_id.in_(bindparam("record_ids", expanding=True)))

__all__ = ["Ledger", "LedgerError", "Retention"]


class Ledger(Queries):
    """A RecordSink that keeps every record once, by its record id, and answers questions from other threads meanwhile.

    Once `put` has returned, the records survive the death of the process. Raises LedgerError on opening.
    """

    name = "ledger"

    def __init__(self, where: str | Path, retention: Retention | None = None, *, busy_s: float = BUSY_S,
                 now_unix_ns: Callable[[], int] = time.time_ns) -> None:
        super().__init__(open_database(where, busy_s=busy_s))
        self._retention, self._now_unix_ns = retention or Retention(), now_unix_ns
        self._since_dropped = DROP_EVERY  # the first put drops what an earlier run has left
        self._dropped_hour = 0

    def put(self, records_put: Sequence[EnergyRecord]) -> None:
        """Keep these records; one that is already there stays as it is.

        Raises LedgerError (full disk, locked file, lost connection), and then has kept none of them; where the file was deleted or
        replaced, a new one is opened in its place, so that the next put may succeed.
        """
        rows = [row_of(record) for record in records_put]
        try:
            self._keep(rows)
        except LedgerError as error:
            if not isinstance(error.__cause__, IntegrityError):
                raise
            self._keep(rows, look=True)  # some are there; to look every time would take a quarter of all that a put does
        self._since_dropped += len(records_put)
        if self._since_dropped >= DROP_EVERY:
            self._drop()
            self._since_dropped = 0

    def keep_balance(self, balance: Balance) -> None:
        """Keep the account of a run; every record up to its `sequence` must have been put, or counted as lost. May follow `close`."""
        row: dict[str, Any] = {name: getattr(balance, name) for name in balances.columns.keys()}  # noqa: SIM118
        with self.database.writing() as connection:
            connection.execute(insert(balances), {**row, "status": balance.status.value})

    def _keep(self, rows: list[Row], *, look: bool = False) -> None:
        """Keep these rows; with `look` those that are not there yet."""
        with self.database.writing() as connection:
            fresh = _fresh(connection, rows) if look else rows
            if fresh:
                add_records(connection, fresh)
                add_sums(connection, sums_of(fresh))

    def close(self) -> None:
        """Release the file or the connections."""
        self.database.close()

    def _drop(self) -> None:
        now_unix_ns = self._now_unix_ns()
        hour = now_unix_ns // (HOUR_S * NS_PER_S)
        if hour != self._dropped_hour:
            self._retention.drop_old(self.database, now_unix_ns)
            self._dropped_hour = hour
        self._retention.drop_excess(self.database)
        self.database.give_back()


def _fresh(connection: Connection, rows: list[Row]) -> list[Row]:
    """Those of which there is no record yet; of two with one id, the first."""
    fresh = {row[RECORD_ID]: row for row in reversed(rows)}
    for record_id in connection.scalars(KNOWN, {"record_ids": list(fresh)}).all():
        del fresh[record_id]
    return list(reversed(fresh.values()))
