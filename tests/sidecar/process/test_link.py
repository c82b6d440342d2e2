"""Both ends of the wire between a worker and the meter: questions are answered, and nobody waits for one that is gone."""

import asyncio

import pytest

from perjoule.sidecar.access.doors import Refusal
from perjoule.sidecar.access.keys import Budget, Keys
from perjoule.sidecar.access.limits import Limits
from perjoule.sidecar.dialects.endpoints import endpoint_of
from perjoule.sidecar.dialects.requests import Asked
from perjoule.sidecar.dialects.watch import Identity, Watch
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.ports import Device
from perjoule.sidecar.process.link import MOST_AT_ONCE, Link
from perjoule.sidecar.process.remote_desk import RemoteDesk
from perjoule.sidecar.process.shared_desk import SharedDesk
from perjoule.sidecar.process.wire import Kind, Messages
from perjoule.sidecar.record import Outcome, RequestFacts, Status
from perjoule.sidecar.records.recent import Recent

T_NS = 10**12


class There:
    """A transport that carries the meter's words to the worker."""

    def __init__(self, desk):
        self.desk, self.messages = desk, Messages()

    def write(self, data):
        for kind, said in self.messages.feed(data):
            self.desk.heard(kind, said)


def pair(find=None, limits=None, meter=None):
    """A worker's desk, and the link that it talks to."""
    shared = SharedDesk(meter or Meter(), Recent(durable=False), lambda records: None, find, limits)
    desk = RemoteDesk(lambda data: link.data_received(data))
    link = Link(shared, print, lambda: None)
    link.connection_made(There(desk))
    return desk, link, shared


def begin(desk, record_id="r"):
    watch = Watch(desk, endpoint_of("POST", "/v1/chat/completions"), Asked(), Identity(record_id, "mine"), "vllm", T_NS, 10**18)
    watch.begin(T_NS)
    return watch


class Keeping:
    """A transport that keeps what is written to it."""

    def __init__(self, written):
        self.write = written.append


def facts_at_the_end(record_id):
    """Of a request that `begin` began."""
    return RequestFacts(record_id, "mine", 10**18, 9, Outcome.COMPLETED, "chat.completions", "vllm", True)


async def test_the_last_of_a_budget_is_taken_once():
    """Two workers may ask at once: the meter lets one in, and the other client reads why not."""
    desk, _, _ = pair(limits=Limits(Keys({}, {"a": Budget(3600, requests=1)})))
    first, second = await asyncio.gather(desk.admit("a", T_NS), desk.admit("a", T_NS))
    assert first is None
    assert isinstance(second, Refusal)
    assert (second.status, dict(second.fields)["x-ratelimit-limit-requests"]) == (429, "1")


async def test_a_record_is_found_by_the_meter():
    """By the client's id, with what is known of a request that has just ended; what is not there is not found."""
    async def find(any_id):
        return None

    desk, _, _ = pair(find)
    begin(desk).end(T_NS + 5, Outcome.COMPLETED)
    desk.flush()
    await asyncio.sleep(0.05)
    assert (await desk.find("mine"))["record_id"] == "r"
    assert await desk.find("never") is None


async def test_a_ledger_that_cannot_be_read_is_an_error_here_too():
    """The client gets a 503, not a 404."""
    async def find(any_id):
        raise OSError("locked")

    desk, _, _ = pair(find)
    with pytest.raises(OSError, match="locked"):
        await desk.find("r")


async def test_a_charge_is_told_once_it_is_asked_for():
    """With no energy source it is unavailable, and said to be."""
    desk, _, _ = pair()
    told = []
    begin(desk).end(T_NS + 5, Outcome.COMPLETED)
    desk.ask("r", T_NS + 5, told.append, settled=False)
    assert [charge.status for charge in told] == [Status.UNAVAILABLE]


async def test_what_cannot_be_charged_is_told_as_nothing():
    """A request that the meter never heard of: the client's answer goes out, and the failure is counted."""
    desk, _, shared = pair(meter=Meter([Device("GPU-a", "board")], source="test", status=Status.MEASURED))
    told = []
    desk.ask("unheard-of", T_NS, told.append, settled=False)
    assert (told, shared.failures) == ([None], 1)


