"""Where settled records go, and how one is found again: the latest in memory, then the ledger, the spans, and every other sink."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from perjoule.sidecar.access.limits import Limits
from perjoule.sidecar.ports import RecordSink
from perjoule.sidecar.record import Balance, EnergyRecord
from perjoule.sidecar.records.feed import Feed, FromLedger
from perjoule.sidecar.records.outbox import Outbox
from perjoule.sidecar.records.recent import Recent

STORED_S = 0.1  # how often it is asked whether records have been stored

logger = logging.getLogger("perjoule")


class Ledger(RecordSink, Protocol):
    """A sink that can be asked (admin.RecordQueries says how). All calls block, and raise OSError while it cannot be read or written."""

    def get(self, any_id: str) -> dict[str, Any] | None: ...
    def grouped(self, by: Sequence[str], *, interval_s: int | None, model: str | None, tenant: str | None,
                since_unix_ns: int | None, until_unix_ns: int | None) -> list[dict[str, Any]]: ...
    def keep_balance(self, balance: Balance) -> None: ...


class Archive:
    """An outbox for each sink; `ledger` is what can be asked for what the sink of its name keeps, None if nothing can. Made on the event
    loop."""

    def __init__(self, sinks: Sequence[RecordSink | FromLedger], ledger: Ledger | None) -> None:
        self._ledger, self._loop = ledger, asyncio.get_running_loop()
        self.recent = Recent(durable=ledger is not None)
        keeper = None if ledger is None else ledger.name
        self.outboxes = [Feed(sink) if isinstance(sink, FromLedger)
                         else Outbox(sink, on_stored=self._stored if sink.name == keeper else None)
                         for sink in sinks]
        self._feeds = [outbox for outbox in self.outboxes if isinstance(outbox, Feed)]
        self._to_ledger = next((outbox for outbox in self.outboxes if outbox.name == keeper), None)
        self._account_failed = False

    def keep(self, *records: EnergyRecord) -> None:
        """Send settled records to every sink. Nothing here waits."""
        for outbox in self.outboxes:
            outbox.put(*records)

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

    async def keep_account(self, account: Balance) -> None:
        """Keep the account of this run, once every record in it has been stored or counted as lost."""
        while (box := self._to_ledger) is not None and box.stored + box.dropped < account.sequence:
            await asyncio.sleep(STORED_S)
        await asyncio.to_thread(self._keep_account, account)

    @property
    def failing(self) -> dict[str, str]:
        """The last error of each sink that fails."""
        return {outbox.name: outbox.failing for outbox in self.outboxes if outbox.failing}

    def close(self, timeout_s: float, account: Balance | None = None) -> None:
        """Store what waits, for so long each, then the last account of this run."""
        for outbox in self.outboxes:
            outbox.close(timeout_s)
        if account is not None and self._to_ledger is not None and not self._to_ledger.failing:
            self._keep_account(account)
        if self._ledger is not None:
            self._ledger.close()

    def _keep_account(self, account: Balance) -> None:
        """Blocks. What fails is said once; the next account has all that this one had."""
        if self._ledger is None:
            return
        try:
            self._ledger.keep_balance(account)
            self._account_failed = False
        except OSError as error:
            if not self._account_failed:
                logger.warning("the account of this run is not kept: %s", error)
            self._account_failed = True

    def _stored(self, records: Sequence[EnergyRecord]) -> None:
        """The ledger has them (told from its outbox's thread)."""
        for feed in self._feeds:
            feed.ring()
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.recent.stored, tuple(records))
