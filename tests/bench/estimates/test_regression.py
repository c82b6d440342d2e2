"""The regression finds power laws, says what it is worth for a model that it has not seen, and refuses where it cannot say."""

import math
from random import Random

import pytest

from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.batching import Limits
from perjoule.bench.estimates.boards import boards_of
from perjoule.bench.estimates.costs import by_physics
from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.estimates.estimate import estimated
from perjoule.bench.estimates.regression import RIDGE, by_regression, cross_validated, fit
from perjoule.bench.estimates.rows import FEATURES, Row, features_of, rows_of
from perjoule.bench.estimates.shapes import shape_of
from tests.bench.estimates.made import result

EXPONENTS = (0.9, 0.0, 0.0, 0.1, 1.0, -0.6, 0.0, 0.0, 0.0)


def rows(noise=0.0, models=8, physics=0.5):
    """Results of dense models of 1 to 100 billion parameters whose joules are a power law of size, lengths and batch. Physics has it
    but for a power of the size."""
    random, found = Random(1), []
    for i in range(models):
        size = math.log(1e9) + math.log(100) * i / max(models - 1, 1)
        for _ in range(12):
            drawn = random.uniform(3, 8), random.uniform(3, 7), random.uniform(0, 5)
            x = (size, size, math.log(2), *drawn, math.log(4.8e12), math.log(989e12), math.log(700))
            energy = sum(a * b for a, b in zip(EXPONENTS, x, strict=True))
            found.append(Row(f"model {i}", x, energy + random.gauss(0, noise), energy + physics * (x[0] - 22)))
    return found


def test_a_power_law_is_found_but_for_what_the_ridge_takes():
    """Exponents of lengths and batch within a tenth; size is shared with active parameters, which say the same; the rest gets nothing."""
    fitted = cross_validated(rows(), beside_physics=False)
    found = dict(zip(FEATURES, (w / s for w, s in zip(fitted.weights, fitted.scales, strict=True)), strict=True))
    shrunk = 1 / (1 + RIDGE)
    assert found["output tokens"] == pytest.approx(1.0 * shrunk, rel=0.03)
    assert found["batch"] == pytest.approx(-0.6 * shrunk, rel=0.03)
    assert found["parameters"] + found["active parameters"] == pytest.approx(0.9 * 2 / (2 + RIDGE), rel=0.03)
    assert found["bytes/s"] == found["FLOP/s"] == found["TDP"] == found["bytes of a weight"] == 0


def test_the_error_is_of_models_that_were_left_out():
    """The largest model costs three times what its size says, and is mispredicted by all of that; the fit itself would come nearer."""
    odd = [row._replace(energy=row.energy + math.log(3) * (row.model == "model 7")) for row in rows()]
    fitted = cross_validated(odd, beside_physics=False)
    own = [error for row, error in zip(odd, fitted.errors, strict=True) if row.model == "model 7"]
    assert sum(own) / len(own) == pytest.approx(-math.log(3), abs=0.25)
    assert fitted.relative_sd > cross_validated(rows(), beside_physics=False).relative_sd


def test_the_better_of_both_is_taken():
    """Physics that is right but for a factor leaves nothing to be found; physics that is wrong by chance is left alone."""
    fitted = fit(rows(physics=0.0))
    assert fitted.beside_physics
    assert fitted.relative_sd < 1e-9 < fitted.rival
    random = Random(2)
    fitted = fit([row._replace(physics=random.gauss(0, 3)) for row in rows()])
    assert not fitted.beside_physics
    assert fitted.relative_sd < 0.3 < fitted.rival


def test_noise_shows_in_the_error():
    """Rows that differ by 30 % for no reason are not told better than that."""
    assert fit(rows(noise=0.3)).relative_sd > 0.27
    assert fit(rows()).median_error < fit(rows(noise=0.3)).median_error


@pytest.mark.parametrize("models", [0, 1, 2])
def test_fewer_than_three_models_are_refused(models):
    """Nothing would tell what it is worth for another."""
    with pytest.raises(EstimateError, match=f"got valid results of {models} models .* expected at least 3"):
        fit(rows(models=models))


def test_results_become_rows_and_what_does_not_is_said():
    """Size by the model's name, speed by the GPU's."""
    results = [result(4), result(8, model="org/Mystery"), result(8, gpu="CPU"), result(8, valid=False)]
    found, problems = rows_of(results)
    assert len(found) == 1
    assert found[0].features[0] == pytest.approx(math.log(8e9))
    assert math.exp(found[0].physics) == pytest.approx(math.exp(found[0].energy), rel=0.3)  # the made engine is much like an H200
    assert math.exp(found[0].energy) * 36 == pytest.approx(results[0]["windows"]["whole"]["energy_j"])
    assert ["8B" in problems[0], "'CPU'" in problems[1], "not valid" in problems[2]] == [True] * 3


def test_an_estimate_of_another_model():
    """Three models cost half of what physics says of them, so does a fourth; it lasts as long as physics says, or TDP allows."""
    boards = boards_of("h200", 2)

    def physics(name, concurrency):
        shape = shape_of(name)
        return estimated([Asked(500, 200)] * (4 * concurrency), by_physics(shape, boards), Limits(concurrency=concurrency), shape)
    taught = []
    for name in ("llama-3.2-3b", "llama-3.1-8b", "llama-3.1-70b"):
        for n in (1, 4, 16, 64):
            found = physics(name, n)
            energy = math.log(found.energy_j / len(found.asked))
            taught.append(Row(name, features_of(shape_of(name), boards, 500, 200, found.batch), energy - math.log(2), energy))
    other, shape = physics("qwen3-32b", 8), shape_of("qwen3-32b")
    found = by_regression(other.asked, fit(taught), other, shape, boards)
    assert found.energy_j == pytest.approx(other.energy_j / 2)
    assert sum(found.requests_j) == pytest.approx(found.energy_j)
    assert found.duration_s == other.duration_s
    dear = fit([row._replace(energy=row.energy + math.log(5)) for row in taught])
    assert by_regression(other.asked, dear, other, shape, boards).avg_power_w == pytest.approx(2 * 700)
    plain = cross_validated(taught, beside_physics=False)  # as in the paper: sizes alone tell it within what is said
    found = by_regression(other.asked, plain, other, shape, boards)
    low, high = found.interval_j
    assert low < other.energy_j / 2 < high
