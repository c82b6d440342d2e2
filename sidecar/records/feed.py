"""Records on their way from the ledger to a sink: in the order in which they were stored, from where an earlier run had come to.

The ledger itself keeps how far the sink has come, so nothing is lost while the sink is down or the sidecar is not running; what was taken
just before a death is sent again.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from perjoule.sidecar.ports import RecordSink
from perjoule.sidecar.record import EnergyRecord
from perjoule.sidecar.records.outbox import BATCH, Outbox

LOOK_S = 1.0  # how often the ledger is looked at unasked: another sidecar may write there, or may have left its turn

logger = logging.getLogger(__name__)


class Unsent(NamedTuple):
    """The next records, how far they reach, how many lie behind them, and how many are missing: dropped by the ledger for their age, or
    not understood."""

    records: Sequence[EnergyRecord]
    until: int
    behind: int
    missed: int = 0


class Reader(Protocol):
    """What of the ledger has not been sent. All calls block, and raise OSError while the ledger cannot be used."""

    def unsent(self, limit: int) -> Unsent | None:
        """The next, None while it is another sidecar's turn."""

    def sent(self, until: int) -> None:
        """All up to there is settled, once and for all."""

    def leave(self) -> None:
        """There will be no more calls."""


@dataclass(frozen=True, slots=True)
class FromLedger:
    """A sink that is fed from the ledger, instead of from memory."""

    sink: RecordSink
    reader: Reader


class Feed(Outbox):
    """An Outbox that takes its records from the ledger: `put` and `ring` only say that there may be more. Nothing is dropped but what the
    sink refuses while it takes others, and what the ledger does not hold any more once the sink is back."""

    def __init__(self, feed: FromLedger) -> None:
        self._reader, self._until, self._behind = feed.reader, 0, 0
        self._reading_fails = self._closing_seen = False
        super().__init__(feed.sink)

    @property
    def pending(self) -> int:
        """How many the ledger held at the last look that were not sent."""
        return len(self._batch) + self._behind

    def put(self, *records: EnergyRecord) -> None:
        """They will be in the ledger soon; `ring` is called then."""

    def ring(self) -> None:
        """The ledger has more. Any thread may call."""
        self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Send what is there, for at most `timeout_s` seconds; the rest stays in the ledger for the next run."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        self._given_up.set()
        if self.pending:
            logger.info("%s: %d records stay in the ledger, to be sent by the next run", self.name, self.pending)

    def _run(self) -> None:
        super()._run()
        with suppress(OSError):  # then its turn ends by itself
            self._reader.leave()

    def _more(self) -> bool:
        """Once more after closing began: the ledger's last records came before."""
        done, self._closing_seen = self._closing_seen, self._closing.is_set()
        return not done

    def _wait(self) -> None:
        self._wake.wait(LOOK_S)
        self._wake.clear()
        self._closing.wait(self._gather_s)

    def _take(self) -> Sequence[EnergyRecord]:
        """What is left of the batch, else the next one; none while the ledger cannot be used."""
        if self._given_up.is_set():
            return ()
        if self._batch:
            return tuple(self._batch)
        try:
            if self._until:
                self._reader.sent(self._until)
                self._until = 0
            unsent = self._reader.unsent(BATCH)
        except Exception as error:  # whatever it is, this thread goes on
            self._unread(error)
            return ()
        if self._reading_fails:
            self._reading_fails, self.failing = False, None
        if unsent is None:
            return ()
        with self._counting:
            self._batch, self._until, self._behind = list(unsent.records), unsent.until, unsent.behind
            self.dropped += unsent.missed
        if unsent.missed:
            logger.warning("%s: %d records cannot be sent: the ledger has dropped them for their age, or they are not understood",
                           self.name, unsent.missed)
        return unsent.records

    def _unread(self, error: Exception) -> None:
        if not self._reading_fails:
            logger.warning("%s: the ledger cannot be read, trying again: %s", self.name, error)
        self._reading_fails, self.failing = True, f"{type(error).__name__}: {error}"
