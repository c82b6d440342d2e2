"""How far somebody who reads the ledger's records in order has come, kept in the ledger itself; one at a time where several would read."""

import time
from collections.abc import Callable

import orjson
from sqlalchemy import func, select

from perjoule.adapters.ledger.database import Database
from perjoule.adapters.ledger.tables import cursors, records
from perjoule.sidecar.record import EnergyRecord
from perjoule.sidecar.records.feed import Unsent
from perjoule.sidecar.units import NS_PER_S

TURN_NS = 15 * NS_PER_S  # after which a reader that does nothing has died: longer than a sink is waited for


class Cursor:
    """The place `name` among the records, read by `holder`. Its first reader begins behind what was there before it.

    Everything raises LedgerError (an OSError) while the ledger cannot be used.
    """

    def __init__(self, database: Database, name: str, holder: str, *, now_unix_ns: Callable[[], int] = time.time_ns) -> None:
        self._database, self._name, self._holder, self._now_unix_ns = database, name, holder, now_unix_ns
        with database.writing() as connection:
            if connection.scalar(select(cursors.c.position).where(cursors.c.name == name)) is None:
                position = connection.scalar(select(func.max(records.c.position))) or 0
                connection.execute(cursors.insert().values(name=name, position=position, holder=holder, held_until_unix_ns=0))

    def unsent(self, limit: int) -> Unsent | None:
        """The next records, None while it is another's turn."""
        now_ns = self._now_unix_ns()
        with self._database.reading() as connection:
            row = connection.execute(select(cursors).where(cursors.c.name == self._name)).first()
            position = row.position if row is not None else 0
            if row is not None and row.holder != self._holder and now_ns < row.held_until_unix_ns <= now_ns + TURN_NS:
                return None
            newest = connection.scalar(select(func.max(records.c.position)))  # each by itself: both in one would look at all rows
            oldest = connection.scalar(select(func.min(records.c.position)))
            if newest is None or newest <= position:
                return Unsent((), 0, 0)
            found = connection.execute(select(records.c.position, records.c.record).where(records.c.position > position)
                                       .order_by(records.c.position).limit(limit)).all()
        if not self._take_turn(position, now_ns) or not found:
            return None
        read = [each for _, text in found if (each := _record(text)) is not None]
        return Unsent(read, found[-1][0], newest - found[-1][0], max(oldest - position - 1, 0) + len(found) - len(read))

    def sent(self, until: int) -> None:
        """All up to that position is done with. Where the turn was lost meanwhile, whoever has it goes by what they know."""
        with self._database.writing() as connection:
            connection.execute(cursors.update().where(cursors.c.name == self._name, cursors.c.holder == self._holder,
                                                      cursors.c.position < until)
                               .values(position=until, held_until_unix_ns=self._now_unix_ns() + TURN_NS))

    def leave(self) -> None:
        """Let another take its turn at once."""
        with self._database.writing() as connection:
            connection.execute(cursors.update().where(cursors.c.name == self._name, cursors.c.holder == self._holder)
                               .values(held_until_unix_ns=0))

    def _take_turn(self, position: int, now_ns: int) -> bool:
        """Whether nobody else took it between the look and now. A ledger that was begun anew has no place yet: all of it is new."""
        turn = {"holder": self._holder, "held_until_unix_ns": now_ns + TURN_NS}
        with self._database.writing() as connection:
            row = connection.execute(select(cursors).where(cursors.c.name == self._name).with_for_update()).first()
            if row is None:
                connection.execute(cursors.insert().values(name=self._name, position=0, **turn))
                return position == 0
            if row.position != position or (row.holder != self._holder and now_ns < row.held_until_unix_ns <= now_ns + TURN_NS):
                return False
            connection.execute(cursors.update().where(cursors.c.name == self._name).values(**turn))
        return True


def _record(text: str) -> EnergyRecord | None:
    """None for what is not one, or one of a later version that cannot be understood."""
    try:
        return EnergyRecord.from_json(orjson.loads(text))
    except (ValueError, KeyError, TypeError):
        return None
