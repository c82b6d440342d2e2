"""The boards of one engine: one row of windows, no microjoule lost between them; what they draw when nothing runs is learned."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.group import IDLE_WINDOWS, SILENCE_NS, Group
from perjoule.sidecar.metering.timeline import Window
from perjoule.sidecar.ports import Device, Reading

MS = 1_000_000
DEVICE = Device("GPU-0", "a board")


def board():
    return Group([DEVICE], 100 * MS, None, 0)


def window(power_w, i=0):
    """A window of 100 ms at that power."""
    return Window(i * 100 * MS, (i + 1) * 100 * MS, power_w * 100_000)


def test_the_loaded_idle_is_learned_from_idle_windows():
    """The lower quartile, since the tail of what was aborted is drawn while nothing runs; old windows are forgotten."""
    it = board()
    assert it.idle_w is None
    it.saw_idle(window(300))
    assert it.idle_w == pytest.approx(300)
    for i in range(30):
        it.saw_idle(window(300 if i % 3 == 0 else 127))
    assert it.idle_w == pytest.approx(127)
    for _ in range(IDLE_WINDOWS):
        it.saw_idle(window(80))
    assert it.idle_w == pytest.approx(80)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=5))
def test_the_loaded_idle_is_a_power_that_was_seen(powers_w):
    """Or between two of them: of an idle board and the tail of an abort nothing below the idle follows, let alone below zero."""
    it = board()
    for power_w in powers_w:
        it.saw_idle(window(power_w))
    assert min(powers_w) <= it.idle_w <= max(powers_w)


def test_until_the_idle_is_known_time_decides():
    """Each nanosecond of a window counts the same: a request of 10 ms does not pay for 90 others."""
    split = board().split(window(400), 10 * MS)
    assert (split.idle_uj, split.shared_uj, split.active_uj) == (36_000_000, 4_000_000, 0)


def test_a_half_idle_window_is_parted():
    """400 W on average, 100 W idle for one half: 5 J are idle, 35 J shared, of which 30 J lie above the idle."""
    it = board()
    it.saw_idle(window(100))
    split = it.split(window(400), 50 * MS)
    assert (split.idle_uj, split.shared_uj, split.active_uj) == (5_000_000, 35_000_000, 30_000_000)


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 100 * MS))
def test_a_split_sums_to_its_window(idle_w, power_w, busy_ns):
    """Idle and shared are the whole, the active part is within the shared one, and nothing is negative."""
    it = board()
    it.saw_idle(window(idle_w))
    whole = window(power_w)
    split = it.split(whole, busy_ns)
    assert split.idle_uj + split.shared_uj == whole.energy_uj
    assert split.idle_uj >= 0
    assert 0 <= split.active_uj <= split.shared_uj


def test_what_no_window_holds_yet_is_estimated_from_power():
    """Nothing before the first change; after it, waiting windows and instant power, for the time that was asked about."""
    it = board()
    assert it.undivided(0, 10**12).shared_uj == 0
    for i, uj in enumerate((0, 40_000_000, 80_000_000)):
        it.add([Reading(i * 100 * MS, i * 100 * MS, uj, 400_000)])
    assert it.divided_ns == 100 * MS
    assert it.undivided(0, 100 * MS).shared_uj == 0
    assert it.undivided(0, 250 * MS).shared_uj == 60_000_000
    assert it.undivided(200 * MS, 250 * MS).shared_uj == 20_000_000


def test_a_moment_of_work_costs_no_less_than_a_moment_of_idle():
    """A window that drew a little less than the idle would have (its edges are known to some milliseconds): time decides."""
    it = board()
    it.saw_idle(window(100))
    split = it.split(window(90), MS)
    assert (split.idle_uj, split.shared_uj, split.active_uj) == (8_910_000, 90_000, 0)


def test_outside_the_steady_state_a_token_costs_what_it_did_within():
    """ML.ENERGY's rule: a constant rate times the tokens, never more than was drawn; before there is a rate, all that was."""
    it = board()
    assert it.at_steady_rate(5.0, 999) == 999
    it.steady_uj, it.steady_tokens = 1000, 10.0
    assert it.at_steady_rate(5.0, 999) == 500
    assert it.at_steady_rate(50.0, 999) == 999


def pair():
    return Group([DEVICE, Device("GPU-1", "a board")], 100 * MS, None, 0)


def test_boards_are_summed_on_the_beat_of_the_first():
    """The second board's counter moves 50 ms later: each window of the first has half of two of its windows."""
    it, first, second = pair(), 0, 0
    for ms in range(0, 1001, 10):
        first += 4_000_000 * (ms % 100 == 0) * 10
        second += 2_000_000 * (ms % 100 == 50) * 10
        it.add([Reading(ms * MS, ms * MS, first, 400_000), Reading(ms * MS, ms * MS, second, 200_000)])
    assert len(it.waiting) >= 7
    assert [window.energy_uj for window in it.waiting] == pytest.approx([60_000_000] * len(it.waiting), rel=0.001)
    assert it.power_w == pytest.approx(600)


def test_a_board_that_falls_silent_is_not_waited_for():
    """The windows of the others go on, and say that they cannot be divided."""
    it = pair()
    for i in range(30):
        it.add([Reading(i * 100 * MS, i * 100 * MS, i * 10**7), Reading(i * 100 * MS, i * 100 * MS, min(i, 5) * 10**7)])
    gaps = [window.gap for window in it.waiting]
    assert gaps[0] == ""
    assert gaps[-1] == "stale"
    assert it.waiting[-1].t1_ns <= 2900 * MS - SILENCE_NS + 100 * MS


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 10**7), st.integers(0, 10**7)), min_size=3, max_size=60))
def test_every_microjoule_of_every_board_is_in_one_window(looks):
    """Whatever the beats: what the windows hold is what both counters moved, from where the windows begin to where they end."""
    it, t_ms, a, b = pair(), 0, 0, 0
    for span_ms, more_a, more_b in looks:
        t_ms, a, b = t_ms + span_ms, a + more_a, b + more_b
        it.add([Reading(t_ms * MS, t_ms * MS, a), Reading(t_ms * MS, t_ms * MS, b)])
    for _ in range(3):  # both move at the same time now: nothing is under way at the end
        t_ms, a, b = t_ms + 100, a + 1, b + 1
        it.add([Reading(t_ms * MS, t_ms * MS, a), Reading(t_ms * MS, t_ms * MS, b)])
    windows = list(it.waiting)
    assert windows
    for before, after in pairwise(windows):
        assert before.t1_ns == after.t0_ns
    first = Group([DEVICE], 100 * MS, None, 0)
    assert all(window.energy_uj >= 0 for window in windows)
    assert it.origin_ns == windows[0].t0_ns
    assert first.origin_ns is None
