"""A thread for each place that records go to, so that a slow or broken place never holds up a request."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from perjoule.sidecar.ports import RecordSink
from perjoule.sidecar.record import EnergyRecord

BATCH = 512
GATHER_S = 0.025
BACKOFF_FIRST_S = 0.1
BACKOFF_MOST_S = 5.0

logger = logging.getLogger(__name__)


class Outbox:
    """Records on their way to one sink: taken at once, stored in order and in batches, tried again until it works.

    `stored` and `dropped` count records; `failing` is the sink's last error while it fails, else None. A batch that
    failed is given again whole, so a sink counts a record once by its id. This thread calls `on_stored` after each
    batch, and closes the sink after the last.
    """

    def __init__(self, sink: RecordSink, capacity: int = 100_000,
                 on_stored: Callable[[Sequence[EnergyRecord]], None] | None = None) -> None:
        self.stored = 0
        self.dropped = 0
        self.failing: str | None = None
        self._sink = sink
        self._capacity = capacity
        self._on_stored = on_stored
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

    def put(self, record: EnergyRecord) -> None:
        """Take a record. Never waits and never raises: beyond capacity, or after close, it is dropped and counted."""
        if self._closing.is_set() or self.pending >= self._capacity:
            with self._counting:
                self.dropped += 1
            return
        self._waiting.append(record)
        if not self._wake.is_set():
            self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Store what is waiting, for at most `timeout_s` seconds; what then remains is dropped and counted."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        with self._counting:
            self._given_up.set()
            self.dropped += self.pending
            self._waiting.clear()
            self._batch = []

    def _run(self) -> None:
        while self._waiting or not self._closing.is_set():
            if not self._closing.is_set():
                self._wake.wait()
                self._wake.clear()
                self._closing.wait(GATHER_S)  # one commit for many records
            while batch := self._take():
                self._store(batch)
        try:
            self._sink.close()
        except Exception:
            logger.exception("%s: closing failed", self.name)

    def _take(self) -> Sequence[EnergyRecord]:
        with self._counting:
            if not self._given_up.is_set():
                self._batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            return self._batch

    def _store(self, batch: Sequence[EnergyRecord]) -> None:
        """Give the sink one batch until it takes it, or until there is no time left."""
        delay_s = BACKOFF_FIRST_S
        while not self._given_up.is_set():
            try:
                self._sink.put(batch)
            except BaseException as error:  # whatever a sink raises, this thread has records to keep
                if self.failing is None:
                    logger.warning("%s: cannot store records, trying again: %r", self.name, error)
                self.failing = f"{type(error).__name__}: {error}"
                # Once closing begins the wait is short again: there may be little time.
                closing = self._closing.is_set()
                interrupted = (self._given_up if closing else self._closing).wait(delay_s)
                delay_s = BACKOFF_FIRST_S if interrupted else min(delay_s * 2, BACKOFF_MOST_S)
            else:
                self._stored(batch)
                return

    def _stored(self, batch: Sequence[EnergyRecord]) -> None:
        with self._counting:
            if self._given_up.is_set():  # too late: close() has counted it as dropped
                return
            self.stored += len(batch)
            self._batch = []
        if self.failing is not None:
            logger.warning("%s: records are stored again", self.name)
            self.failing = None
        if self._on_stored is not None:
            try:
                self._on_stored(batch)
            except Exception:
                logger.exception("%s: the reader of stored records failed", self.name)
