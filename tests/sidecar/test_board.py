"""One device: what it draws when nothing runs is learned, and a window is parted without losing a microjoule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.board import IDLE_WINDOWS, Board
from perjoule.sidecar.ports import Device, Reading
from perjoule.sidecar.timeline import Window

MS = 1_000_000
DEVICE = Device("GPU-0", "a board")


def board():
    return Board(DEVICE, 100 * MS, None, 0)


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
        it.add(Reading(i * 100 * MS, i * 100 * MS, uj, 400_000))
    assert it.divided_ns == 100 * MS
    assert it.undivided(0, 100 * MS).shared_uj == 0
    assert it.undivided(0, 250 * MS).shared_uj == 60_000_000
    assert it.undivided(200 * MS, 250 * MS).shared_uj == 20_000_000
