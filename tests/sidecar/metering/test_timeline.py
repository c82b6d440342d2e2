"""A cumulative counter becomes windows from change to change, whatever the counter does."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.timeline import Beat, Timeline
from perjoule.sidecar.ports import Reading

MS = 1_000_000


def reading(t_ms, uj, power_mw=None):
    return Reading(t_ms * MS, t_ms * MS, uj, power_mw)


def windows(timeline, readings):
    return [w for r in readings if (w := timeline.add(r)) is not None]


def test_a_window_runs_from_change_to_change():
    """The first change is the origin; each later one closes a window with the counter's difference."""
    timeline = Timeline(100 * MS)
    got = windows(timeline, [reading(0, 5), reading(100, 10), reading(200, 30), reading(300, 70)])
    assert [(w.t0_ns // MS, w.t1_ns // MS, w.energy_uj, w.gap) for w in got] == [(100, 200, 20, ""), (200, 300, 40, "")]
    assert timeline.origin_ns == 100 * MS


def test_a_change_without_a_beat_is_put_between_the_looks():
    """A change seen at 120 ms that was not there at 100 ms is dated 110 ms: half a poll off at most, on average not at all."""
    assert Beat(100 * MS).date(100 * MS, 120 * MS) == 110 * MS


def test_a_beat_dates_changes_better_than_the_looks_do():
    """Changes every 100 ms, looks every 21, and a source that says 101: after some dozens each is dated to 4 ms, not to 10."""
    beat, off_ns = Beat(101 * MS), []
    for i in range(1, 300):
        change_ns = i * 100 * MS
        seen_ns = -(-change_ns // (21 * MS)) * 21 * MS
        off_ns.append(abs(beat.date(seen_ns - 21 * MS, seen_ns) - change_ns))
    assert max(off_ns[100:]) < 4 * MS


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), max_size=60))
def test_a_change_is_never_outside_of_its_looks(looks):
    """Whatever the counter does: not before the look that did not see it, not after the one that did, and in order."""
    beat, t_ns, last_ns = Beat(100 * MS), 0, 0
    for gap_ms, span_ms in looks:
        earliest_ns = t_ns + gap_ms * MS
        t_ns = earliest_ns + span_ms * MS
        dated_ns = beat.date(earliest_ns, t_ns)
        assert earliest_ns <= dated_ns <= t_ns
        assert dated_ns >= last_ns
        last_ns = dated_ns


def test_a_reset_is_a_gap_without_energy():
    """A counter that goes back began again; what was drawn is not known, and never negative."""
    (window,) = windows(Timeline(100 * MS), [reading(0, 5), reading(100, 1000), reading(200, 10)])
    assert (window.energy_uj, window.gap) == (0, "reset")


def test_a_wraparound_is_not_a_reset():
    """A counter with a known size that starts again has only gone on."""
    (window,) = windows(Timeline(100 * MS, wrap_uj=1000), [reading(0, 800), reading(100, 900), reading(200, 50)])
    assert (window.energy_uj, window.gap) == (150, "")


def test_a_counter_not_seen_for_long_is_stale():
    """Energy of a window of more than a second is known, but nobody can say whose it was."""
    (window,) = windows(Timeline(100 * MS), [reading(0, 1), reading(100, 2), reading(1300, 50)])
    assert (window.energy_uj, window.gap) == (48, "stale")


def test_a_late_reading_changes_nothing():
    """A reading older than the last change belongs to a window that is closed."""
    timeline = Timeline(100 * MS)
    windows(timeline, [reading(0, 1), reading(100, 2), reading(200, 3)])
    assert timeline.add(reading(150, 9)) is None
    assert timeline.add(reading(300, 4)).energy_uj == 1


def test_power_is_the_sensors_or_the_last_windows():
    """Instant power wins; without it the last window's mean serves; before that nothing is known."""
    timeline = Timeline(100 * MS)
    assert timeline.power_w is None
    windows(timeline, [reading(0, 0), reading(100, 1), reading(200, 10_000_001)])
    assert timeline.power_w == 100.0
    timeline.add(reading(210, 10_000_001, 250_000))
    assert timeline.power_w == 250.0
    assert timeline.energy_since_change(300 * MS) == 25_000_000


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(-500, 5000)), max_size=60))
def test_windows_telescope(steps):
    """Whatever the counter does, windows touch each other, have a length, and never a negative energy."""
    timeline = Timeline(100 * MS)
    t_ms, value = 0, 10**6
    timeline.add(reading(0, value))
    got = []
    for dt, dv in steps:
        t_ms, value = t_ms + dt, max(0, value + dv)
        window = timeline.add(reading(t_ms, value))
        if window is not None:
            got.append(window)
    assert all(a.t1_ns == b.t0_ns for a, b in pairwise(got))
    assert all(w.energy_uj >= 0 and w.t1_ns > w.t0_ns for w in got)
