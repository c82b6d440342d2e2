"""CloudEvents, sent to a real HTTP server that fails, hangs, hangs up and comes back; fed from memory, or from a real ledger."""

import asyncio
import json
import random
import socket
from dataclasses import replace

import pytest
from hypothesis import given

from perjoule.adapters.cloudevents import CloudEvents
from perjoule.adapters.ledger.cursors import TURN_NS, Cursor
from perjoule.adapters.ledger.database import open_database
from perjoule.adapters.ledger.store import Ledger
from perjoule.sidecar.ports import TryLaterError
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status
from perjoule.sidecar.records.archive import Archive
from perjoule.sidecar.records.event import event_of
from perjoule.sidecar.records.feed import Feed, FromLedger
from perjoule.sidecar.records.outbox import Outbox
from tests.fakes.events import CUT, SILENT, TAKE, event_sink
from tests.fakes.records import records as any_record

ARRIVAL = 1_790_000_000_000_000_123
FACTS = RequestFacts("r0", "q0", ARRIVAL, 2_000_000_000, Outcome.COMPLETED, "chat.completions", "vllm", True, http_status=200, model="m",
                     tenant="acme", input_tokens=10, output_tokens=5)
CHARGE = Charge(Status.MEASURED, "step-model", "nvml", True, energy_uj=1_234_567, active_uj=1_000_000)


def record(number=0, **facts):
    return EnergyRecord(replace(FACTS, record_id=f"r{number}", **facts), CHARGE, "run", number + 1)


def ids(*numbers):
    return {f"r{number}" for number in numbers}


async def until(condition, patience_s=20.0):
    async with asyncio.timeout(patience_s):
        while not condition():
            await asyncio.sleep(0.01)


async def put(sink, *records):
    await asyncio.to_thread(sink.put, records)


def ledger_in(folder, **more):
    return Ledger(folder / "ledger", now_unix_ns=lambda: ARRIVAL, **more)


def feed_of(url, ledger, name="events", **more):
    return Feed(FromLedger(CloudEvents(url, timeout_s=0.3), Cursor(ledger.database, name, random.randbytes(8).hex(), **more)))


async def test_a_batch_has_the_form_that_the_specification_asks_for():
    """CloudEvents 1.0 in the JSON batch format, flat numbers for a meter to sum, a bearer's token; the time is the arrival's."""
    async with event_sink() as server:
        sink = CloudEvents(server.url, "t0ken")
        await put(sink, record(), record(1, tenant=None, input_tokens=None, output_tokens=None))
        sink.close()
    path, headers, (event, other) = server.requests[0]
    assert (path, headers["Content-Type"], headers["Authorization"]) == (
        "/api/v1/events", "application/cloudevents-batch+json", "Bearer t0ken")
    data = event.pop("data")
    assert event == {"specversion": "1.0", "type": "perjoule.request.settled", "id": "r0", "source": "perjoule/run", "subject": "acme",
                     "time": "2026-09-21T14:13:20.000000123Z", "datacontenttype": "application/json"}
    assert (data["tokens"], data["energy_joules"], data["energy_uj"], data["energy_status"], data["model"]) == (
        15, 1.234567, 1_234_567, "measured", "m")
    assert (other["subject"], "tokens" in other["data"], None in other["data"].values()) == ("anonymous", False, False)


@given(any_record)
def test_a_record_that_went_through_the_ledger_makes_the_same_event(record):
    """What is written and read again is the same record, and its event the same bytes: no id ever changes its content."""
    again = EnergyRecord.from_json(json.loads(record.as_text()))
    assert again == record
    assert event_of(again) == event_of(record)
    data = event_of(record)["data"]
    assert ("energy_joules" in data, "energy_uj" in data) == (record.charge.energy_uj is not None,) * 2
    assert None not in data.values()


@pytest.mark.parametrize("url", ["ftp://h/x", "events", "http://", "http://user:pw@h/x"])
def test_a_url_that_cannot_be_used_is_refused(url):
    """And one that holds a password is not repeated."""
    with pytest.raises(ValueError, match="--events: expected") as refusal:
        CloudEvents(url)
    assert "pw" not in str(refusal.value)


async def test_a_sink_that_is_busy_asks_for_patience_and_says_no_record_is_at_fault():
    """503, a wrong key and a closed port are the sink's; only 400, 413 and 422 are of what was sent."""
    async with event_sink() as server:
        server.answers = [503, 401, 302]
        sink = CloudEvents(server.url)
        for status in (503, 401, 302):
            with pytest.raises(TryLaterError, match=str(status)):
                await put(sink, record())
        server.refused = ids(0)
        with pytest.raises(Exception, match="400") as refusal:
            await put(sink, record())
        assert not isinstance(refusal.value, TryLaterError)
    with pytest.raises(TryLaterError, match=r"ConnectionError .*refused"):
        await put(sink, record())


