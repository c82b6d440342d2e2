"""Cross-validation: what was learned from traffic is held still while it is judged."""

import random

import pytest

from perjoule.bench.held_out import HeldOut
from perjoule.sidecar.metering.calibration import Calibration
from perjoule.sidecar.metering.terms import Terms
from perjoule.sidecar.units import NS_PER_S

TRUE = Terms(0.015, 1.7, 0.02, 1.5e-5)


def windows(count, gain=1.0):
    """Windows of a mix of work, with the joules that it costs."""
    draw = random.Random(3)
    for i in range(count):
        amounts = Terms(draw.choice((0, 1500)), draw.uniform(8, 20), draw.uniform(50, 600), draw.uniform(1e4, 5e5))
        yield amounts, gain * TRUE.dot(amounts), (i + 1) * NS_PER_S // 10, NS_PER_S // 10


@pytest.fixture
def fitted():
    """A calibration that traffic has identified."""
    calibration = Calibration()
    for window in windows(1200):
        calibration.learn(*window)
    assert calibration.state == "fitted"
    return calibration


def test_it_does_not_learn(fitted):
    """Other joules for the same work change neither the coefficients nor their name nor how sure they are."""
    held = HeldOut(fitted)
    for window in windows(600, gain=3.0):
        held.learn(*window)
    assert (held.id, held.coefficients, held.state) == (fitted.id, fitted.coefficients, "fitted")
    assert held.relative_covariance == fitted.relative_covariance


def test_a_gain_is_told_apart_from_an_error(fitted):
    """A board that shows 20 % more has a gain of 1.2 and no window error, since no share sees it."""
    held = HeldOut(fitted)
    assert held.window_error is None
    for window in windows(100, gain=1.2):
        held.learn(*window)
    assert held.gain == pytest.approx(1.2, rel=0.02)
    assert held.window_error == pytest.approx(0, abs=0.02)
