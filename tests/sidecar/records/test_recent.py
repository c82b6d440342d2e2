"""Records are found by id, and shown as settled only when they are safe."""

import asyncio

from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status
from perjoule.sidecar.records.recent import Recent


def record(record_id, request_id="client"):
    facts = RequestFacts(record_id, request_id, 0, 1, Outcome.COMPLETED, "chat.completions", "vllm", False)
    return EnergyRecord(facts, Charge(Status.MEASURED, "token-share", "nvml", True, energy_uj=5))


def test_a_record_is_settled_once_the_ledger_has_it():
    """Law 4: what is shown as settled survives kill -9, so before the ledger has it, it is not shown so."""
    recent = Recent(durable=True)
    recent.add(record("a"))
    assert recent.get("a").charge.settled is False
    recent.stored([record("a")])
    assert recent.get("a").charge.settled is True


def test_without_a_ledger_it_is_settled_at_once():
    """Where nothing is kept, there is nothing to wait for."""
    recent = Recent(durable=False)
    recent.add(record("a"))
    assert recent.get("a").charge.settled is True


def test_a_client_s_own_id_finds_its_latest_request():
    """Two requests with one X-Request-Id are two records; the id finds the later one."""
    recent = Recent(durable=False)
    recent.add(record("a"))
    recent.add(record("b"))
    assert recent.get("client").facts.record_id == "b"
    assert recent.get("a").facts.record_id == "a"
    assert recent.get("nobody") is None


def test_only_so_many_are_kept():
    """The oldest goes, with its client's id."""
    recent = Recent(durable=False, capacity=2)
    for name in "abc":
        recent.add(record(name, f"client-{name}"))
    assert recent.get("a") is recent.get("client-a") is None
    assert recent.get("client-c") is not None
    assert [each.facts.record_id for each in recent.all()] == ["b", "c"]


async def test_an_answer_can_wait_for_its_record():
    """`settled` returns when the record is stored, and gives up when that takes too long, leaving nothing behind."""
    recent = Recent(durable=True)
    waiting = asyncio.ensure_future(recent.settled("a", 5.0))
    await asyncio.sleep(0)
    recent.add(record("a"))
    recent.stored([record("a")])
    assert (await waiting).facts.record_id == "a"
    assert (await recent.settled("a", 5.0)).facts.record_id == "a"
    assert await recent.settled("never", 0.01) is None
    assert recent._waiting == {}
