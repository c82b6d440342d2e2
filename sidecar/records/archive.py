"""Where settled records go, and how one is found again: the latest in memory, then the ledger, the spans, and every other sink."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from perjoule.sidecar.access.limits import Limits
from perjoule.sidecar.ports import RecordSink
from perjoule.sidecar.record import EnergyRecord
from perjoule.sidecar.records.outbox import Outbox
from perjoule.sidecar.records.recent import Recent

logger = logging.getLogger("perjoule")


class Ledger(RecordSink, Protocol):
    """A sink that can be asked (admin.RecordQueries says how). Both calls block, and raise OSError while it cannot be read."""

    def get(self, any_id: str) -> dict[str, Any] | None: ...
    def grouped(self, by: Sequence[str], *, interval_s: int | None, model: str | None, tenant: str | None,
                since_unix_ns: int | None, until_unix_ns: int | None) -> list[dict[str, Any]]: ...


class Archive:
    """An outbox for each sink; of these, `ledger` is the one that can be asked, None if none can. Made on the event loop."""

    def __init__(self, sinks: Sequence[RecordSink], ledger: Ledger | None) -> None:
        self._ledger, self._loop = ledger, asyncio.get_running_loop()
        self.recent = Recent(durable=ledger is not None)
        self.outboxes = [Outbox(sink, on_stored=self._stored if sink is ledger else None) for sink in sinks]

    def keep(self, record: EnergyRecord) -> None:
        """Send a settled record to every sink. Nothing here waits."""
        for outbox in self.outboxes:
            outbox.put(record)

    async def find(self, any_id: str) -> dict[str, Any] | None:
        """A stored record by its id or the client's request id. Raises OSError while the ledger cannot be read."""
        return await asyncio.to_thread(self._ledger.get, any_id) if self._ledger is not None else None

    async def recall(self, limits: Limits, t_ns: int) -> None:
        """What keys have used of their budgets in the present intervals, before this run."""
        if self._ledger is None:
            return
        for interval_s, since_unix_ns in limits.begun_unix_ns(t_ns).items():
            try:
                recorded = await asyncio.to_thread(self._ledger.grouped, ["tenant"], interval_s=None, model=None, tenant=None,
                                                   since_unix_ns=since_unix_ns, until_unix_ns=None)
                limits.recall(interval_s, recorded, t_ns)
            except OSError as error:
                logger.warning("what keys have used before is not known, and not held against them: %s", error)

    @property
    def failing(self) -> dict[str, str]:
        """The last error of each sink that fails."""
        return {outbox.name: outbox.failing for outbox in self.outboxes if outbox.failing}

    def close(self, timeout_s: float) -> None:
        """Store what waits, for so long each."""
        for outbox in self.outboxes:
            outbox.close(timeout_s)

    def _stored(self, records: Sequence[EnergyRecord]) -> None:
        """The ledger has them (told from its outbox's thread)."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.recent.stored, tuple(records))
