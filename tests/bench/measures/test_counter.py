"""The energy counter between looks: interpolated, with an error that bounds what one change of the power can do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.load.sample import Observation
from perjoule.bench.measures.counter import EnergyCounter

S = 1_000_000_000


def looked(*rows, **more):
    """Observations from (seconds, microjoules)."""
    return [Observation(round(t * S), 0, None if uj is None else {"measured_uj": uj, **more}) for t, uj in rows]


def test_between_looks_it_is_interpolated_and_beyond_them_it_stands():
    """Half-way in time is half-way in joules."""
    counter = EnergyCounter(looked((0, 100), (2, 300), (3, 900)))
    assert [counter.at(round(t * S))[0] for t in (-1, 0, 1, 2.5, 3, 9)] == [100, 100, 200, 600, 900, 900]
    assert counter.drawn.measured_uj == 800
    assert counter.drawn.t_ns == 3 * S


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.integers(0, 1000), st.integers(0, 1000))
def test_one_change_of_power_between_looks_is_within_the_error(place, change, before_w, after_w):
    """Power steps once, somewhere between two looks; another moment between them is asked for."""
    def true_uj(t_s):
        return before_w * 1e6 * min(t_s, 5 + change) + after_w * 1e6 * max(t_s - 5 - change, 0)

    counter = EnergyCounter(looked(*((t, round(true_uj(t))) for t in range(11))))
    t_ns = round((5 + place) * S)
    assert abs(counter.at(t_ns)[0] - true_uj(5 + place)) <= counter.error_uj(t_ns) + 5
    assert counter.error_uj(5 * S) == 0


def test_steady_power_has_no_error():
    """Nothing to be wrong about."""
    assert EnergyCounter(looked(*((t, 400 * t) for t in range(9)))).error_uj(round(4.3 * S)) == pytest.approx(0)


def test_a_counter_that_began_anew_goes_on_and_is_told():
    """A sidecar that was started again."""
    counter = EnergyCounter(looked((0, 500), (1, 600), (2, 50), (3, 150)))
    assert counter.resets == 1
    assert counter.drawn.measured_uj == 250


@pytest.mark.parametrize(("rows", "still_s"), [
    (((0, 1), (1, 2), (2, 3)), 1), (((0, 1), (1, None), (2, None), (3.5, 3)), 3.5), (((0, 1), (1, 2), (2, 2), (4, 2), (5, 3)), 4),
    (((0, 1), (1, 2), (4, None)), 3), (((0, None), (5, 1), (6, 2)), 6)])
def test_the_longest_time_without_news(rows, still_s):
    """No answer, or no microjoule more, also at both ends."""
    assert EnergyCounter(looked(*rows)).still_ns == pytest.approx(still_s * S)


def test_a_balance_that_says_until_when_is_of_then():
    """It was asked at 10 s, and is of what was drawn until 9.75 s."""
    looks = [Observation(t * S, 1_000 * S + t * S, {"measured_uj": t * 100, "until_unix_ns": 1_000 * S + t * S - S // 4}) for t in (0, 10)]
    assert [look.t_ns for look in EnergyCounter(looks).looks] == [-S // 4, 10 * S - S // 4]


def test_too_few_answers_are_no_counter():
    """Nothing can be said of one look."""
    with pytest.raises(ValueError, match="got 1 answers of the sidecar's balance, expected at least 2"):
        EnergyCounter(looked((0, 1), (1, None)))
