"""A SQLite file or a PostgreSQL database: which of the two it is, is all in how it is named.

    database = open_database("ledger.sqlite3")           # or postgresql://USER@HOST/DATABASE
    with database.reading() as connection: ...           # one moment of the ledger; cannot write
    with database.writing() as connection: ...           # one transaction, and no other writes meanwhile
"""

from pathlib import Path

from perjoule.adapters.ledger.schema import LedgerError
from perjoule.adapters.ledger.transactions import Database

SCHEMES = ("postgresql://", "postgres://", "postgresql+psycopg://")
BUSY_S = 5.0  # how long to wait for another writer's commit

__all__ = ["BUSY_S", "Database", "LedgerError", "open_database"]


def open_database(where: str | Path, *, create: bool = True, busy_s: float = BUSY_S) -> Database:
    """The ledger there, made or brought up to date; with `create=False` it must be there, as it is now. Raises LedgerError."""
    database: Database
    if str(where).startswith(SCHEMES):
        from perjoule.adapters.ledger.postgres import Postgres

        database = Postgres(str(where), busy_s)
    else:
        from perjoule.adapters.ledger.sqlite import Sqlite

        database = Sqlite(Path(where), busy_s)
    try:
        database.begin(create)
    except BaseException:
        database.close()
        raise
    return database
