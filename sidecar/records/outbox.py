"""A thread for each place that records go to, so that a slow or broken place never holds up a request."""

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from operator import is_

from perjoule.sidecar.ports import RecordSink, RefusedError, TryLaterError
from perjoule.sidecar.record import EnergyRecord

BATCH = 512
GATHER_S = 0.25  # records that come within this go together: one commit, one export
GATHER_AWAITED_S = 0.025  # where somebody waits for them to be stored
BACKOFF_FIRST_S = 0.1
BACKOFF_MOST_S = 5.0
PATIENCE_MOST_S = 300.0  # however long a sink asks for

logger = logging.getLogger(__name__)


class Outbox:
    """Records on their way to one sink: taken at once, stored in batches, in order unless some fail, and tried again.

    `stored` and `dropped` count records; `failing` is the sink's last error while it fails, else None. What failed is
    given again, so a sink counts a record once by its id. A record that the sink refuses while it takes others is
    dropped, so that it does not stand in their way, and so are those of which the sink says that it never will take them.
    This thread calls `on_stored` after each batch, and closes the sink after the last.
    """

    def __init__(self, sink: RecordSink, capacity: int = 100_000,
                 on_stored: Callable[[Sequence[EnergyRecord]], None] | None = None) -> None:
        self.stored = 0
        self.dropped = 0
        self.failing: str | None = None
        self._sink = sink
        self._capacity = capacity
        self._on_stored = on_stored
        self._gather_s = GATHER_S if on_stored is None else GATHER_AWAITED_S
        self._waiting: deque[EnergyRecord] = deque()
        self._batch: list[EnergyRecord] = []
        self._counting = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"outbox-{sink.name}", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """The sink's name."""
        return self._sink.name

    @property
    def pending(self) -> int:
        """Records taken and not yet stored."""
        return len(self._waiting) + len(self._batch)

    def put(self, *records: EnergyRecord) -> None:
        """Take records. Never waits and never raises: what is beyond capacity, or comes after close, is dropped and counted."""
        room = max(0, self._capacity - self.pending) if not self._closing.is_set() else 0
        if len(records) > room:
            with self._counting:
                self.dropped += len(records) - room
            records = records[:room]
        self._waiting += records
        if records and not self._wake.is_set():
            self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Store what is waiting, for at most `timeout_s` seconds; what then remains is dropped, counted and logged."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        with self._counting:
            self._given_up.set()
            lost = self.pending
            self.dropped += lost
            self._waiting.clear()
            self._batch = []
        if lost:
            logger.warning("%s: %d records are lost, not stored within %g s of closing: %s", self.name, lost, timeout_s,
                           self.failing or "no answer yet")

    def _run(self) -> None:
        while self._more():
            if not self._closing.is_set():
                self._wait()
            self._store()
        try:
            self._sink.close()
        except Exception:
            logger.exception("%s: closing failed", self.name)

    def _more(self) -> bool:
        """Whether there is, or may be, something to store."""
        return bool(self._waiting) or not self._closing.is_set()

    def _wait(self) -> None:
        """Until a record has come, and a little longer."""
        self._wake.wait()
        self._wake.clear()
        self._closing.wait(self._gather_s)

    def _store(self) -> None:
        """Give the sink all that waits, batch by batch, until it has taken it or there is no time left."""
        delay_s, failures = BACKOFF_FIRST_S, 0
        while batch := self._take():
            error = self._offer(batch)
            if error is not None:
                if self.failing is None:
                    what = "records are refused and dropped" if isinstance(error, RefusedError) else "cannot store records, trying again"
                    logger.warning("%s: %s: %r", self.name, what, error)
                self.failing = f"{type(error).__name__}: {error}"
            if error is None or isinstance(error, RefusedError):
                delay_s, failures = BACKOFF_FIRST_S, 0
                continue
            if isinstance(error, TryLaterError):
                delay_s = max(delay_s, min(error.after_s, PATIENCE_MOST_S))
            elif self._sift(batch, batch[failures % len(batch)]):
                delay_s, failures = BACKOFF_FIRST_S, 0
                continue
            failures += 1
            # Once closing begins the wait is short again: there may be little time.
            interrupted = (self._given_up if self._closing.is_set() else self._closing).wait(
                delay_s * random.uniform(1.0, 1.2))  # noqa: S311  so that a fleet does not come back all at once
            delay_s = BACKOFF_FIRST_S if interrupted else min(delay_s * 2, BACKOFF_MOST_S)

    def _take(self) -> Sequence[EnergyRecord]:
        """The batch that is not stored yet, filled up with what waits; empty once there is no time left."""
        with self._counting:
            if not self._given_up.is_set():
                room = BATCH - len(self._batch)
                self._batch += [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            return tuple(self._batch)

    def _offer(self, records: Sequence[EnergyRecord]) -> BaseException | None:
        """The sink's error, None when it has taken these."""
        try:
            self._sink.put(records)
        except RefusedError as error:
            with self._counting:
                gone = len(self._leave(records))
                refused = min(error.count, gone)
                self.stored += gone - refused
                self.dropped += refused
            return error
        except BaseException as error:  # whatever a sink raises, this thread has records to keep
            return error
        self._stored(records)
        return None

    def _sift(self, batch: Sequence[EnergyRecord], witness: EnergyRecord) -> bool:
        """Whether the sink works and the fault is in some records of a batch that failed: the others are then stored.

        The sink is taken to work while it takes the `witness`, another one after each failure, so that all may be tried.
        """
        if len(batch) == 1 or self._offer([witness]) is not None:
            return False
        parts = [[record for record in batch if record is not witness]]
        while parts and not self._given_up.is_set():
            part = parts.pop()
            if self._offer(part) is None:
                continue
            if len(part) > 1:
                parts += [part[len(part) // 2:], part[:len(part) // 2]]
            elif self._offer([witness]) is not None:
                return False
            elif (error := self._offer(part)) is not None:  # refused before and after another was taken
                self._refused(part[0], error)
        return True

    def _stored(self, records: Sequence[EnergyRecord]) -> None:
        with self._counting:
            fresh = self._leave(records)
            self.stored += len(fresh)
        if self.failing is not None:
            logger.warning("%s: records are stored again", self.name)
            self.failing = None
        if fresh and self._on_stored is not None:
            try:
                self._on_stored(fresh)
            except Exception:
                logger.exception("%s: the reader of stored records failed", self.name)

    def _refused(self, record: EnergyRecord, error: BaseException) -> None:
        with self._counting:
            self.dropped += len(self._leave([record]))
        logger.warning("%s: record %s cannot be stored and is dropped: %r", self.name, record.facts.record_id, error)

    def _leave(self, records: Sequence[EnergyRecord]) -> Sequence[EnergyRecord]:
        """Take these out of the batch and return them, without those that are no longer there (close() counted them)."""
        if len(records) == len(self._batch) and all(map(is_, records, self._batch)):  # mostly it is the whole batch
            left, self._batch = self._batch, []
            return left
        leaving = set(map(id, records))
        left = [record for record in self._batch if id(record) in leaving]
        self._batch = [record for record in self._batch if id(record) not in leaving]
        return left
