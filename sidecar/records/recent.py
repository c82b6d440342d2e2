"""The latest records in memory, for those who ask by id, and for answers that wait until theirs is settled and safe."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace

from perjoule.sidecar.record import EnergyRecord

CAPACITY = 4096  # some 12 MB
BEFORE_A_LEDGER = 1024  # which knows the older ones


class Recent:
    """Records by record id and by the client's request id (the latest of that id), the newest `capacity` of them.

    A record shown as settled survives `kill -9`: where a ledger keeps records, one counts as settled here only after
    `stored` has said that the ledger has it.
    """

    def __init__(self, *, durable: bool, capacity: int | None = None) -> None:
        self._durable, self.capacity = durable, capacity or (BEFORE_A_LEDGER if durable else CAPACITY)
        self._records: OrderedDict[str, tuple[EnergyRecord, bool]] = OrderedDict()
        self._by_request: dict[str, str] = {}
        self._waiting: dict[str, asyncio.Future[EnergyRecord]] = {}

    def add(self, record: EnergyRecord) -> None:
        """A record that the meter has settled."""
        self._records[record.facts.record_id] = (record, False)
        self._by_request[record.facts.request_id] = record.facts.record_id
        while len(self._records) > self.capacity:
            old_id, (old, _) = self._records.popitem(last=False)
            if self._by_request.get(old.facts.request_id) == old_id:
                del self._by_request[old.facts.request_id]
        if not self._durable:
            self.stored((record,))

    def stored(self, records: Iterable[EnergyRecord]) -> None:
        """The ledger has these."""
        for record in records:
            record_id = record.facts.record_id
            if record_id in self._records:
                self._records[record_id] = (record, True)
            future = self._waiting.pop(record_id, None)
            if future is not None and not future.done():
                future.set_result(record)

    def get(self, any_id: str) -> EnergyRecord | None:
        """The record of that id, its charge marked as not settled while the ledger does not have it yet."""
        found = self._records.get(any_id) or self._records.get(self._by_request.get(any_id, ""))
        if found is None:
            return None
        record, safe = found
        return record if safe else replace(record, charge=replace(record.charge, settled=False))

    def all(self) -> list[EnergyRecord]:
        """The records, in the order in which they were settled."""
        return [record for record, _ in self._records.values()]

    async def settled(self, record_id: str, timeout_s: float) -> EnergyRecord | None:
        """The record once it is settled and safe; None if that takes longer than `timeout_s`."""
        found = self._records.get(record_id)
        if found is not None and found[1]:
            return found[0]
        future = self._waiting.setdefault(record_id, asyncio.get_running_loop().create_future())
        try:
            return await asyncio.wait_for(asyncio.shield(future), timeout_s)
        except TimeoutError:
            self._waiting.pop(record_id, None)
            return None
