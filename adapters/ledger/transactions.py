"""What both databases can do: connections that read one moment, transactions that write, and errors that a person understands."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from perjoule.adapters.ledger.schema import LedgerError


class Database:
    """A SQLite file or a PostgreSQL database. Everything raises LedgerError instead of what the library raises; any thread may call."""

    name: str  # as people are told, without a password
    _reader: Engine
    _writer: Engine
    _closed = False

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees one moment of the ledger and cannot write."""
        with self._errors(), self._reader.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, committed at the end: all of it is kept, or on any error nothing. Only one writes at a time."""
        try:
            with self._errors(), self._writer.begin() as connection:
                yield connection
        finally:
            if self._closed:  # the last account of a run comes after its last record
                self._writer.dispose()

    def begin(self, create: bool) -> None:
        """See that there is a ledger."""
        raise NotImplementedError

    def used_bytes(self, connection: Connection) -> int:
        """How much the ledger takes, without what is free in it."""
        raise NotImplementedError

    def give_back(self) -> None:
        """Let the system have the space of what was deleted, where this is for us to do."""

    def close(self) -> None:
        """Release the connections."""
        self._closed = True
        self._reader.dispose()
        self._writer.dispose()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise LedgerError(f"ledger {self.name}: {str(error.orig).strip()}") from error
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise LedgerError(f"ledger {self.name}: {error}") from error
