"""What a unit costs: by physics as the prior has it, by calibration as it was fitted."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.adapters.calibrations import CalibrationFolder
from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.batching import Limits
from perjoule.bench.estimates.boards import RATED, boards_of
from perjoule.bench.estimates.bounds import tdp_j
from perjoule.bench.estimates.calibrated import calibration_of
from perjoule.bench.estimates.costs import by_calibration, by_physics
from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.estimates.estimate import estimated
from perjoule.bench.estimates.shapes import SHAPES
from perjoule.sidecar.metering.calibration import Calibration, Key
from perjoule.sidecar.metering.prior import prior
from perjoule.sidecar.metering.terms import Terms
from tests.bench.estimates.made import calibration
from tests.fakes.traffic import TRUTH

SHAPE, H200 = SHAPES["llama-3.1-8b"], boards_of("H200")


@pytest.fixture(scope="module")
def fitted():
    return calibration()


def test_physics_is_the_priors_shape():
    """Its ratios are those that the meter begins with; times differ from joules by the watts alone."""
    costs = by_physics(SHAPE, H200)
    ratio = prior("H200", SHAPE.for_prior)
    assert [joules / costs.joules.prefill for joules in costs.joules] == pytest.approx(tuple(ratio))
    watts = [joules / seconds for joules, seconds in zip(costs.joules, costs.seconds, strict=True)]
    assert watts == pytest.approx([504, 0.9 * 504, 504, 0.9 * 504])  # 0.9 · 700 - 0.18 · 700, and nine tenths of it reading


def test_a_group_of_boards_is_faster_for_the_same_joules():
    """Four share the work: a quarter of the time, the same energy above idle, four times the idle draw."""
    one, four = by_physics(SHAPE, H200), by_physics(SHAPE, boards_of("H200", 4))
    assert tuple(four.joules) == pytest.approx(tuple(one.joules))
    assert [4 * seconds for seconds in four.seconds] == pytest.approx(tuple(one.seconds))
    assert four.idle_w == 4 * one.idle_w


def test_a_calibrations_joules_are_its_own(fitted):
    """Within what it says of them; a shape only tells the durations."""
    version = fitted.versions[-1]
    costs = by_calibration(fitted, version, H200, SHAPE)
    assert costs.joules == version.coefficients
    assert costs.seconds.steps == pytest.approx(by_physics(SHAPE, H200).seconds.steps)
    whole = Terms(70_000, 2300, 65_000, 28e6)
    assert costs.joules.dot(whole) == pytest.approx(TRUTH.dot(whole), rel=3 * costs.coefficients_sd(whole) + 0.01)


def test_without_a_shape_the_joules_tell_the_durations(fitted):
    """At the prior's watts: 504 W above idle computing, 454 reading."""
    costs = by_calibration(fitted, fitted.versions[-1], H200, None)
    assert costs.seconds.prefill == pytest.approx(costs.joules.prefill / 504)
    assert costs.seconds.steps == pytest.approx(costs.joules.steps / 453.6)


@given(st.sampled_from(sorted(RATED)), st.sampled_from((None, *sorted(SHAPES))), st.integers(1, 4), st.integers(1, 2000))
def test_no_calibration_draws_more_than_tdp(gpu, shape, concurrency, prompt):
    """Measured joules never fit into less time than the boards need for them, whatever physics says of another board."""
    boards = boards_of(gpu)
    costs = by_calibration(FITTED, FITTED.versions[-1], boards, SHAPES.get(shape))
    found = estimated([Asked(prompt, 20)] * 8, costs, Limits(concurrency=concurrency))
    assert found.energy_j <= tdp_j(found.duration_s, boards) * (1 + 1e-9)


FITTED = calibration()


def test_a_prior_is_no_joule():
    """What is not fitted has prompt tokens for its unit."""
    fresh = Calibration(Key("NVIDIA H200"))
    with pytest.raises(EstimateError, match="a prior, whose unit is no joule, expected a fitted calibration"):
        by_calibration(fresh, fresh.versions[-1], H200, SHAPE)


def test_a_calibration_is_found_by_file_and_by_id(tmp_path, fitted):
    """As `perjoule serve` keeps them, and any version of them."""
    CalibrationFolder(tmp_path).save(fitted.as_json(1_800_000_000))
    file = next(tmp_path.glob("*.json"))
    assert calibration_of(str(file))[1] == fitted.versions[-1]
    assert [calibration_of(version.id, str(tmp_path))[1] for version in fitted.versions] == fitted.versions
    with pytest.raises(EstimateError, match=f"got 'nope', no file and no id, expected one of .*{fitted.id}"):
        calibration_of("nope", str(tmp_path))


def test_a_file_that_is_no_calibration_is_named(tmp_path):
    """With what is wrong."""
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"key": 1}))
    with pytest.raises(EstimateError, match=r"--calibration: .*x\.json: .*expected"):
        calibration_of(str(file))
