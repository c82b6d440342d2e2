"""Fewer readings that say the same, and another host's clock."""

from hypothesis import given
from hypothesis import strategies as st

from perjoule.adapters.remote.clock import Clock
from perjoule.adapters.remote.told import MOST, Told
from perjoule.sidecar.metering.timeline import Timeline
from perjoule.sidecar.ports import Reading

PERIOD_NS = 100_000_000


@given(st.lists(st.tuples(st.integers(1, 30), st.booleans(), st.integers(0, 3)), max_size=200))
def test_what_is_told_dates_windows_as_if_we_had_looked(looks: list[tuple[int, bool, int]]) -> None:
    """Whenever the readings are taken, as long as none is lost: the same windows, to the nanosecond, in the same order."""
    there, here, told, t_ns, uj = Timeline(PERIOD_NS), Timeline(PERIOD_NS), Told(), 0, 0
    seen, had, lost = [], [], False
    for wait_ms, changed, taken in looks:
        t_ns, uj = t_ns + wait_ms * 1_000_000, uj + 30_000_000 * changed
        reading = Reading(t_ns, t_ns + 1_000_000, uj)
        seen.append(there.add(reading))
        told.put((reading,))
        lost = lost or len(told._waiting) >= MOST
        had += [here.add(looked[0]) for _ in range(taken) if (looked := told.take()) is not None]
    while told:
        had.append(here.add(told.take()[0]))  # type: ignore[index]
    assert here.drawn_uj == there.drawn_uj or lost
    assert [window for window in had if window] == [window for window in seen if window] or lost


@given(st.lists(st.integers(0, 1), min_size=1, max_size=300))
def test_nothing_is_lost_of_what_was_drawn(changes: list[int]) -> None:
    """Who takes nothing for long gets coarser dates, and the last value all the same."""
    told, uj = Told(), 0
    for step, change in enumerate(changes):
        uj += change
        told.put((Reading(step, step, uj),))
    assert len(told._waiting) <= MOST
    last = None
    while told:
        last = told.take()
    assert last is not None
    assert last[0].energy_uj == uj
    assert told.take() == last  # it stands


@given(st.integers(-10**15, 10**15), st.lists(st.tuples(st.integers(1, 10**7), st.integers(0, 10**7)), min_size=1, max_size=100))
def test_another_clock_is_known_to_within_what_is_said(offset_ns: int, trips: list[tuple[int, int]]) -> None:
    """However long each answer took there and back; the shortest ones count."""
    clock, now_ns = Clock(is_shared=False), 10**18
    for there_ns, back_ns in trips:
        clock.answered(now_ns, now_ns + there_ns + offset_ns, now_ns + there_ns + back_ns)
        now_ns += there_ns + back_ns + 1
    assert clock.uncertainty_ns is not None
    assert abs(clock.offset_ns - offset_ns) <= clock.uncertainty_ns
    assert clock.uncertainty_ns <= min(there_ns + back_ns for there_ns, back_ns in trips[-60:]) // 2 + 1
    assert abs(clock.ours(now_ns + offset_ns) - now_ns) <= clock.uncertainty_ns


def test_one_kernels_clock_is_shared_unless_an_answer_speaks_against_it() -> None:
    """A container in a time namespace has the boot id of its host, and another monotonic clock."""
    clock = Clock(is_shared=True)
    assert clock.uncertainty_ns is None
    clock.answered(1_000, 1_500, 2_000)
    assert (clock.offset_ns, clock.uncertainty_ns) == (0, 0)
    clock.answered(10_000, 910_500, 11_000)
    assert (clock.offset_ns, clock.uncertainty_ns) == (900_000, 500)


def test_a_clock_that_is_set_is_known_again_from_the_next_answer() -> None:
    """Bounds that contradict each other are those of two clocks."""
    clock = Clock(is_shared=False)
    clock.answered(0, 100, 10)
    clock.answered(20, 5_025, 30)
    assert (clock.offset_ns, clock.uncertainty_ns) == (5_000, 5)
