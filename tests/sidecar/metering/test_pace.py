"""What traffic teaches: ratios move towards what is seen, never to nothing, and a peak stays until it is old."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.pace import Pace, Peak, Ratio

MS = 1_000_000


def test_nothing_learned_is_the_prior():
    """Before any traffic the rates are the stated guesses."""
    assert Ratio(4.0, 25.0).value == pytest.approx(4.0)
    assert Pace().step_ns == pytest.approx(20 * MS)


def test_another_model_is_learned_within_dozens_of_requests():
    """After fifty requests of a new engine the old one's rate is forgotten to a tenth."""
    pace = Pace()
    for _ in range(50):
        pace.learn_decode(100, 10_000 * MS)
    for _ in range(50):
        pace.learn_decode(800, 10_000 * MS)
    assert pace.decode_per_s.value == pytest.approx(80.0, rel=0.1)


@given(st.lists(st.tuples(st.floats(-10, 1e9), st.floats(-10, 1e9)), max_size=50))
def test_a_ratio_stays_positive(observations):
    """Whatever is observed (a count of 0, a span of 0), a rate is a positive number: nobody divides by nothing."""
    ratio = Ratio(4.0, 25.0)
    for above, below in observations:
        ratio.learn(above, below)
    assert ratio.value > 0


def test_a_peak_is_the_highest_of_late():
    """The first observation replaces the prior; one below it hardly moves it; a lasting fall is followed."""
    peak = Peak(1000.0)
    peak.learn(100, 1)
    peak.learn(1, 1)
    assert peak.value == pytest.approx(100, rel=0.01)
    for _ in range(3000):
        peak.learn(20, 1)
    assert peak.value == pytest.approx(20, rel=0.01)


def test_a_lower_bound_only_raises():
    """Who is known to be no slower than 50 may be as fast as was thought."""
    peak = Peak(1000.0)
    peak.is_at_least(50, 1)
    assert peak.value == 1000
    peak.is_at_least(5000, 1)
    assert peak.value == 5000


def test_a_step_takes_what_a_token_does():
    """80 tokens a second of one sequence are steps of 12.5 ms."""
    pace = Pace()
    for _ in range(200):
        pace.learn_decode(80, 1000 * MS)
    assert pace.step_ns == pytest.approx(12.5 * MS, rel=0.01)
