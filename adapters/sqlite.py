"""Records in one SQLite file: kept through `kill -9`, found by id, summed by model, tenant or time."""

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import orjson

from perjoule.sidecar.record import EnergyRecord
from perjoule.sidecar.units import NS_PER_S

APPLICATION_ID = 0x504A4C31  # "PJL1", so that no other program's file is taken for a ledger
SCHEMA_VERSION = 1
SCHEMA = f"""
CREATE TABLE records (
  record_id TEXT PRIMARY KEY, request_id TEXT NOT NULL, arrival_unix_ns INTEGER NOT NULL, end_unix_ns INTEGER NOT NULL,
  tenant TEXT, model TEXT, engine TEXT NOT NULL, endpoint TEXT NOT NULL, outcome TEXT NOT NULL, http_status INTEGER,
  input_tokens INTEGER, output_tokens INTEGER, energy_uj INTEGER, active_uj INTEGER, status TEXT NOT NULL,
  method TEXT NOT NULL, trace_id TEXT, record TEXT NOT NULL
);
CREATE INDEX records_by_arrival ON records (arrival_unix_ns);
CREATE INDEX records_by_model ON records (model, arrival_unix_ns);
CREATE INDEX records_by_request ON records (request_id);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""
INSERT = f"INSERT OR IGNORE INTO records VALUES ({', '.join('?' * 18)})"  # noqa: S608  eighteen question marks
GROUPS = ("model", "tenant", "outcome", "endpoint", "status")
BUSY_S = 5.0  # how long to wait for another worker's commit
PRUNE_EVERY = 1_000  # records put
PRUNE_ROWS = 500  # deleted in one transaction, so that other workers' commits wait for milliseconds only
NS_PER_DAY = 86_400 * NS_PER_S


class LedgerError(OSError):
    """A file that cannot be the ledger, or cannot be read now; the text says why, for a person."""


class SqliteLedger:
    """A RecordSink that keeps every record once, by its record id, and answers questions from other threads meanwhile.

    Once `put` has returned, the rows survive the death of the process (WAL, synchronous=NORMAL); a power failure may
    take the last moments, never the file. What is older than `days` is deleted, and the oldest beyond `megabytes`.
    Raises LedgerError on opening.
    """

    name = "ledger"

    def __init__(self, path: Path, days: int, megabytes: int, *, busy_s: float = BUSY_S,
                 now_unix_ns: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._days = days
        self._most_bytes = megabytes * 1_000_000
        self._now_unix_ns = now_unix_ns
        self._busy_s = busy_s
        self._since_pruned = PRUNE_EVERY  # the first put prunes what an earlier run has left
        self._open()

    def put(self, records: Sequence[EnergyRecord]) -> None:
        """Keep these records; one that is already there stays as it is.

        Raises sqlite3.Error (full disk, locked file), and then has kept none of them; LedgerError where the file was
        deleted or replaced: a new one is opened in its place, so that the next put may succeed.
        """
        if self._file is None or self._file != self._file_there():
            self._writer.close()
            self._open()
            raise LedgerError(f"ledger {self._path}: the file was deleted or replaced, and its records with it;"
                              " a new one is begun")
        with _transaction(self._writer):
            self._writer.executemany(INSERT, map(_row, records))
        self._since_pruned += len(records)
        if self._since_pruned >= PRUNE_EVERY:
            self._prune()
            self._since_pruned = 0

    def close(self) -> None:
        """Release the file."""
        self._writer.close()

    def get(self, any_id: str) -> dict[str, Any] | None:
        """The record of that record id, else the latest of that request id, else None."""
        rows = self._ask("SELECT record FROM records WHERE record_id = ?1 OR request_id = ?1"
                         " ORDER BY record_id = ?1 DESC, arrival_unix_ns DESC LIMIT 1", (any_id,))
        return orjson.loads(rows[0]["record"]) if rows else None

    def latest(self, limit: int, *, model: str | None = None, tenant: str | None = None,
               since_unix_ns: int | None = None, until_unix_ns: int | None = None) -> list[dict[str, Any]]:
        """The newest records that arrived in [since, until), newest first."""
        where, values = _where(model, tenant, since_unix_ns, until_unix_ns)
        rows = self._ask(f"SELECT record FROM records {where} ORDER BY arrival_unix_ns DESC LIMIT ?", (*values, limit))  # noqa: S608
        return [orjson.loads(row["record"]) for row in rows]

    def grouped(self, by: Sequence[str], *, interval_s: int | None = None, model: str | None = None,
                tenant: str | None = None, since_unix_ns: int | None = None,
                until_unix_ns: int | None = None) -> list[dict[str, Any]]:
        """Counts, tokens and microjoules of the requests that arrived in [since, until), for each group of `by`.

        `by` is any of GROUPS (else ValueError); with `interval_s` each group is also cut by time of arrival. A sum is
        over the requests that have the number (`with_energy` counts them), None where none has; `statuses` says what
        kinds of joules are in it.
        """
        for name in by:
            if name not in GROUPS:
                raise ValueError(f"by: got {name!r}, expected some of {', '.join(GROUPS)}")
        keys = list(by)
        columns = list(by)
        if interval_s is not None:
            span_ns = int(interval_s) * NS_PER_S
            keys.insert(0, "interval_unix_ns")
            columns.insert(0, f"arrival_unix_ns - arrival_unix_ns % {span_ns} AS interval_unix_ns")
        columns += ["count(*) AS requests", "count(energy_uj) AS with_energy", "sum(input_tokens) AS input_tokens",
                    "sum(output_tokens) AS output_tokens", "sum(energy_uj) AS energy_uj", "sum(active_uj) AS active_uj",
                    "group_concat(DISTINCT status) AS statuses"]
        where, values = _where(model, tenant, since_unix_ns, until_unix_ns)
        grouping = f"GROUP BY {', '.join(keys)} ORDER BY {', '.join(keys)}" if keys else ""
        rows = self._ask(f"SELECT {', '.join(columns)} FROM records {where} {grouping}", values)  # noqa: S608
        return [{**row, "statuses": sorted(filter(None, (row["statuses"] or "").split(",")))} for row in rows]

    def _open(self) -> None:
        self._file: tuple[int, int] | None = None  # until it is known to be ours
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = sqlite3.connect(self._path, timeout=self._busy_s, isolation_level=None, check_same_thread=False)
            self._prepare()
        except LedgerError:
            raise
        except (OSError, sqlite3.Error) as error:
            raise LedgerError(f"ledger {self._path}: {error}") from error
        self._file = self._file_there()

    def _file_there(self) -> tuple[int, int] | None:
        """Which file is at the path now: writing into one that was deleted succeeds, and keeps nothing."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _prepare(self) -> None:
        if not self._is_new():
            self._check()
        self._writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute("PRAGMA synchronous = NORMAL")
        with _transaction(self._writer):
            if self._is_new():  # another worker may have been first
                for statement in SCHEMA.split(";"):
                    self._writer.execute(statement)

    def _is_new(self) -> bool:
        return self._number("SELECT count(*) FROM sqlite_schema") == 0

    def _check(self) -> None:
        version = self._number("PRAGMA user_version")
        if self._number("PRAGMA application_id") != APPLICATION_ID:
            raise LedgerError(f"ledger {self._path}: got the database of another program, expected a ledger or no file")
        if version > SCHEMA_VERSION:
            raise LedgerError(f"ledger {self._path}: got schema {version} of a newer perjoule, expected at most"
                              f" {SCHEMA_VERSION}; use that perjoule or another file")

    def _prune(self) -> None:
        """Delete what is too old, then the oldest while the file is too large, and give the space back."""
        oldest = self._now_unix_ns() - self._days * NS_PER_DAY
        while self._delete_oldest("WHERE arrival_unix_ns < ?", oldest) == PRUNE_ROWS:
            pass
        while self._used_bytes() > self._most_bytes and self._delete_oldest(""):
            pass
        self._writer.execute("PRAGMA incremental_vacuum").fetchall()

    def _delete_oldest(self, where: str, *values: int) -> int:
        rows = f"SELECT rowid FROM records {where} ORDER BY arrival_unix_ns LIMIT {PRUNE_ROWS}"  # noqa: S608
        return self._writer.execute(f"DELETE FROM records WHERE rowid IN ({rows})", values).rowcount  # noqa: S608

    def _used_bytes(self) -> int:
        pages = self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count")
        return pages * self._number("PRAGMA page_size")

    def _number(self, statement: str) -> int:
        return int(self._writer.execute(statement).fetchone()[0])

    def _ask(self, statement: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        """Rows of a query, through a connection of its own that cannot write: any thread may ask. Raises LedgerError."""
        location = f"{self._path.resolve().as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(location, uri=True, timeout=BUSY_S)) as reader:
                cursor = reader.execute(statement, values)
                names = [column[0] for column in cursor.description]
                return [dict(zip(names, row, strict=True)) for row in cursor]
        except sqlite3.Error as error:
            raise LedgerError(f"ledger {self._path}: {error}") from error


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite rolls back by itself on some errors
            connection.execute("ROLLBACK")
        raise


def _row(record: EnergyRecord) -> tuple[Any, ...]:
    facts, charge = record.facts, record.charge
    return (facts.record_id, facts.request_id, facts.arrival_unix_ns, facts.arrival_unix_ns + facts.end_ns,
            facts.tenant, facts.model, facts.engine, facts.endpoint, facts.outcome.value, facts.http_status,
            facts.input_tokens, facts.output_tokens, charge.energy_uj, charge.active_uj, charge.status.value, charge.method,
            facts.trace_id, record.as_text().decode())


def _where(model: str | None, tenant: str | None, since_unix_ns: int | None,
           until_unix_ns: int | None) -> tuple[str, tuple[Any, ...]]:
    wanted = {"model = ?": model, "tenant = ?": tenant, "arrival_unix_ns >= ?": since_unix_ns,
              "arrival_unix_ns < ?": until_unix_ns}
    asked = {clause: value for clause, value in wanted.items() if value is not None}
    return "WHERE " + " AND ".join(asked) if asked else "", tuple(asked.values())
