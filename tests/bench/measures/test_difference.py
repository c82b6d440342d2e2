"""The law of `perjoule compare`: two runs of one thing are no different, and five percent more is found; and each rule by hand."""

from math import exp
from random import Random

import pytest

from perjoule.bench.measures.comparable import alike, differences
from perjoule.bench.measures.difference import change, comparable_metrics
from perjoule.bench.physics import H200
from perjoule.bench.simulated_run import Request, play
from tests.bench.measures.made import LOAD, SETTING

RUN_SD = 0.007  # of one run's joules; two runs differ by √2 of it, 1 %
DRIFT_SD, DRIFT_RHO = 0.01, 0.95  # of the joules of neighbours in time, who share windows and the board's state
REQUEST_SD = 0.05  # of one request's share: which step it fell into


@pytest.fixture(scope="module")
def base():
    """Requests of a Poisson stream through the simulator, and their joules by the meter that serves production."""
    random, at_ns, requests = Random(7), 0, []
    for _ in range(250):
        at_ns += round(random.expovariate(8) * 1e9)
        requests.append(Request(at_ns, random.randrange(64, 1024), random.randrange(32, 128)))
    records = play(requests, H200).records
    return [(request, record.charge.energy_uj / 1e6) for request, record in zip(requests, records, strict=True)]


def noisy(base, seed, factor=1.0, schedule="s1"):
    """A run of these requests: its own gain, a drift in time, and noise of each request."""
    random = Random(seed)
    gain, drift, joules = factor * exp(random.gauss(0, RUN_SD)), random.gauss(0, DRIFT_SD), []
    for _, each_j in base:
        drift = DRIFT_RHO * drift + random.gauss(0, DRIFT_SD * (1 - DRIFT_RHO**2) ** 0.5)
        joules.append(each_j * gain * exp(drift + random.gauss(0, REQUEST_SD)))
    n = len(base)
    return {"run_id": str(seed), "name": "", "date": str(seed), "valid": True, "reasons": [],
            "setting": {**SETTING, "schedule_sha256": schedule}, "load": LOAD, "metrics": {}, "schema_version": 1, "requests": {
                "index": list(range(n)), "intended_s": [request.at_ns / 1e9 for request, _ in base], "energy_j": joules,
                "output_tokens": [request.output_tokens for request, _ in base], "outcome": ["completed"] * n, "ttft_ms": [None] * n,
                "tpot_ms": [None] * n, "e2e_ms": [100.0] * n}}


def verdicts(base, factor, repeats=1, pairs=100):
    """Of so many pairs of runs, the second `factor` times as dear."""
    found = []
    for trial in range(pairs):
        seeds = [1000 * trial + nth for nth in range(2 * repeats)]
        a, b = [noisy(base, seed) for seed in seeds[:repeats]], [noisy(base, seed, factor) for seed in seeds[repeats:]]
        found.append(change("energy_per_output_token", a, b).verdict(0.01))
    return found


@pytest.mark.parametrize(("repeats", "pairs"), [(1, 100), (3, 30)])
def test_two_runs_of_one_thing_are_no_different(base, repeats, pairs):
    """In 90 of 100 pairs at least."""
    assert verdicts(base, 1.0, repeats, pairs).count("no difference") >= 0.9 * pairs


@pytest.mark.parametrize(("repeats", "pairs"), [(1, 100), (3, 30)])
def test_five_percent_more_is_found(base, repeats, pairs):
    """In 90 of 100 pairs at least, and five percent less as an improvement."""
    assert verdicts(base, 1.05, repeats, pairs).count("regression") >= 0.9 * pairs
    assert verdicts(base, 1 / 1.05, repeats, 10).count("improvement") >= 9


def test_the_interval_holds_the_truth(base):
    """Of 3 % in 90 of 100 pairs at least."""
    held = 0
    for trial in range(100):
        found = change("energy_per_output_token", [noisy(base, 2 * trial)], [noisy(base, 2 * trial + 1, 1.03)])
        held += found.low <= 0.03 <= found.high
    assert held >= 90


def test_requests_are_paired_by_their_place_in_the_schedule(base):
    """Those that both completed; what only one completed is left out."""
    a, b = noisy(base, 1), noisy(base, 1, 2.0)
    b["requests"]["outcome"][0] = "errored"
    a["requests"]["energy_j"][1] = None
    found = change("energy_per_output_token", [a], [b])
    assert found.requests == len(base) - 2
    assert found.change == pytest.approx(1.0)
    assert found.a == pytest.approx(sum(a["requests"]["energy_j"][2:]) / sum(a["requests"]["output_tokens"][2:]))


