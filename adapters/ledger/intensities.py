"""What sources have said of the grid's carbon intensity: kept once for each time, the latest word of a source for it."""

from collections.abc import Iterable

from sqlalchemy import select, tuple_

from perjoule.adapters.ledger.database import Database
from perjoule.adapters.ledger.tables import grid_intensity
from perjoule.sidecar.footprint.carbon import Intensity, Kind

KEY = ("source", "zone", "kind", "begin_unix_ns")
MANY = 200  # rows in one statement


def keep(database: Database, intensities: Iterable[Intensity], fetched_unix_ns: int) -> None:
    """Store these; what a source had said of the same time before is replaced. Raises LedgerError."""
    rows = [{"source": each.source, "zone": each.zone, "kind": str(each.kind), "begin_unix_ns": each.begin_unix_ns,
             "until_unix_ns": each.until_unix_ns, "value": each.value, "unit": each.unit, "mg_per_kwh": each.mg_per_kwh,
             "estimated": None if each.estimated is None else int(each.estimated), "fetched_unix_ns": fetched_unix_ns}
            for each in intensities]
    rows = list({tuple(row[name] for name in KEY): row for row in rows}.values())
    key = tuple_(*(grid_intensity.c[name] for name in KEY))
    for first in range(0, len(rows), MANY):
        some = rows[first:first + MANY]
        with database.writing() as connection:
            connection.execute(grid_intensity.delete().where(key.in_([tuple(row[name] for name in KEY) for row in some])))
            connection.execute(grid_intensity.insert(), some)


def between(database: Database, since_unix_ns: int, until_unix_ns: int) -> list[Intensity]:
    """All that holds somewhere in [since, until). Raises LedgerError."""
    table = grid_intensity.c
    with database.reading() as connection:
        found = connection.execute(select(grid_intensity).where(table.begin_unix_ns < until_unix_ns, table.until_unix_ns > since_unix_ns)
                                   .order_by(table.begin_unix_ns)).all()
    return [Intensity(row.source, row.zone, Kind(row.kind), row.begin_unix_ns, row.until_unix_ns, row.value, row.unit, row.mg_per_kwh,
                      None if row.estimated is None else bool(row.estimated)) for row in found]