async def test_frames_of_a_moment_are_told_as_one():
    """An engine that floods does not flood the wire: the count is whole, and the time is that of the first within a millisecond."""
    wire = bytearray()
    desk = RemoteDesk(wire.extend)
    begin(desk)
    begin(desk, "s")
    for t_us in (0, 300, 900, 1000, 5000):
        desk.tokens("r", T_NS + t_us * 1000, 1)
        desk.tokens("s", T_NS + t_us * 1000, 2)
    desk.flush()
    ((told,),) = [said for kind, said in Messages().feed(bytes(wire)) if kind == Kind.FRAMES]
    triples = [(told[i], (told[i + 1] - T_NS) // 1000, told[i + 2]) for i in range(0, len(told), 3)]
    assert triples == [(1, 0, 3), (2, 0, 6), (1, 1000, 1), (2, 1000, 2), (1, 5000, 1), (2, 5000, 2)]


async def test_what_is_told_stays_in_order_and_is_answered_together():
    """Frames before and after what else is said of their request go out as one, and so do the charges of two that ended."""
    sent, told, records = [], [], []
    desk, link, shared = pair()
    shared._deliver = records.extend
    desk._send = sent.append
    for record_id in "rs":
        begin(desk, record_id)
    for record_id in "rs":
        desk.tokens(record_id, T_NS + 3, 2)
        desk.prompt(record_id, 5, 0)
        desk.tokens(record_id, T_NS + 5, 1)
    desk.flush()
    assert [kind for kind, _ in Messages().feed(b"".join(sent))] == [
        Kind.BEGUN, Kind.BEGUN, Kind.FRAMES, Kind.PROMPT, Kind.FRAMES, Kind.PROMPT, Kind.FRAMES]
    for record_id in "rs":
        desk.end(facts_at_the_end(record_id), T_NS + 9)
        desk.ask(record_id, T_NS + 9, told.append, settled=False)
    answers = []
    link.connection_made(Keeping(answers))
    link.data_received(b"".join(sent))
    assert [[kind for kind, _ in Messages().feed(answer)] for answer in answers] == [[Kind.TOLD, Kind.TOLD]]
    assert [record.facts.record_id for record in records] == ["r", "s"]
    assert shared.failures == 0


async def test_no_answer_waits_for_more_than_a_few_others():
    """However many have asked while the meter was busy, each of them is told, and the first before the last is looked at."""
    sent, answers = [], []
    desk, link, _ = pair()
    desk._send = sent.append
    for number in range(MOST_AT_ONCE + 2):
        desk.ask(f"r{number}", T_NS, print, settled=False)
    link.connection_made(Keeping(answers))
    link.data_received(b"".join(sent))
    told = [[said[0] for _, said in Messages().feed(answer)] for answer in answers]
    assert list(map(len, told)) == [MOST_AT_ONCE, 2]
    assert [*told[0], *told[1]] == [f"r{number}" for number in range(MOST_AT_ONCE + 2)]


async def test_a_meter_that_does_not_answer_keeps_nobody(monkeypatch):
    """Each client waits as long as it may and no longer, whether others ask meanwhile or not; a late answer is told to nobody."""
    monkeypatch.setattr("perjoule.sidecar.process.remote_desk.ANSWER_LIMIT_S", 0.1)
    desk, loop, told = RemoteDesk(lambda data: None), asyncio.get_running_loop(), {}
    begun_s = loop.time()
    for place, record_id in enumerate("rstu"):
        desk.ask(record_id, T_NS, lambda charge, who=record_id: told.setdefault(who, (charge, loop.time())), settled=False)
        await asyncio.sleep(0.03 if place < 3 else 0.3)
    desk.heard(Kind.TOLD, ["r", None])
    desk.ask("v", T_NS, lambda charge: told.setdefault("v", (charge, loop.time())), settled=False)
    again_s = loop.time()
    await asyncio.sleep(0.3)
    assert [(who, charge) for who, (charge, _) in told.items()] == [(who, None) for who in "rstuv"]
    waited_s = [told[who][1] - begun_s - 0.03 * place for place, who in enumerate("rstu")] + [told["v"][1] - again_s]
    assert all(0.09 <= waited < 0.28 for waited in waited_s), waited_s


async def test_nobody_waits_for_a_meter_that_is_gone():
    """Answers go out without joules, questions fail, and budgets refuse nobody."""
    desk = RemoteDesk(lambda data: None)
    told = []
    begin(desk).end(T_NS + 5, Outcome.COMPLETED)
    desk.ask("r", T_NS + 5, told.append, settled=True)
    finding, admitting = asyncio.ensure_future(desk.find("r")), asyncio.ensure_future(desk.admit("a", T_NS))
    await asyncio.sleep(0)
    desk.lost()
    assert told == [None]
    with pytest.raises(OSError, match="the meter is gone"):
        await finding
    assert await admitting is None


async def test_a_worker_that_dies_has_its_requests_ended():
    """As errored, as long as they ran, with the frames that were seen."""
    records = []
    desk, link, shared = pair()
    shared._deliver = records.extend
    begin(desk)
    desk.tokens("r", T_NS + 7, 3)
    desk.flush()
    link.connection_lost(None)
    shared.tick(int((asyncio.get_running_loop().time() + 10) * 1e9) + T_NS)
    (record,) = records
    facts = record.facts
    assert (facts.outcome, facts.error_type, facts.output_tokens) == (Outcome.ERRORED, "worker_died", 3)
    assert facts.end_ns > 0
    assert link.in_flight == 0


def test_every_kind_of_message_is_one_byte():
    """And those for a worker are told apart from those for the meter."""
    assert all(0 < kind < 256 for kind in Kind)
