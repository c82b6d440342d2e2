"""The sampler's thread hands over every reading, keeps its beat, survives every failure and stops when told."""

import threading
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from perjoule.bench import beat
from perjoule.sidecar.ports import CounterError, Device, Reading
from perjoule.sidecar.process.sampler import CALLS_KEPT, Rhythm, Sampler
from perjoule.sidecar.record import Status
from perjoule.sidecar.units import NS_PER_MS

PATIENCE_S = 20.0  # only a broken sampler takes this long


class ScriptedCounter:
    """Two devices; the first shows what `script(n)` returns at the n-th read, or raises what it raises."""

    name = "scripted"
    status = Status.SIMULATED
    boundary = "test"
    devices = (Device("a", "a"), Device("b", "b"))
    period_ns = 100 * NS_PER_MS
    wrap_uj = None

    def __init__(self, script: Callable[[int], int]) -> None:
        self.script = script
        self.n = 0
        self.read_ns: list[int] = []
        self.threads: set[int] = set()

    def read(self) -> tuple[Reading, ...]:
        self.n += 1
        now = time.monotonic_ns()
        self.read_ns.append(now)
        self.threads.add(threading.get_ident())
        return Reading(now, now, self.script(self.n)), Reading(now, now, 7)

    def close(self) -> None:
        """Nothing is held open."""


class Heard:
    """What a sampler delivered; `until` waits for something to have been heard."""

    def __init__(self) -> None:
        self.energies: list[int] = []
        self.errors: list[str] = []
        self._news = threading.Condition()

    def deliver(self, readings: tuple[Reading, ...]) -> None:
        with self._news:
            self.energies.append(readings[0].energy_uj)
            self._news.notify_all()

    def error(self, text: str) -> None:
        with self._news:
            self.errors.append(text)
            self._news.notify_all()

    def until(self, true: Callable[[], bool]) -> None:
        with self._news:
            assert self._news.wait_for(true, PATIENCE_S)


