"""From results: what was measured at a concurrency is told there, between two it is interpolated, beyond them it is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.batching import Limits, batched
from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.estimates.measured import at, by_results, concurrency_for
from perjoule.bench.estimates.points import Point, chosen, merged, point_of
from perjoule.bench.measures.result import result_of
from tests.bench.estimates.made import IDLE_W, SECONDS, TRUTH, result
from tests.bench.measures.made import made_run

LOOPS = (1, 4, 16, 64)


@pytest.fixture(scope="module")
def curve():
    return merged([point_of(result(n)) for n in LOOPS])


def true_j(asked, concurrency):
    found = batched(asked, SECONDS, Limits(concurrency=concurrency))
    return sum(TRUTH.dot(share.amounts) for share in found.shares) + IDLE_W * found.busy_s


@pytest.mark.parametrize("concurrency", LOOPS)
def test_what_was_measured_is_told(curve, concurrency):
    """The same requests in the same closed loop cost what they did, and last as long."""
    count = 4 * concurrency + 20
    measured = result(concurrency)["windows"]["whole"]
    found = by_results([Asked(500, 200)] * count, curve, concurrency)
    assert found.energy_j == pytest.approx(measured["energy_j"])
    assert found.duration_s == pytest.approx(measured["duration_s"])
    assert found.warnings == ()


@pytest.mark.parametrize("concurrency", [2, 8, 32])
def test_between_two_it_is_interpolated(curve, concurrency):
    """Within the error that it says."""
    asked = [Asked(500, 200)] * (4 * concurrency + 20)
    found = by_results(asked, curve, concurrency)
    low, high = found.interval_j
    assert low < true_j(asked, concurrency) < high
    assert found.energy_j == pytest.approx(true_j(asked, concurrency), rel=0.15)


def test_prompts_and_answers_have_prices_of_their_own(curve):
    """Prompts of half the length cost half for themselves; that the results' are longer is said."""
    found = by_results([Asked(250, 200)] * 80, curve, 16)
    whole = by_results([Asked(500, 200)] * 80, curve, 16)
    assert found.parts["prompts_j"] == pytest.approx(whole.parts["prompts_j"] / 2)
    assert found.parts["outputs_j"] == whole.parts["outputs_j"]
    assert "prompts are 250 tokens on average, those of the results 500" in found.warnings[0]


def test_beyond_what_was_measured_the_nearest_counts_and_it_is_said(curve):
    """No extrapolation."""
    found = by_results([Asked(500, 200)] * 1000, curve, 500)
    assert found.energy_j == pytest.approx(by_results([Asked(500, 200)] * 1000, curve, 64).energy_j, rel=0.05)
    assert found.warnings[0].startswith("got a concurrency of 500, measured are")


def test_times_lead_to_the_concurrency_that_serves_them(curve):
    """Little's law: as many in flight as the tokens a second need; the time that is left is idle."""
    wanted = at(curve, 8).output_tokens_s
    assert concurrency_for(curve, wanted) == pytest.approx(8)
    asked = [Asked(500, 200, i * 200 / wanted) for i in range(200)]
    found = by_results(asked, curve, None, IDLE_W)
    assert found.batch == pytest.approx(8, rel=0.02)
    assert found.parts["idle_j"] < 0.01 * found.energy_j
    seldom = by_results([Asked(500, 200, 100.0 * i) for i in range(5)], curve, None, IDLE_W)
    assert seldom.batch == pytest.approx(1, rel=0.02)
    assert seldom.parts["idle_j"] == pytest.approx(IDLE_W * 400, rel=0.05)
    flood = by_results([Asked(500, 200, 0.001 * i) for i in range(500)], curve, None)
    assert "requests queue" in flood.warnings[0]


points = st.lists(st.integers(1, 500), min_size=1, max_size=6, unique=True).map(
    lambda found: [Point(n, 0.01, 2.0 / n + 0.05, 100.0 * n, 400.0, 500.0, 200.0) for n in sorted(found)])


@given(points, st.floats(0.5, 1000), st.integers(1, 500), st.integers(1, 500))
def test_between_points_nothing_is_higher_or_lower_than_both(curve, concurrency, prompt, output):
    """And the parts add up."""
    joules = at(curve, concurrency).output_token_j
    assert min(p.output_token_j for p in curve) * 0.999 <= joules <= max(p.output_token_j for p in curve) * 1.001
    found = by_results([Asked(prompt, output)] * 3, curve, 2)
    assert sum(found.requests_j) + found.parts["idle_j"] == pytest.approx(found.energy_j) == pytest.approx(sum(found.parts.values()))


def test_the_error_is_what_leaving_a_point_out_shows(curve):
    """Three points or more; fewer are said to tell nothing."""
    (_, doubt) = by_results([Asked(500, 200)] * 9, curve, 4).doubts
    assert 0 < doubt.relative_sd < 0.25
    (_, doubt) = by_results([Asked(500, 200)] * 9, curve[:2], 4).doubts
    assert (doubt.relative_sd, doubt.text[:7]) == (0.25, "assumed")


def test_a_result_of_replay_is_a_point():
    """What `perjoule replay` writes: its steady window, all its joules on prompt and output tokens."""
    whole = result_of(made_run())
    point, window = point_of(whole), whole["windows"]["steady"]
    assert point.concurrency == whole["load"]["concurrency"]
    prompts_j, outputs_j = point.prompt_token_j * window["input_tokens"], point.output_token_j * window["output_tokens"]
    assert prompts_j > 0
    assert prompts_j + outputs_j == pytest.approx(window["energy_j"])
    opened = whole | {"load": {"mode": "open", "request_rate": 3.0}}
    assert point_of(opened).concurrency == pytest.approx(window["avg_batch_size"])


def test_repeats_are_one_point():
    """Of equal concurrency: their mean."""
    a, b = point_of(result(4)), point_of(result(4))._replace(output_token_j=1.0)
    (point,) = merged([a, b])
    assert point.output_token_j == pytest.approx((a.output_token_j + 1.0) / 2)


def test_one_setting_at_a_time():
    """Two models make two curves; a part of the name chooses."""
    results = [result(4), result(4, model="org/Other-8B"), result(8, valid=False, run_id="bad")]
    with pytest.raises(EstimateError, match="got 2 settings, expected one"):
        chosen(results)
    found, notes = chosen(results, model="other")
    assert [each["setting"]["model_id"] for each in found] == ["org/Other-8B"]
    assert notes == []
    assert "1 results are left out" in chosen(results, model="model")[1][0]
    with pytest.raises(EstimateError, match="got none of llama on any GPU, expected one of org/Model-8B on NVIDIA H200"):
        chosen(results, model="llama")
    with pytest.raises(EstimateError, match="none of them valid"):
        chosen([result(4, valid=False)])
    assert "simulated" in chosen([result(4, setting={"energy_status": "simulated"})])[1][0]


@pytest.mark.parametrize("missing", [{"windows": {}}, {"completed": 0}, {"windows": {"whole": {"energy_j": None, "output_tokens": 5}}}])
def test_a_result_without_energy_or_tokens_is_no_point(missing):
    """As of a run without a sensor."""
    assert point_of(result(4) | missing) is None
