"""Intervals that hold the truth as often as they say, on data whose truth is known."""

from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.measures.intervals import block_length, of_mean, of_ratio, of_repeats, repeated, resampled, t_975


def wandering(random, n, rho, spread=1.0):
    """A first-order process around 0."""
    x, found = random.gauss(0, spread / (1 - rho * rho) ** 0.5), []
    for _ in range(n):
        found.append(x)
        x = rho * x + random.gauss(0, spread)
    return found


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_the_interval_of_a_ratio_holds_the_truth(rho):
    """Joules that wander over tokens that do: 95 % nominal, 85 % at least of 100 runs."""
    held = 0
    for seed in range(100):
        random = Random(seed)
        tokens = [100 + random.random() for _ in range(400)]
        joules = [2 * t + x for t, x in zip(tokens, wandering(random, 400, rho), strict=True)]
        interval = of_ratio(joules, tokens)
        held += interval.low <= 2 <= interval.high
    assert held >= 85


def test_blocks_are_as_long_as_neighbours_belong_together():
    """One for independent values, more for those that wander, an eighth of all at most."""
    random = Random(1)
    lengths = [block_length(wandering(random, 1000, rho)) for rho in (0.0, 0.5, 0.9, 0.99)]
    assert lengths == sorted(lengths)
    assert lengths[0] <= 5
    assert 20 < lengths[2] < lengths[3] <= 125
    assert block_length([1.0] * 100) == 1


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40), st.integers(1, 10))
def test_blocks_are_neighbours_round_the_end(values, block):
    """Every draw is a sum of runs of the column; a column of ones is always as long as the blocks drawn."""
    block = min(block, len(values))
    for total, rows in resampled([values, [1.0] * len(values)], block, seed=3, draws=20):
        assert rows == max(1, round(len(values) / block)) * block
        assert min(values) * rows - 1e-6 <= total <= max(values) * rows + 1e-6


def test_the_same_seed_gives_the_same_interval_and_few_values_none():
    """A result does not depend on when it is made."""
    values = wandering(Random(5), 100, 0.5)
    assert of_mean(values) == of_mean(values)
    assert of_mean(values[:15]) is None
    assert of_ratio([1.0] * 20, [0.0] * 20) is None


def test_repeats_hold_the_truth():
    """Three runs each: 90 % at least of 300."""
    random = Random(2)
    held = 0
    for _ in range(300):
        interval = of_repeats([random.gauss(10, 1) for _ in range(3)])
        held += interval.low <= 10 <= interval.high
    assert held >= 270
    assert of_repeats([1.0, 2.0]) is None


def test_student_t_is_that_of_the_tables():
    """Between rows the next lower one, which is wider."""
    assert (t_975(2), t_975(13), t_975(10_000)) == (4.303, 2.179, 1.980)


def test_repeats_as_one():
    """The mean of what all have, with an interval from three on; a run that lacks a metric takes it away."""
    def result(run_id, value, more=None):
        metrics = {"m": {"value": value, "unit": "J", "formula": "m/1"}, "n": {"value": more, "unit": "J", "formula": "n/1"}}
        return {"run_id": run_id, "valid": True, "metrics": metrics}

    said = repeated([result("a", 1.0, 5.0), result("b", 2.0, 5.0), result("c", 3.0)])
    assert said["repeats"] == 3
    assert said["metrics"].keys() == {"m"}
    metric = said["metrics"]["m"]
    assert metric["value"] == fmean([1.0, 2.0, 3.0])
    assert (metric["low"], metric["high"]) == pytest.approx((2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5))
    assert repeated([result("a", 1.0)])["metrics"]["m"]["low"] is None
    with pytest.raises(ValueError, match="got no results"):
        repeated([])
