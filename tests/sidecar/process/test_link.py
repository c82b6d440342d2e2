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
from perjoule.sidecar.process.link import Link
from perjoule.sidecar.process.remote_desk import RemoteDesk
from perjoule.sidecar.process.shared_desk import SharedDesk
from perjoule.sidecar.process.wire import Kind, Messages
from perjoule.sidecar.record import Outcome, Status
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
    shared = SharedDesk(meter or Meter(), Recent(durable=False), lambda record: None, find, limits)
    desk = RemoteDesk(lambda data: link.data_received(data))
    link = Link(shared, print, lambda: None)
    link.connection_made(There(desk))
    return desk, link, shared


def begin(desk, record_id="r"):
    watch = Watch(desk, endpoint_of("POST", "/v1/chat/completions"), Asked(), Identity(record_id, "mine"), "vllm", T_NS, 10**18)
    watch.begin(T_NS)
    return watch


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
    ((_, told),) = [each for each in Messages().feed(bytes(wire)) if each[0] is Kind.FRAMES]
    triples = [(told[i], (told[i + 1] - T_NS) // 1000, told[i + 2]) for i in range(0, len(told), 3)]
    assert triples == [(1, 0, 3), (2, 0, 6), (1, 1000, 1), (2, 1000, 2), (1, 5000, 1), (2, 5000, 2)]


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
    shared._deliver = records.append
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