@pytest.mark.parametrize("answer", [SILENT, CUT, 500])
async def test_a_failure_does_not_repeat_what_the_url_holds(answer):
    """Some sinks take their key in the query: it is in no error, and so in no log and not in /readyz."""
    async with event_sink() as server:
        server.answers = [answer]
        with pytest.raises(TryLaterError) as error:
            await put(CloudEvents(server.url + "?code=s3cret", timeout_s=0.2), record())
    assert "s3cret" not in f"{error.value!r} {error.value.__cause__!r}"


async def test_one_event_that_is_refused_does_not_hold_up_the_others(tmp_path):
    """It is dropped and counted, since the sink takes others; the cursor moves on."""
    ledger = ledger_in(tmp_path)
    async with event_sink() as server:
        feed = feed_of(server.url, ledger)
        server.refused = ids(3)
        await put(ledger, *(record(number) for number in range(8)))
        feed.ring()
        await until(lambda: feed.stored + feed.dropped == 8)
        assert (server.ids, feed.dropped) == (ids(*range(8)) - ids(3), 1)
        await asyncio.to_thread(feed.close, 5)
    ledger.close()


@pytest.mark.parametrize("seed", range(4))
async def test_every_record_arrives_whatever_happens_to_the_sink_and_to_us(tmp_path, seed):
    """Failures, silences, hang-ups, a sink that goes away and comes back, and sidecars that die between any two steps: every record that
    the ledger has arrives at least once, and no id ever with another content."""
    chance, ledger, port, known = random.Random(seed), ledger_in(tmp_path), _free_port(), None
    url, number = f"http://127.0.0.1:{port}/api/v1/events", 0
    feed = feed_of(url, ledger, now_unix_ns=lambda: 0)
    for _ in range(6):
        if chance.random() < 0.7:  # else the sink is away meanwhile
            async with event_sink(port, known) as known:
                known.answers = chance.choices([TAKE, 500, 503, SILENT, CUT], k=4)
                number = await _stored(ledger, feed, number, chance)
                await asyncio.sleep(chance.random() * 0.4)
        else:
            number = await _stored(ledger, feed, number, chance)
        if chance.random() < 0.6:  # it dies, wherever it is; the next one takes its turn, since the clock of the turn has run out
            await asyncio.to_thread(feed.close, 0)
            feed = feed_of(url, ledger, now_unix_ns=lambda life=_ + 1: life * 2 * TURN_NS)
    async with event_sink(port, known) as known:
        await until(lambda: known.ids == ids(*range(number)), 60)
        await asyncio.to_thread(feed.close, 5)
    ledger.close()
    assert all(event == events[0] for events in known.seen.values() for event in events)


async def test_an_end_sends_what_the_ledger_was_given_last(tmp_path):
    """An archive that closes stores its last records, and sends them: nothing waits for the next run that need not."""
    ledger = ledger_in(tmp_path)
    async with event_sink() as server:
        archive = Archive([ledger, FromLedger(CloudEvents(server.url), Cursor(ledger.database, "events", "me"))], ledger)
        for number in range(700):
            archive.keep(record(number))
        await asyncio.to_thread(archive.close, 10)
        assert server.ids == ids(*range(700))
        assert sum(map(len, server.seen.values())) == 700


async def test_what_was_stored_before_anybody_asked_for_events_is_not_sent(tmp_path):
    """The first run with --events begins with its own records; a second goes on where the first came to."""
    ledger = ledger_in(tmp_path)
    async with event_sink() as server:
        await put(ledger, record(0))
        for number in (1, 2):
            feed = feed_of(server.url, ledger, now_unix_ns=lambda number=number: number * 2 * TURN_NS)
            await put(ledger, record(number))
            feed.ring()
            await until(lambda number=number: ids(number) <= server.ids)
            await asyncio.to_thread(feed.close, 5)
        assert server.ids == ids(1, 2)
        assert sum(map(len, server.seen.values())) == 2
    ledger.close()


async def test_a_ledger_that_cannot_be_read_is_said_and_waited_for(tmp_path):
    """The feed fails while the file is locked, and works again afterwards."""
    ledger = ledger_in(tmp_path, busy_s=0.05)
    async with event_sink() as server:
        feed = feed_of(server.url, ledger)
        await put(ledger, record(0))
        with open_database(tmp_path / "ledger").writing():
            feed.ring()
            await until(lambda: "locked" in (feed.failing or ""))
        await until(lambda: server.ids == ids(0))
        await until(lambda: feed.failing is None)
        await asyncio.to_thread(feed.close, 5)
    ledger.close()


async def test_without_a_ledger_events_wait_in_memory():
    """An outbox feeds the sink as it does any other."""
    async with event_sink() as server:
        server.answers = [500, CUT]
        outbox = Outbox(CloudEvents(server.url))
        for number in range(3):
            outbox.put(record(number))
        await until(lambda: outbox.stored == 3)
        await asyncio.to_thread(outbox.close, 5)
        assert server.ids == ids(0, 1, 2)


async def _stored(ledger, feed, number, chance):
    """Some more records in the ledger; answers how many there are."""
    count = chance.randrange(1, 900)
    await put(ledger, *(record(each) for each in range(number, number + count)))
    feed.ring()
    return number + count


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
