"""The account of this run, kept in the ledger every ten seconds and at the end: by it anybody can see whether records are missing."""

import asyncio
import time
from typing import Protocol

from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.process.source import Source
from perjoule.sidecar.record import Balance
from perjoule.sidecar.records.archive import Archive

KEEP_S = 10.0


class Run(Protocol):
    """What has been settled since the start; the service is one."""

    instance_id: str
    settled: int
    settled_uj: int
    source: Source


class Accounts:
    """Keeps the accounts of a run in its archive."""

    def __init__(self, run: Run, meter: Meter, archive: Archive) -> None:
        self._run, self._meter, self._archive = run, meter, archive
        self._host_uj: int | None = None

    def now(self) -> Balance | None:
        """The account at this moment, None without a source of energy."""
        run, counter, divided = self._run, self._run.source.counter, self._meter.balance
        if counter is None:
            return None
        return Balance(run.instance_id, time.time_ns(), run.settled, divided.measured_uj, divided.requests_uj, divided.idle_uj,
                       divided.unattributed_uj, run.settled_uj, counter.name, counter.status, self._host_uj)

    async def keep(self) -> None:
        """One now, from which the others count, and one every KEEP_S, for ever."""
        while True:
            await asyncio.to_thread(self._look_at_host)
            if (account := self.now()) is not None:
                await self._archive.keep_account(account)
            await asyncio.sleep(KEEP_S)

    def close(self, timeout_s: float) -> None:
        """The last records to where they go, for so long each, then the last account."""
        self._archive.close(timeout_s, self.now())

    def _look_at_host(self) -> None:
        """What the host has drawn; None from when on it cannot be read. Blocks."""
        try:
            self._host_uj = None if self._run.source.host is None else self._run.source.host()
        except OSError:
            self._host_uj = None