def with_metric(run_id, value, low, high, key="output_throughput"):
    """A result that has nothing but one metric."""
    return {"run_id": run_id, "name": run_id, "setting": SETTING | {"schedule_sha256": run_id}, "load": LOAD, "requests": {},
            "metrics": {key: {"value": value, "low": low, "high": high, "formula": f"{key}/1"}}}


def test_runs_of_different_schedules_are_compared_by_their_intervals():
    """Wide ones hide a difference, narrow ones show it; less throughput is worse."""
    wide = change("output_throughput", [with_metric("a", 100.0, 90.0, 110.0)], [with_metric("b", 90.0, 81.0, 99.0)])
    narrow = change("output_throughput", [with_metric("a", 100.0, 99.0, 101.0)], [with_metric("b", 90.0, 89.0, 91.0)])
    assert (wide.change, narrow.change) == pytest.approx((-0.1, -0.1))
    assert (wide.verdict(0.01), narrow.verdict(0.01)) == ("no difference", "regression")
    assert (wide.requests, wide.pairs) == (0, 1)


def test_repeats_that_differ_much_widen_the_interval(base):
    """What repeats show is weighed against what is assumed."""
    runs = [noisy(base, seed) for seed in range(6)]
    calm = change("energy_per_response", runs[:3], runs[3:])
    apart = change("energy_per_response", runs[:3], [noisy(base, 3, 1.2), noisy(base, 4), noisy(base, 5, 0.8)])
    assert apart.high - apart.low > 2 * (calm.high - calm.low)
    assert (apart.pairs, apart.requests) == (3, 750)


def test_four_repeats_that_agree_halve_the_interval():
    """The mean of four is twice as sure as one, a little less for what is not known of their spread."""
    one = change("output_throughput", [with_metric("a", 100.0, 98.0, 102.0)], [with_metric("b", 100.0, 98.0, 102.0)])
    four = change("output_throughput", [with_metric("a", 100.0, 98.0, 102.0)] * 4, [with_metric("b", 100.0, 98.0, 102.0)] * 4)
    assert four.high < 0.5 * one.high
    assert four.high > 0.4 * one.high


def test_what_cannot_be_compared_is_refused_with_what_can(base):
    """No such metric, one without a direction, one without an interval, one that is null."""
    a = noisy(base, 1)
    for metric in ("nonsense", "avg_power_w"):
        with pytest.raises(ValueError, match=f"metric: got '{metric}', expected one of e2e, energy_per_response, energy_per_output_token"):
            change(metric, [a], [a])
    lone = with_metric("a", 3.0, None, None)
    with pytest.raises(ValueError, match="output_throughput: got no interval of it from 'a'"):
        change("output_throughput", [lone], [lone])
    with pytest.raises(ValueError, match="ttft: got no interval"):
        change("ttft", [a], [a])
    assert comparable_metrics(a) == ["e2e", "energy_per_response", "energy_per_output_token"]


def test_settings_that_must_be_equal_forbid_a_comparison(base):
    """Model, GPU, workload, load; others are said."""
    a, b = noisy(base, 1), noisy(base, 2)
    assert differences(a, b) == []
    b["setting"] = b["setting"] | {"gpu_model": "H100", "engine_version": None, "workload": "azure2023"}
    b["load"] = LOAD | {"seed": 9, "concurrency": 16}
    found = differences(a, b, allowed=["workload"])
    assert [(each.key, each.forbids) for each in found] == [("gpu_model", True), ("load.concurrency", True), ("workload", False),
                                                           ("engine_version", False), ("load.seed", False)]
    assert str(found[0]) == "gpu_model: H200 and H100"
    assert str(found[3]) == "engine_version: 0.25.1 and unknown"


def test_repeats_may_differ_in_seed_and_schedule_alone(base):
    """Another engine is no repeat."""
    a, b = noisy(base, 1), noisy(base, 2, schedule="s2")
    b["load"] = LOAD | {"seed": 9}
    assert alike([a, b]) == []
    b["setting"] = b["setting"] | {"engine_version": "0.26"}
    assert [each.key for each in alike([a, b])] == ["engine_version"]
