"""The ledger in a SQLite file: opened, checked, and begun anew where it was deleted."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine, event, inspect

from perjoule.adapters.ledger import schema
from perjoule.adapters.ledger.schema import LedgerError
from perjoule.adapters.ledger.transactions import Database

CACHE_KB = 1_000  # of pages; what is written lies at the end of every index
PAGE_BYTES = 8_192  # of a new file: a quarter smaller than with 4,096, into which two records go, and a third less time in commits


class Sqlite(Database):
    """Once a transaction is committed it survives the death of the process (WAL, synchronous=NORMAL); a power failure may take the last
    moments, never the file."""

    def __init__(self, path: Path, busy_s: float) -> None:
        self.path, self.name, self._busy_s = path, str(path), busy_s
        self._file: tuple[int, int] | None = None  # until it is known to be ours
        self._reader = _engine(lambda: self._connect("ro"), NullPool)
        self._writer = _engine(lambda: self._connect("rw"), QueuePool, pool_size=1, max_overflow=0, pool_timeout=busy_s)
        event.listen(self._reader, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
        event.listen(self._writer, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))

    def begin(self, create: bool) -> None:
        if create:
            self._open()
        else:
            with self.reading() as connection:
                schema.check_sqlite(connection, self.name, now=True)
            self._file = self._file_there()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """As above. Raises LedgerError where the file was deleted or replaced: a new one is begun in its place, so that the next
        transaction may succeed."""
        if self._file is None or self._file != self._file_there():
            self._open()
            raise LedgerError(f"ledger {self.name}: the file was deleted or replaced, and its records with it; a new one is begun")
        with super().writing() as connection:
            yield connection

    def used_bytes(self, connection: Connection) -> int:
        def number(name: str) -> int:
            return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())

        return (number("page_count") - number("freelist_count")) * number("page_size")

    def give_back(self) -> None:
        with self._errors(), self._writer.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
            raw.execute("PRAGMA incremental_vacuum").fetchall()

    def _open(self) -> None:
        self._file = None
        self._writer.dispose()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                self.path.touch()
        except OSError as error:
            raise LedgerError(f"ledger {self.name}: {error}") from error
        with self.reading() as connection:
            if inspect(connection).get_table_names():
                schema.check_sqlite(connection, self.name)  # before anything is changed in another program's file
        with self._errors(), self._writer.connect() as connection:
            raw: Any = connection.connection.dbapi_connection  # no transaction: these pragmas want none
            raw.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            raw.execute("PRAGMA auto_vacuum = INCREMENTAL")
            raw.execute("PRAGMA journal_mode = WAL")
        with super().writing() as connection:
            schema.prepare_sqlite(connection, self.name)
        self._file = self._file_there()

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode={mode}", uri=True, timeout=self._busy_s,
                                     isolation_level=None, check_same_thread=False)
        if mode == "rw":
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        return connection

    def _file_there(self) -> tuple[int, int] | None:
        """Which file is at the path now: writing into one that was deleted succeeds, and keeps nothing."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _engine(creator: Callable[[], sqlite3.Connection], pool: Any, **more: Any) -> Engine:
    engine: Engine = create_engine("sqlite://", creator=creator, poolclass=pool, hide_parameters=True, **more)
    return engine
