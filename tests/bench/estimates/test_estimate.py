"""The laws of an estimate: it adds up, more never costs less, and it lies between what FLOPs and what TDP say."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.batching import Limits
from perjoule.bench.estimates.boards import RATED, boards_of
from perjoule.bench.estimates.bounds import idealized_j, limits_of, tdp_j
from perjoule.bench.estimates.costs import by_physics
from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.estimates.estimate import estimated
from perjoule.bench.estimates.shapes import SHAPES

requests = st.builds(Asked, st.integers(1, 20_000), st.integers(1, 400), st.floats(0, 30))
workloads = st.lists(requests, min_size=1, max_size=15)
loads = st.one_of(st.none(), st.integers(1, 10))
machines = st.tuples(st.sampled_from(sorted(SHAPES)), st.sampled_from(sorted(RATED)), st.sampled_from((1, 2, 8)))


def told(asked, machine, concurrency=None):
    """(estimate, shape, boards) by physics; skips models that do not fit."""
    shape, boards = SHAPES[machine[0]], boards_of(machine[1], machine[2])
    try:
        limits = limits_of(shape, boards, Limits(concurrency=concurrency))
    except EstimateError:
        assume(False)
    return estimated(asked, by_physics(shape, boards), limits, shape), shape, boards


@settings(max_examples=60, deadline=None)
@given(workloads, loads, machines)
def test_parts_and_requests_add_up_to_the_whole(asked, concurrency, machine):
    """Twice: by what it was for, and by who it was for."""
    found, _, _ = told(asked, machine, concurrency)
    assert sum(found.parts.values()) == pytest.approx(found.energy_j)
    assert sum(found.requests_j) + found.parts["idle_j"] == pytest.approx(found.energy_j)
    assert min(found.parts.values()) >= 0
    assert min(found.requests_j) > 0
    low, high = found.interval_j
    assert low < found.energy_j < high


@settings(max_examples=60, deadline=None)
@given(workloads, loads, machines)
def test_it_lies_between_the_idealized_bound_and_tdp(asked, concurrency, machine):
    """FLOPs at their peak are the least that physics allows, TDP × time the most, for all models on all boards."""
    found, shape, boards = told(asked, machine, concurrency)
    assert idealized_j(asked, shape, boards) <= found.energy_j <= tdp_j(found.duration_s, boards)


@settings(max_examples=60, deadline=None)
@given(workloads, machines, st.integers(0, 14), st.integers(0, 5000), st.integers(0, 400))
def test_more_tokens_never_cost_less(asked, machine, place, prompt, output):
    """One at a time: a longer prompt and a longer answer of any request cost as much or more."""
    place %= len(asked)
    more = [Asked(one.prompt + prompt * (i == place), one.output + output * (i == place), one.at_s) for i, one in enumerate(asked)]
    less_j, more_j = told(asked, machine, 1)[0].energy_j, told(more, machine, 1)[0].energy_j
    assert more_j >= less_j * (1 - 1e-12)


@settings(max_examples=60, deadline=None)
@given(workloads, machines, st.integers(1, 12), st.integers(1, 400))
def test_longer_answers_of_all_cost_more_at_any_concurrency(asked, machine, concurrency, output):
    """Every answer longer by the same: dearer, whoever shares a step with whom."""
    more = [Asked(one.prompt, one.output + output) for one in asked]
    assert told(more, machine, concurrency)[0].energy_j > told(asked, machine, concurrency)[0].energy_j


def test_company_is_cheaper_than_being_alone():
    """Steps are shared: sixteen in flight cost less than half of one at a time."""
    asked = [Asked(300, 200)] * 64
    shape, boards = SHAPES["llama-3.1-8b"], boards_of("h200")
    alone, together = (estimated(asked, by_physics(shape, boards), Limits(concurrency=n), shape).energy_j for n in (1, 16))
    assert together < alone / 2


def test_the_whole_by_hand():
    """One request by itself on an H200: its four amounts at the prior's prices, and the idle draw while they last."""
    shape, boards = SHAPES["llama-3.1-8b"], boards_of("h200", idle_w=128.0)
    found = estimated([Asked(1000, 101, 0.0)], by_physics(shape, boards), Limits())
    prompt_s, step_s, context_s = 2 * 8.03e9 / (989e12 / 2), 8.03e9 * 2 / (4.8e12 * 0.8), 131_072 / (4.8e12 * 0.8)
    above_w, context = 0.9 * 700 - 128, 101 * 1050.5
    assert found.duration_s == pytest.approx(1000 * prompt_s + 100 * step_s + 101 * 1.2 * prompt_s + context * context_s)
    assert found.parts == pytest.approx({
        "prefill_j": 1000 * prompt_s * above_w, "steps_j": 100 * step_s * 0.9 * above_w, "decode_j": 101 * 1.2 * prompt_s * above_w,
        "context_j": context * context_s * 0.9 * above_w, "static_j": found.duration_s * 128, "idle_j": 0})
    assert found.energy_kwh == pytest.approx(found.energy_j / 3.6e6)
    assert found.avg_power_w == pytest.approx(found.energy_j / found.duration_s)


def test_waiting_for_requests_is_idle():
    """Two that come an hour apart: the hour is drawn idle, and is nobody's."""
    found, _, boards = told([Asked(10, 10, 0.0), Asked(10, 10, 3600.0)], ("llama-3.1-8b", "H100", 1))
    assert found.parts["idle_j"] == pytest.approx(3600 * boards.idle_w, rel=0.001)
    assert found.duration_s == pytest.approx(3600, rel=0.001)
    assert sum(found.requests_j) < 0.001 * found.energy_j


def test_each_doubt_is_named_and_together_they_are_the_error():
    """Coefficients, watts and durations, added as independent."""
    found, _, _ = told([Asked(1000, 100)] * 20, ("llama-3.1-8b", "H200", 1), 4)
    assert [doubt.source for doubt in found.doubts] == ["coefficients", "watts", "durations"]
    assert found.relative_sd == pytest.approx(sum(doubt.relative_sd**2 for doubt in found.doubts) ** 0.5)
    assert 0.2 < found.relative_sd < 0.6  # physics is good within a factor of 1.5 or so
