"""Makes the ledger's tables in a new place, brings those of an older version up to date, and refuses what is not ours."""

from sqlalchemy import Connection, Select, func, insert, inspect, literal, select, text

from perjoule.adapters.ledger.tables import APPLICATION_ID, GROUPS, SCHEMA_VERSION, SPANS_S, SUMS, about, metadata, records, rollups
from perjoule.sidecar.units import NS_PER_S


class LedgerError(OSError):
    """A place that cannot be the ledger, or cannot be read or written now; the text says why, for a person."""


def check_sqlite(connection: Connection, name: str, *, now: bool = False) -> int:
    """The schema version of a file with tables; with `now` it must be today's. Raises LedgerError for what cannot be read by us."""
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise LedgerError(f"ledger {name}: got the database of another program, expected a ledger or no file")
    return _check(_pragma(connection, "user_version"), name, now)


def prepare_sqlite(connection: Connection, name: str) -> None:
    """Make the tables, or make them of the older ones, in this transaction."""
    version = check_sqlite(connection, name) if inspect(connection).get_table_names() else 0  # another worker may have been first
    if version < SCHEMA_VERSION:
        if version == 0:
            metadata.create_all(connection, checkfirst=False)
        else:
            _from_version_1(connection)
        connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def check_postgres(connection: Connection, name: str) -> None:
    """Raises LedgerError unless there is a ledger of today's schema."""
    if not inspect(connection).has_table(about.name):
        raise LedgerError(f"ledger {name}: got a database without a ledger, expected one that `perjoule serve --ledger` has written")
    _check(_version(connection, name), name, True)


def prepare_postgres(connection: Connection, name: str) -> None:
    """Make the tables where there are none, in this transaction."""
    there = set(inspect(connection).get_table_names()) & set(metadata.tables)
    if not there:
        metadata.create_all(connection, checkfirst=False)
        connection.execute(insert(about).values(name="schema_version", value=SCHEMA_VERSION))
    elif about.name not in there:
        raise LedgerError(f"ledger {name}: got tables of another program ({', '.join(sorted(there))}), expected a ledger or none of these")
    else:
        _check(_version(connection, name), name, True)


def _version(connection: Connection, name: str) -> int:
    version: int | None = connection.scalar(select(about.c.value).where(about.c.name == "schema_version"))
    if version is None:
        raise LedgerError(f"ledger {name}: got a database that does not say its schema, expected a ledger")
    return version


def _check(version: int, name: str, now: bool) -> int:
    if version > SCHEMA_VERSION:
        raise LedgerError(f"ledger {name}: got schema {version} of a newer perjoule, expected at most {SCHEMA_VERSION};"
                          " use that perjoule or another file")
    if now and version < SCHEMA_VERSION:
        raise LedgerError(f"ledger {name}: got schema {version} of an older perjoule, expected {SCHEMA_VERSION}:"
                          " `perjoule serve` brings it up to date")
    return version


def sums_of_records(span_s: int) -> Select[tuple[object, ...]]:
    """The rollups of that span, as the records tell them."""
    span_ns = span_s * NS_PER_S
    begin = records.c.arrival_unix_ns - records.c.arrival_unix_ns % span_ns
    names = [func.coalesce(records.c[name], "").label(name) for name in GROUPS]
    return select(literal(span_s), begin, *names, func.count(), func.count(records.c.energy_uj),
                  *(func.sum(records.c[name]) for name in SUMS)).group_by(begin, *names)


def _from_version_1(connection: Connection) -> None:
    """Version 1 had one table of records, without positions, runs and sums."""
    for index in ("records_by_arrival", "records_by_model", "records_by_request"):
        connection.exec_driver_sql(f"DROP INDEX IF EXISTS {index}")
    connection.exec_driver_sql("ALTER TABLE records RENAME TO records_1")
    metadata.create_all(connection, checkfirst=False)
    told = {"instance_id": "coalesce(json_extract(record, '$.instance_id'), '')",
            "sequence": "coalesce(json_extract(record, '$.sequence'), 0)", "duration_ns": "end_unix_ns - arrival_unix_ns",
            "prefill_uj": "json_extract(record, '$.prefill_uj')", "decode_uj": "json_extract(record, '$.decode_uj')",
            "steady_uj": "json_extract(record, '$.steady_uj')", "model": "nullif(model, '')", "tenant": "nullif(tenant, '')"}
    names = [column.name for column in records.columns if column.name != "position"]
    columns = ", ".join(told.get(name, name) for name in names)
    connection.execute(text(f"INSERT INTO records ({', '.join(names)}) SELECT {columns} FROM records_1 ORDER BY rowid"))  # noqa: S608
    connection.exec_driver_sql("DROP TABLE records_1")
    for span_s in SPANS_S:
        connection.execute(insert(rollups).from_select(list(rollups.columns.keys()), sums_of_records(span_s)))


def _pragma(connection: Connection, name: str) -> int:
    return int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
