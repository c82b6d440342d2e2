"""The sidecar's operator's port, seen from a run: what must be equal for two runs, how the joules and the boards stand, the records."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp

from perjoule.bench.measures.run import Record
from perjoule.sidecar.settings.config import Config
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

PATIENCE = aiohttp.ClientTimeout(total=10)
SETTLE_S = 10.0  # within so long after the last answer every record is settled and stored
LOOK_S = 0.1
PAGE = 5_000  # records at once
AT_ONCE = 8  # records asked for one by one
SLACK_NS = 60 * NS_PER_S  # a record's arrival is by the sidecar's wall clock


class Operator:
    """Questions to a sidecar. Where its operator's port cannot be reached (`reached` is False), records are asked for one by one at the
    port of the traffic, and nothing is known of the rest."""

    def __init__(self, url: str, admin: str | None, token: str | None = None) -> None:
        """`url` is where the traffic goes, `admin` the operator's port (None: the default one on the same host)."""
        self.url = url.rstrip("/")
        self.admin = (admin or default_admin(url)).rstrip("/")
        self.reached = False
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=PATIENCE)
        self.reached = await self._get(self.admin, "/energy/setting") is not None
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        await self._session.close()

    async def setting(self) -> dict[str, Any]:
        """What the sidecar knows of engine and energy, and of the boards what does not change; empty where it cannot be reached."""
        found = await self._get(self.admin, "/energy/setting") or {}
        boards = await self.boards()
        if boards:
            names = {board["name"] for board in boards}
            found |= {"gpu_model": ", ".join(sorted(names)), "num_gpus": len(boards), "power_limit_w": boards[0].get("power_limit_w"),
                      "driver_version": boards[0].get("driver_version")}
        return found

    async def balance(self) -> dict[str, Any] | None:
        """The account of joules now; None where there is no source, or no answer."""
        return await self._get(self.admin, "/energy/balance") if self.reached else None

    async def boards(self) -> list[dict[str, Any]]:
        """How each board is now."""
        found = await self._get(self.admin, "/energy/boards")
        return list(found["boards"]) if found else []

    async def settled(self) -> dict[str, Any] | None:
        """The account once no request is open any more, or as it is when that takes too long."""
        for _ in range(round(SETTLE_S / LOOK_S)):
            balance = await self.balance()
            if balance is None or not balance.get("unsettled"):
                break
            await asyncio.sleep(LOOK_S)
        return balance

    async def records(self, since_unix_ns: int, wanted: Mapping[str, str]) -> list[Record]:
        """All records of requests that arrived since then, other clients' too, or those `wanted` (record ids, by request id) where the
        sidecar keeps no ledger, or does not say. They are waited for until all that are wanted are there, for some seconds."""
        ours, found = set(wanted.values()), list[Record]()
        for _ in range(round(SETTLE_S / LOOK_S)):
            kept = await self._ledger(since_unix_ns - SLACK_NS) if self.reached else None
            if kept is None:
                return await self._one_by_one(ours)
            found = kept
            if ours <= {record["record_id"] for record in found}:
                break
            await asyncio.sleep(LOOK_S)
        return [record for record in found if record["record_id"] in ours or record["arrival_unix_ns"] >= since_unix_ns]

    async def _ledger(self, since_unix_ns: int) -> list[Record] | None:
        """Page by page, the newest first; None where there is no ledger."""
        found: dict[str, Record] = {}
        until = ""
        while True:
            query = {"since": _moment(since_unix_ns), "limit": str(PAGE)} | ({"until": until} if until else {})
            page = await self._get(self.admin, "/energy", query)
            if page is None:
                return None
            fresh = {record["record_id"]: record for record in page["records"] if record["record_id"] not in found}
            found |= fresh
            if len(page["records"]) < PAGE or not fresh:
                return list(found.values())
            oldest_ns = min(record["arrival_unix_ns"] for record in page["records"])
            until = _moment(oldest_ns + NS_PER_MS)  # those of the same moment come again

    async def _one_by_one(self, record_ids: Collection[str]) -> list[Record]:
        room = asyncio.Semaphore(AT_ONCE)

        async def one(record_id: str) -> Record | None:
            async with room:
                return await self._get(self.url, f"/energy/{record_id}")

        found: Sequence[Record | None] = await asyncio.gather(*map(one, record_ids))
        return [record for record in found if record is not None]

    async def _get(self, base: str, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any] | None:
        try:
            async with self._session.get(base + path, params=query, headers=self._headers) as answer:
                found = await answer.json() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return None
        return found if isinstance(found, dict) else None


def _moment(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns / NS_PER_S, UTC).isoformat()


def default_admin(url: str) -> str:
    """Where `perjoule serve` has its operator's port, unless it was told another one."""
    port = str(next(each.default for each in fields(Config) if each.name == "admin")).rpartition(":")[2]
    return f"http://{urlsplit(url).hostname or '127.0.0.1'}:{port}"
