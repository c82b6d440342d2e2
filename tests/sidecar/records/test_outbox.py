"""The outbox: takes records at once, keeps their order, tries again, and counts what it loses."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.sidecar.ports import RefusedError, TryLaterError
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status
from perjoule.sidecar.records.outbox import BATCH, Outbox


def record(number: int) -> EnergyRecord:
    facts = RequestFacts(f"r{number}", f"q{number}", 1, 2, Outcome.COMPLETED, "chat.completions", "vllm", False)
    return EnergyRecord(facts, Charge(Status.UNAVAILABLE, "token-share", "none", True))


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 20 s"
        time.sleep(0.005)


class Shelf:
    """A sink that keeps what it is given, and fails as `errors` says, one a put."""

    name = "shelf"

    def __init__(self, errors: Sequence[BaseException | None] = ()) -> None:
        self.batches: list[list[str]] = []
        self.errors = list(errors)
        self.closed = False
        self.gate = threading.Event()
        self.gate.set()

    @property
    def ids(self) -> list[str]:
        return [record_id for batch in self.batches for record_id in batch]

    def put(self, records: Sequence[EnergyRecord]) -> None:
        self.gate.wait()
        if self.errors and (error := self.errors.pop(0)) is not None:
            if isinstance(error, RefusedError):  # it takes the others
                self.batches.append([r.facts.record_id for r in records[:max(0, len(records) - error.count)]])
            raise error
        self.batches.append([r.facts.record_id for r in records])

    def close(self) -> None:
        self.closed = True


def test_everything_put_before_close_is_stored_in_order_and_the_sink_closed():
    """2,000 records arrive in order, in batches of at most 512, and the sink is closed after the last."""
    shelf = Shelf()
    outbox = Outbox(shelf)
    for number in range(2_000):
        outbox.put(record(number))
    outbox.close(20)
    assert shelf.ids == [f"r{number}" for number in range(2_000)]
    assert max(map(len, shelf.batches)) <= BATCH
    assert (outbox.stored, outbox.dropped, outbox.pending, shelf.closed) == (2_000, 0, 0, True)


def test_records_are_stored_without_close():
    """A record put now and one put after the first was stored both arrive while the outbox stays open."""
    shelf = Shelf()
    outbox = Outbox(shelf)
    for number in range(2):
        outbox.put(record(number))
        eventually(lambda expected=number + 1: outbox.stored == expected)
    assert shelf.ids == ["r0", "r1"]
    outbox.close(20)


@pytest.mark.parametrize("error", [OSError("disk full"), ValueError("bug"), SystemExit(3), KeyboardInterrupt()],
                         ids=lambda error: type(error).__name__)
def test_whatever_a_sink_raises_the_batch_is_tried_again(error):
    """After two failures every record is stored once, and `failing` tells the error only while it lasts."""
    shelf = Shelf([error, error])
    outbox = Outbox(shelf)
    outbox.put(record(1))
    eventually(lambda: outbox.failing is not None)
    assert outbox.failing == f"{type(error).__name__}: {error}"
    outbox.put(record(2))
    eventually(lambda: outbox.stored == 2)
    assert sorted(shelf.ids) == ["r1", "r2"]
    eventually(lambda: outbox.failing is None)
    outbox.close(20)


class Picky(Shelf):
    """A sink that works, but for the records that it refuses."""

    def __init__(self, *refused: str) -> None:
        super().__init__()
        self.refused = set(refused)

    def put(self, records: Sequence[EnergyRecord]) -> None:
        if ids := self.refused & {r.facts.record_id for r in records}:
            raise TypeError(f"Integer exceeds 64-bit range in {sorted(ids)}")
        super().put(records)


@pytest.mark.parametrize("refused", [{0}, {7}, {99}, {0, 1, 2}, {3, 4, 50, 99}], ids=str)
def test_a_record_that_cannot_be_stored_is_dropped_and_stops_no_other(refused, caplog):
    """Those that the sink refuses while it takes others are counted and named once each; all others are stored."""
    shelf = Picky(*(f"r{number}" for number in refused))
    outbox = Outbox(shelf)
    for number in range(100):
        outbox.put(record(number))
    outbox.close(20)
    assert (outbox.stored, outbox.dropped, outbox.failing) == (100 - len(refused), len(refused), None)
    assert set(shelf.ids) == {f"r{number}" for number in range(100)} - shelf.refused
    named = [entry.getMessage() for entry in caplog.records if "is dropped" in entry.getMessage()]
    assert sorted(text.split()[2] for text in named) == sorted(shelf.refused)


def test_a_lone_refused_record_waits_for_another_to_tell_by():
    """Of one record alone nothing is known: it is kept and tried again until another one goes and it does not."""
    outbox = Outbox(Picky("r1"))
    outbox.put(record(1))
    eventually(lambda: outbox.failing is not None)
    assert (outbox.pending, outbox.dropped) == (1, 0)
    outbox.put(record(2))
    outbox.close(20)
    assert (outbox.stored, outbox.dropped, outbox.failing) == (1, 1, None)


def test_a_sink_that_fails_now_and_then_loses_nothing():
    """Whichever of five tries in a row fail, a batch is stored whole: no record was at fault."""
    for pattern in range(32):
        shelf = Shelf([OSError("no") if pattern >> bit & 1 else None for bit in range(5)])
        shelf.gate.clear()
        outbox = Outbox(shelf)
        for number in range(4):
            outbox.put(record(number))
        shelf.gate.set()
        outbox.close(20)
        assert (outbox.stored, outbox.dropped, set(shelf.ids)) == (4, 0, {"r0", "r1", "r2", "r3"}), f"{pattern:06b}"


def test_beyond_capacity_records_are_dropped_and_counted():
    """With room for three and a sink that stands still, the fourth and fifth are dropped and the others stored."""
    shelf = Shelf()
    shelf.gate.clear()
    outbox = Outbox(shelf, capacity=3)
    for number in range(5):
        outbox.put(record(number))
    assert (outbox.pending, outbox.dropped) == (3, 2)
    shelf.gate.set()
    outbox.close(20)
    assert (shelf.ids, outbox.stored, outbox.dropped) == (["r0", "r1", "r2"], 3, 2)


def test_of_many_at_once_as_many_are_taken_as_there_is_room_for():
    """The first; with none at all, nothing happens."""
    shelf = Shelf()
    shelf.gate.clear()
    outbox = Outbox(shelf, capacity=3)
    outbox.put(record(0))
    outbox.put()
    outbox.put(*map(record, range(1, 6)))
    assert (outbox.pending, outbox.dropped) == (3, 3)
    shelf.gate.set()
    outbox.close(20)
    outbox.put(record(6), record(7))
    assert (shelf.ids, outbox.stored, outbox.dropped, outbox.pending) == (["r0", "r1", "r2"], 3, 5, 0)


def test_close_gives_up_on_a_sink_that_never_works(caplog):
    """What a dead sink did not take by the deadline is dropped, counted and logged with its number and the reason."""
    outbox = Outbox(Shelf([OSError("no")] * 1_000))
    for number in range(10):
        outbox.put(record(number))
    outbox.close(0.3)
    assert (outbox.stored, outbox.dropped, outbox.pending) == (0, 10, 0)
    assert [entry.getMessage() for entry in caplog.records if entry.levelname == "WARNING"] == [
        "shelf: cannot store records, trying again: OSError('no')",
        "shelf: 10 records are lost, not stored within 0.3 s of closing: OSError: no"]


def test_close_gives_up_on_a_sink_that_hangs_and_does_not_count_twice():
    """A put that hangs past the deadline is counted as dropped once, even if it returns later."""
    shelf = Shelf()
    shelf.gate.clear()
    outbox = Outbox(shelf)
    outbox.put(record(1))
    outbox.close(0.2)
    assert (outbox.stored, outbox.dropped) == (0, 1)
    shelf.gate.set()
    eventually(lambda: shelf.closed)
    assert (outbox.stored, outbox.dropped, outbox.pending) == (0, 1, 0)


def test_put_after_close_is_counted_as_dropped():
    """A late record is not lost silently."""
    outbox = Outbox(Shelf())
    outbox.close(20)
    outbox.put(record(1))
    assert (outbox.stored, outbox.dropped, outbox.pending) == (0, 1, 0)


def test_close_tries_a_failing_sink_again_at_once():
    """A sink that has recovered during a long backoff gets its records when closing begins."""
    shelf = Shelf([OSError("no")] * 4)  # after the fourth failure the wait is 0.8 s
    outbox = Outbox(shelf)
    outbox.put(record(1))
    eventually(lambda: not shelf.errors)
    outbox.close(20)
    assert (shelf.ids, outbox.stored, outbox.dropped) == (["r1"], 1, 0)


def test_on_stored_tells_what_was_stored_and_may_fail():
    """`on_stored` hears every record in order; its own failure loses nothing and stores nothing twice."""
    heard: list[str] = []

    def hear(records: Sequence[EnergyRecord]) -> None:
        heard.extend(r.facts.record_id for r in records)
        raise RuntimeError("the listener's bug")

    shelf = Shelf()
    outbox = Outbox(shelf, on_stored=hear)
    for number in range(3):
        outbox.put(record(number))
    outbox.close(20)
    assert heard == shelf.ids == ["r0", "r1", "r2"]


def test_a_sink_that_says_later_is_not_tried_with_single_records():
    """It has said that no record is at fault: the same batch comes again, whole, after the time that it asked for."""
    shelf = Shelf([TryLaterError("busy", 0.3), TryLaterError("busy")])
    outbox, began = Outbox(shelf), time.monotonic()
    for number in range(5):
        outbox.put(record(number))
    eventually(lambda: outbox.stored == 5)
    assert time.monotonic() - began >= 0.3
    assert shelf.ids == [f"r{number}" for number in range(5)]
    outbox.close(20)


def test_what_a_sink_refuses_is_dropped_at_once(caplog):
    """Two of a batch are refused for good: they count as dropped, the others as stored, nothing comes again, and it is said."""
    shelf = Shelf([RefusedError("too old", 2)])
    shelf.gate.clear()
    outbox = Outbox(shelf)
    for number in range(5):
        outbox.put(record(number))
    shelf.gate.set()
    eventually(lambda: outbox.pending == 0)
    outbox.close(20)
    assert outbox.stored + outbox.dropped == 5
    assert outbox.dropped == 2 == 5 - len(shelf.ids)
    assert "records are refused and dropped: RefusedError('too old')" in caplog.text


FAILURES = {"fine": None, "broken": OSError("no"), "busy": TryLaterError("busy"), "refuses": RefusedError("no", 3)}


@settings(max_examples=15, deadline=None)
@given(failures=st.lists(st.sampled_from(sorted(FAILURES)), max_size=1), amounts=st.lists(st.integers(0, 700), min_size=1, max_size=4),
       capacity=st.integers(1, 1_500))
def test_every_record_is_stored_or_dropped(failures, amounts, capacity):
    """Law: whatever fails, put = stored + dropped after close, and what is stored is in order and there once."""
    shelf = Shelf([FAILURES[name] for name in failures])
    outbox = Outbox(shelf, capacity=capacity)
    number = 0
    for amount in amounts:
        for _ in range(amount):
            outbox.put(record(number))
            number += 1
    outbox.close(20)
    assert outbox.stored + outbox.dropped == number
    assert outbox.stored == len(shelf.ids) == len(set(shelf.ids))
    assert shelf.ids == sorted(shelf.ids, key=lambda record_id: int(record_id[1:]))
