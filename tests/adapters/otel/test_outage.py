"""A collector that is away for longer than the outbox holds: what the bound promises arrives, once, and the rest is counted."""

import time

import grpc
import pytest

from perjoule.adapters.otel.spans import open_spans
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status
from perjoule.sidecar.records.outbox import Outbox
from tests.fakes.collector import attributes_of, grpc_collector, http_collector

CAPACITY = 60
RECEIVERS = {"http": http_collector, "grpc": grpc_collector}


def record(number):
    return EnergyRecord(RequestFacts(f"r{number}", "q", 1, 2, Outcome.COMPLETED, "chat.completions", "vllm", False),
                        Charge(Status.UNAVAILABLE, "token-share", "none", True), "run", number)


def until(condition, patience_s=60):
    """Wait for it."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def arrived(collector):
    return [attributes_of(span)["perjoule.record.sequence"] for span in collector.spans]


@pytest.mark.parametrize("protocol", RECEIVERS)
def test_a_collector_that_is_away(protocol, caplog):
    """It takes 40 spans, dies, and comes back on the same port: of 100 records meanwhile the outbox keeps as many as it may hold, in
    order, and says how many it lost. Memory is bounded since it holds nothing else."""
    with RECEIVERS[protocol]() as first:
        outbox = Outbox(open_spans(first.url), CAPACITY)
        for number in range(40):
            outbox.put(record(number))
        until(lambda: outbox.stored == 40)
        port = int(first.url.rpartition(":")[2])
    for number in range(40, 140):
        outbox.put(record(number))
        assert outbox.pending <= CAPACITY
    until(lambda: outbox.failing is not None)
    assert outbox.dropped == 100 - CAPACITY
    with RECEIVERS[protocol](port) as second:
        until(lambda: outbox.stored == 40 + CAPACITY and outbox.failing is None)
        assert (arrived(first), arrived(second)) == ([*range(40)], [*range(40, 40 + CAPACITY)])
        assert (outbox.dropped, outbox.pending) == (100 - CAPACITY, 0)
        outbox.close(10)
    said = [entry.getMessage() for entry in caplog.records if entry.name == "perjoule.sidecar.records.outbox"]
    assert [text.partition(":")[2].partition(":")[0].strip() for text in said] == [
        "cannot store records, trying again", "records are stored again"]


@pytest.mark.parametrize(("protocol", "answer"), [
    ("http", 429), ("http", 503), ("grpc", grpc.StatusCode.UNAVAILABLE), ("grpc", grpc.StatusCode.RESOURCE_EXHAUSTED)])
def test_a_collector_that_throttles_is_left_alone(protocol, answer):
    """It asks for a second twice; nothing is sent before that, and nothing is lost or doubled."""
    with RECEIVERS[protocol]() as collector:
        collector.answers = [(answer, 1), (answer, 1)]
        outbox, began = Outbox(open_spans(collector.url)), time.monotonic()
        for number in range(20):
            outbox.put(record(number))
        until(lambda: outbox.stored == 20)
        assert time.monotonic() - began >= 2
        assert (arrived(collector), collector.tries, outbox.dropped) == ([*range(20)], 3, 0)
        outbox.close(10)


@pytest.mark.parametrize(("protocol", "answer"), [("http", 400), ("grpc", grpc.StatusCode.INVALID_ARGUMENT)])
def test_a_collector_that_refuses_is_not_asked_again(protocol, answer, caplog):
    """A final answer costs the batch, which is counted and said; what comes later is taken."""
    with RECEIVERS[protocol]() as collector:
        outbox = Outbox(open_spans(collector.url))
        collector.answers = [answer]
        for number in range(5):
            outbox.put(record(number))
        until(lambda: outbox.pending == 0 and outbox.failing is not None)
        gone = outbox.dropped
        assert 1 <= gone <= 5
        assert "records are refused and dropped" in caplog.text
        for number in range(5, 10):
            outbox.put(record(number))
        until(lambda: outbox.stored == 10 - gone and outbox.failing is None)
        assert arrived(collector) == [*range(gone, 10)]
        assert collector.tries <= 4
        outbox.close(10)


@pytest.mark.parametrize("protocol", RECEIVERS)
def test_what_a_collector_rejects_of_a_message_is_counted(protocol):
    """Partial success: two of ten spans are not taken; they are counted as dropped, the others as stored, and nothing is sent again."""
    with RECEIVERS[protocol]() as collector:
        outbox = Outbox(open_spans(collector.url))
        collector.rejects, collector.why = 2, "no"
        for number in range(10):
            outbox.put(record(number))
        until(lambda: outbox.pending == 0 and outbox.failing is not None)
        assert outbox.dropped == 2 * collector.tries
        assert outbox.stored == 10 - outbox.dropped
        assert arrived(collector) == [*range(10)]
        outbox.close(10)
