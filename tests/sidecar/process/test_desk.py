"""The desk: what a request costs by now or once it is settled, and a record by its id, waited for while it settles."""

import asyncio

from perjoule.sidecar.access.limits import Limits
from perjoule.sidecar.dialects.endpoints import endpoint_of
from perjoule.sidecar.dialects.requests import read_request
from perjoule.sidecar.dialects.watch import Identity, Watch
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.process.desk import Desk
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status
from perjoule.sidecar.records.recent import Recent

MS = 1_000_000


def a_desk(stored=None):
    """A desk without an energy source, and the records that it delivers."""
    delivered = []

    async def find(any_id):
        return (stored or {}).get(any_id)

    return Desk(Meter(), Recent(durable=True), delivered.extend, find), delivered


def a_watch(desk):
    """A request that has begun there."""
    endpoint = endpoint_of("POST", "/v1/chat/completions")
    it = Watch(desk, endpoint, read_request(endpoint, b"{}"), Identity("r", "mine"), "vllm", 100 * MS, 10**18)
    it.begin(110 * MS)
    return it


def test_without_a_source_the_charge_is_unavailable():
    """While it runs, too; and who asks is told at once."""
    desk, _ = a_desk()
    a_watch(desk)
    told = []
    desk.ask("r", 200 * MS, told.append, settled=False)
    assert [charge.status for charge in told] == [desk.charge("r", 200 * MS).status] == [Status.UNAVAILABLE]


async def test_who_wants_it_settled_is_told_once_the_ledger_has_it():
    """Not before, since what was shown as settled survives a crash."""
    desk, delivered = a_desk()
    a_watch(desk).end(200 * MS, Outcome.COMPLETED)
    told = []
    desk.ask("r", 200 * MS, told.append, settled=True)
    await asyncio.sleep(0)
    assert told == []
    desk.recent.stored(delivered)
    async with asyncio.timeout(5):
        while not told:
            await asyncio.sleep(0)
    assert told[0].settled


async def test_a_record_is_found_by_either_id_recent_or_stored():
    """And nothing is found where there is nothing."""
    desk, delivered = a_desk({"old": {"record_id": "old"}})
    a_watch(desk).end(200 * MS, Outcome.COMPLETED)
    desk.recent.stored(delivered)
    assert (await desk.find("mine"))["record_id"] == "r"
    assert await desk.find("old") == {"record_id": "old"}
    assert await desk.find("never") is None


def test_what_fails_for_one_record_loses_none():
    """All that settle at once are delivered at once, in their order; the failure is counted."""
    class Broken(Limits):
        def spent(self, record, t_ns):
            if record.facts.record_id == "b":
                raise ValueError

    batches = []
    desk = Desk(Meter(), Recent(durable=True), batches.append, None, Broken())
    charge = Charge(Status.UNAVAILABLE, "token-share", "none", True)
    desk._settled([EnergyRecord(RequestFacts(name, name, 1, 2, Outcome.COMPLETED, "chat", "vllm", False), charge) for name in "abc"])
    desk._settled([])
    assert [[record.facts.record_id for record in batch] for batch in batches] == [["a", "b", "c"]]
    assert desk.failures == 1