def test_every_poll_is_delivered_in_order() -> None:
    """A counter that moves every third read is heard at every read, unchanged ones too, from a thread of its own."""
    counter, heard = ScriptedCounter(lambda n: n // 3), Heard()
    sampler = Sampler(counter, heard.deliver, NS_PER_MS, heard.error)
    sampler.start()
    heard.until(lambda: len(heard.energies) >= 20)
    assert sampler.stop()
    assert heard.energies == [n // 3 for n in range(1, counter.n + 1)]
    assert heard.errors == []
    assert counter.threads.isdisjoint({threading.get_ident()})
    assert len(counter.threads) == 1


def test_it_keeps_the_beat_when_reads_take_time() -> None:
    """Reads of 4 ms every 10 ms come every 10 ms and not every 14: what a call takes is not added to the wait."""
    def slow(n: int) -> int:
        time.sleep(0.004)
        return n

    counter, heard = ScriptedCounter(slow), Heard()
    sampler = Sampler(counter, heard.deliver, 10 * NS_PER_MS)
    sampler.start()
    heard.until(lambda: counter.n >= 30)
    sampler.stop()
    first_ns = counter.read_ns[0]
    off_beat_ns = sorted((t_ns - first_ns) % (10 * NS_PER_MS) for t_ns in counter.read_ns)
    assert off_beat_ns[len(off_beat_ns) // 2] < 4 * NS_PER_MS


def test_missed_beats_are_not_made_up_for() -> None:
    """After a call that took 100 ms there is no burst of polls."""
    def stuck_once(n: int) -> int:
        time.sleep(0.1 if n == 1 else 0)
        return n

    counter, heard = ScriptedCounter(stuck_once), Heard()
    sampler = Sampler(counter, heard.deliver, 10 * NS_PER_MS)
    sampler.start()
    heard.until(lambda: counter.n >= 4)
    sampler.stop()
    assert counter.read_ns[3] - counter.read_ns[1] > 10 * NS_PER_MS


def test_failures_are_told_once_and_survived() -> None:
    """Whatever is raised, an adapter's own fault too: one word on it, ever longer waits, and on when it works again."""
    def failing(n: int) -> int:
        if n == 2:
            raise CounterError("the bus is gone")
        if 2 < n < 6:
            raise ZeroDivisionError
        return 5

    counter, heard = ScriptedCounter(failing), Heard()
    sampler = Sampler(counter, heard.deliver, 5 * NS_PER_MS, heard.error)
    sampler.start()
    heard.until(lambda: bool(heard.errors))
    assert sampler.failing
    heard.until(lambda: len(heard.energies) >= 2)  # the same value, but news after a failure
    sampler.stop()
    assert heard.errors == ["the bus is gone"]
    assert sampler.errors == 4
    assert not sampler.failing
    waits_ns = [later - earlier for earlier, later in pairwise(counter.read_ns)]
    assert all(wait_ns > least * NS_PER_MS for wait_ns, least in zip(waits_ns[1:5], (5, 15, 35, 75), strict=True))


def test_the_next_failure_is_told_again() -> None:
    """Each time that it begins to fail is a change of state."""
    def flapping(n: int) -> int:
        if n % 2:
            raise CounterError(f"failure {n}")
        return n

    heard = Heard()
    sampler = Sampler(ScriptedCounter(flapping), heard.deliver, NS_PER_MS, heard.error)
    sampler.start()
    heard.until(lambda: len(heard.errors) >= 3)
    sampler.stop()
    assert heard.errors[:3] == ["failure 1", "failure 3", "failure 5"]


def test_it_counts_and_times_its_reads() -> None:
    """Reads and call times are there to be asked for; before the first read a call time is not known."""
    def slow(n: int) -> int:
        time.sleep(0.002)
        return n

    heard = Heard()
    sampler = Sampler(ScriptedCounter(slow), heard.deliver, NS_PER_MS)
    assert sampler.call_ns(0.5) is None
    sampler.start()
    heard.until(lambda: len(heard.energies) >= 5)
    sampler.stop()
    median_ns, p99_ns = sampler.call_ns(0.5), sampler.call_ns(0.99)
    assert median_ns is not None
    assert p99_ns is not None
    assert 2 * NS_PER_MS <= median_ns <= p99_ns
    assert 5 <= sampler.reads <= CALLS_KEPT
    assert sampler.errors == 0


def test_a_hanging_driver_does_not_hold_up_the_stop() -> None:
    """stop() gives up on a call that does not return, and says so."""
    inside, release = threading.Event(), threading.Event()

    def hang(n: int) -> int:
        inside.set()
        release.wait(PATIENCE_S)
        return n

    sampler = Sampler(ScriptedCounter(hang), Heard().deliver, NS_PER_MS)
    sampler.start()
    assert inside.wait(PATIENCE_S)
    assert not sampler.stop(timeout_s=0.01)
    release.set()
    assert sampler.stop(PATIENCE_S)


MS = NS_PER_MS


def test_a_beat_is_looked_at_around_its_changes() -> None:
    """Not for most of a period, then closely until the change comes."""
    rhythm = Rhythm(100 * MS, 20 * MS, 1)
    assert [rhythm.due_ns(0, 1), rhythm.due_ns(20 * MS, 1)] == [None, None]  # nothing is known of the beat yet
    assert rhythm.due_ns(40 * MS, 2) == 120 * MS
    assert [rhythm.due_ns(t_ms * MS, 2) for t_ms in (120, 130, 140)] == [130 * MS, 140 * MS, 150 * MS]
    assert rhythm.due_ns(150 * MS, 3) == 230 * MS


def test_a_change_that_does_not_come_is_not_waited_for_closely() -> None:
    """An idle board, or one that sleeps: the polls are what was asked for again."""
    rhythm = Rhythm(100 * MS, 20 * MS, 1)
    rhythm.due_ns(0, 1)
    rhythm.due_ns(20 * MS, 2)
    assert rhythm.due_ns(170 * MS, 2) == 180 * MS
    assert rhythm.due_ns(180 * MS, 2) is None


@pytest.mark.parametrize(("period_ms", "poll_ms", "devices"), [(100, 20, 2), (100, 30, 1), (10, 20, 1)])
def test_without_a_beat_to_go_by_it_is_looked_evenly(period_ms: int, poll_ms: int, devices: int) -> None:
    """Several boards, or polls that are not much closer than changes."""
    rhythm = Rhythm(period_ms * MS, poll_ms * MS, devices)
    assert [rhythm.due_ns(t * MS, t) for t in range(5)] == [None] * 5


def test_the_rhythm_dates_changes_better_with_fewer_looks() -> None:
    """On a board made to change as an H200 does."""
    even, close = (beat.played(rule(20 * MS), minutes=2.0) for rule in (beat.evenly, beat.in_rhythm))
    assert close[0] < 0.7 * even[0]
    assert close[1] < 0.8 * even[1]


def test_the_sampler_looks_in_rhythm() -> None:
    """One board that changes every 100 ms is looked at less often than polls would."""
    counter = ScriptedCounter(lambda n: 0)
    counter.devices = counter.devices[:1]
    began_ns = time.monotonic_ns()
    counter.read = lambda: (Reading(time.monotonic_ns(), time.monotonic_ns(), (time.monotonic_ns() - began_ns) // (100 * MS)),)
    heard = Heard()
    sampler = Sampler(counter, heard.deliver, 20 * MS)
    sampler.start()
    heard.until(lambda: heard.energies[-1:] >= [12])
    took_ms = (time.monotonic_ns() - began_ns) // MS
    assert sampler.stop()
    assert sampler.reads < 0.8 * took_ms / 20  # 60 by polls, 36 in rhythm; a busy machine may miss some
    assert heard.energies == sorted(heard.energies)
