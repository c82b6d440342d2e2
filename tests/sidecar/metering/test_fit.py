"""The regression behind a calibration: exact where the data are, the prior's where they say nothing, never negative."""

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.fit import FLOOR, Fit

positive = st.floats(0.3, 3.0)
blocks = st.lists(st.tuples(st.lists(st.floats(0.0, 1000.0), min_size=4, max_size=4).filter(lambda x: sum(x) > 1e-3),
                            st.floats(1e-3, 1e4)), min_size=1, max_size=30)


@given(st.tuples(positive, positive, positive, positive), st.integers(0, 10))
def test_what_varies_is_found(truth, seed):
    """Blocks that differ in all four amounts leave nothing to the prior."""
    random, fit = Random(seed), Fit(0.5)
    for _ in range(300):
        x = [random.expovariate(1.0) for _ in truth]
        fit.learn(x, sum(a * b for a, b in zip(x, truth, strict=True)), 1.0)
    largest = max(truth)
    assert all(abs(t - b) < 0.1 * largest for t, b in zip(fit.theta, truth, strict=True))


def test_what_does_not_vary_is_the_priors():
    """Proportional amounts fix the scale and leave the shape as it was: equal, in the prior's units."""
    fit = Fit(0.5)
    for size in range(1, 200):
        fit.learn([size * a for a in (1.0, 2.0, 3.0, 4.0)], 70.0 * size, 1.0)
    assert fit.theta == pytest.approx([7.0] * 4, rel=1e-3)


@given(blocks)
def test_no_coefficient_is_below_the_floor(rows):
    """Whatever the blocks are, coefficients and variances are positive numbers."""
    fit = Fit(0.5)
    for x, energy_j in rows:
        fit.learn(x, energy_j, 0.99)
        scale = sum(fit.product) / sum(map(sum, fit.square))
        assert min(fit.theta) >= FLOOR * scale * 0.999
        assert all(fit.covariance[i][i] >= 0 for i in range(4))


def test_a_negative_truth_ends_on_the_floor():
    """A coefficient that would have to be negative is held, and the others are the best beside it."""
    random, fit = Random(1), Fit(0.5)
    for _ in range(500):
        x = [random.uniform(1, 2) for _ in range(4)]
        fit.learn(x, 5 * x[0] + 5 * x[1] + 5 * x[2] - 2 * x[3], 1.0)
    assert fit.theta[3] == pytest.approx(FLOOR * sum(fit.product) / sum(map(sum, fit.square)), rel=0.01)
    assert min(fit.theta[:3]) > 3


def test_one_wild_block_is_held_back():
    """A block of ten times the energy moves the fit by less than a tenth of what least squares would."""
    random, fit = Random(2), Fit(0.5)
    for _ in range(100):
        x = [random.expovariate(1.0) for _ in range(4)]
        fit.learn(x, sum(x) * random.gauss(1.0, 0.02), 1.0)
    fit.learn([1.0] * 4, 40.0, 1.0)
    assert max(abs(t - 1.0) for t in fit.theta) < 0.05


@given(blocks)
def test_it_goes_on_where_it_was(rows):
    """The sums, through JSON, give the same numbers."""
    fit = Fit(0.5)
    for x, energy_j in rows:
        fit.learn(x, energy_j, 0.99)
    again = Fit.from_json(json.loads(json.dumps(fit.as_json())), 0.5)
    assert (again.theta, again.covariance, again.as_json()) == (fit.theta, fit.covariance, fit.as_json())


@pytest.mark.parametrize("change", [
    {"square": [[0.0] * 4] * 3}, {"blocks": "many"},
    {"error2": -1.0}, {"product": [float("nan")] * 4}, {"last": None},
    {"square": [[1.0] * 4] * 4, "product": [0.0] * 4, "blocks": 5.0},
])
def test_sums_that_cannot_be_are_refused(change):
    """With what was got and what was expected."""
    with pytest.raises(ValueError, match=r"fit: .*got .*expected"):
        Fit.from_json(Fit(0.5).as_json() | change, 0.5)
