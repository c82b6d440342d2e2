"""The ledger in a PostgreSQL database, which several sidecars may share, and which may be away for a while."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from perjoule.adapters.ledger import schema
from perjoule.adapters.ledger.schema import LedgerError
from perjoule.adapters.ledger.tables import APPLICATION_ID
from perjoule.adapters.ledger.transactions import Database

CONNECT_S = 5
READERS = 4  # connections kept for questions; a burst of them waits
ROW_BYTES = 430  # that a record takes beside its columns: its entries in indexes, and what pages leave free

logger = logging.getLogger("perjoule")


class Postgres(Database):
    """Writers take turns (an advisory lock), so that positions rise in the order of commits and no two sums wait for each other.

    A server that is away does not keep the sidecar from starting: the first transaction after it is back makes the tables.
    """

    _is_prepared = False

    def __init__(self, where: str, busy_s: float) -> None:
        try:
            url = make_url(where).set(drivername="postgresql+psycopg")
            self.name = url.set(query={}).render_as_string(hide_password=True).replace("+psycopg", "")
            connect = _told(url)
        except (SQLAlchemyError, ValueError) as error:
            raise LedgerError(f"--ledger: got what is no postgresql://USER@HOST/DATABASE: {error}") from error
        except ImportError as error:
            raise LedgerError(f"ledger {self.name}: {error}; install perjoule[postgres]") from error
        self._busy_ms = round(busy_s * 1000)
        self._reader = create_engine(url, connect_args=connect, pool_size=READERS, max_overflow=0, pool_timeout=busy_s,
                                     pool_pre_ping=True, isolation_level="REPEATABLE READ", hide_parameters=True)
        event.listen(self._reader, "begin", lambda connection: connection.exec_driver_sql("SET TRANSACTION READ ONLY"))
        self._writer = create_engine(url, connect_args=connect, pool_size=1, max_overflow=0, pool_timeout=busy_s,
                                     pool_pre_ping=True, hide_parameters=True)
        event.listen(self._writer, "begin", self._take_turn)

    def begin(self, create: bool) -> None:
        if not create:
            with self.reading() as connection:
                schema.check_postgres(connection, self.name)
            self._is_prepared = True
            return
        try:
            self._prepare()
        except LedgerError as error:
            if not isinstance(error.__cause__, OperationalError):
                raise
            logger.warning("%s; it is tried again with the first records", error)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """As above."""
        if not self._is_prepared:
            self._prepare()
        with super().writing() as connection:
            yield connection

    def used_bytes(self, connection: Connection) -> int:
        """An estimate: PostgreSQL keeps the space of deleted rows for new ones and does not say how much that is."""
        rows, row_bytes = connection.execute(text(
            "SELECT (SELECT coalesce(max(position) - min(position) + 1, 0) FROM records), (SELECT coalesce(avg(pg_column_size(r)), 0)"
            " FROM (SELECT * FROM records ORDER BY position DESC LIMIT 200) r)")).one()
        sums: int = connection.scalar(text("SELECT pg_total_relation_size('rollups') + pg_total_relation_size('balances')")) or 0
        of_records: int = round(rows * (float(row_bytes) + ROW_BYTES))
        return of_records + sums

    def _prepare(self) -> None:
        with super().writing() as connection:
            schema.prepare_postgres(connection, self.name)
        self._is_prepared = True

    def _take_turn(self, connection: Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {self._busy_ms}")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({APPLICATION_ID})")


def _told(url: URL) -> dict[str, Any]:
    """What libpq is told beside the URL, where that does not say it. Raises ImportError."""
    import psycopg  # noqa: F401  # so that its absence is said before anything is tried

    wanted = {"connect_timeout": CONNECT_S, "tcp_user_timeout": 10_000, "application_name": "perjoule"}
    return {name: value for name, value in wanted.items() if name not in url.query}
