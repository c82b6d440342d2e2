"""The latest records in memory, for those who ask by id, and for answers that wait until theirs is settled and safe."""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from perjoule.sidecar.record import EnergyRecord, RequestFacts

CAPACITY = 4096  # some 12 MB
BEFORE_A_LEDGER = 1024  # which knows the older ones


class Recent:
    """Records by record id and by the client's request id (the latest of that id), the newest `capacity` of them.

    A record shown as settled survives `kill -9`: where a ledger keeps records, one counts as settled here only after
    `stored` has said that the ledger has it.
    """

    def __init__(self, *, durable: bool, capacity: int | None = None) -> None:
        self._durable, self.capacity = durable, capacity or (BEFORE_A_LEDGER if durable else CAPACITY)
        self._order: deque[EnergyRecord] = deque()  # as they were settled
        self._records: dict[str, EnergyRecord] = {}
        self._unsafe: set[str] = set()  # of them, those that the ledger does not have yet
        self._by_request: dict[str, str] = {}  # where that is another id
        self._waiting: dict[str, asyncio.Future[EnergyRecord]] = {}

    def add(self, record: EnergyRecord) -> None:
        """A record that the meter has settled."""
        record_id, request_id = record.facts.record_id, record.facts.request_id
        self._order.append(record)
        self._records[record_id] = record
        self._unsafe.add(record_id)
        if request_id != record_id:
            self._by_request[request_id] = record_id
        if len(self._order) > self.capacity:
            self._forget(self._order.popleft().facts)
        if not self._durable:
            self.stored((record,))

    def stored(self, records: Iterable[EnergyRecord]) -> None:
        """The ledger has these."""
        for record in records:
            record_id = record.facts.record_id
            self._unsafe.discard(record_id)
            future = self._waiting.pop(record_id, None) if self._waiting else None
            if future is not None and not future.done():
                future.set_result(record)

    def get(self, any_id: str) -> EnergyRecord | None:
        """The record of that id, its charge marked as not settled while the ledger does not have it yet."""
        record = self._records.get(any_id) or self._records.get(self._by_request.get(any_id, ""))
        if record is None or record.facts.record_id not in self._unsafe:
            return record
        return replace(record, charge=replace(record.charge, settled=False))

    def all(self) -> list[EnergyRecord]:
        """The records, in the order in which they were settled."""
        return list(self._order)

    async def settled(self, record_id: str, timeout_s: float) -> EnergyRecord | None:
        """The record once it is settled and safe; None if that takes longer than `timeout_s`."""
        found = self._records.get(record_id)
        if found is not None and record_id not in self._unsafe:
            return found
        future = self._waiting.setdefault(record_id, asyncio.get_running_loop().create_future())
        try:
            return await asyncio.wait_for(asyncio.shield(future), timeout_s)
        except TimeoutError:
            self._waiting.pop(record_id, None)
            return None

    def _forget(self, old: RequestFacts) -> None:
        self._records.pop(old.record_id, None)
        self._unsafe.discard(old.record_id)
        if self._by_request.get(old.request_id) == old.record_id:
            del self._by_request[old.request_id]
