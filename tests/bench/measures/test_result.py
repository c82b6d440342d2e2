"""The result of a run that is made: its numbers by hand, its closure, and that every field of it is documented."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from perjoule.bench.measures.formulas import FORMULAS, definitions
from perjoule.bench.measures.result import SETTING, result_of
from perjoule.bench.measures.run import Run, run_of
from tests.bench.measures.made import BUSY_W, EACH_W, LOAD, MS, STEP_NS, S, asked, closed_loop, made_run, record

DOCS = Path(__file__).parents[3] / "docs"
FREE = {"load", "workload", "engine_flags", "errors", "formulas"}  # what is in them is not ours to name


@pytest.fixture(scope="module")
def run() -> Run:
    return made_run()


@pytest.fixture(scope="module")
def result(run):
    return result_of(run)


def test_a_run_that_lacks_nothing_is_valid(result):
    """No reason, no warning, and it is JSON."""
    assert result["valid"]
    assert result["reasons"] == result["warnings"] == []
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_joules_per_token_of_the_steady_window_are_power_over_tokens(result):
    """Eight requests, a token each 20 ms, 380 W: 0.95 J a token, wherever the window is cut."""
    steady = result["windows"]["steady"]
    assert steady["duration_s"] > 30
    assert steady["avg_power_w"] == pytest.approx(BUSY_W + 8 * EACH_W, rel=0.001)
    assert steady["output_throughput"] == pytest.approx(8 * S / STEP_NS, rel=0.002)
    metric = result["metrics"]["energy_per_output_token"]
    assert metric["value"] == pytest.approx(0.95, rel=0.002)
    assert metric["low"] <= metric["value"] <= metric["high"]
    assert metric["window"] == "steady"
    assert result["windows"]["mlenergy"]["energy_per_output_token"] == pytest.approx(0.95, rel=0.02)
    assert result["steady_state_rule"] == "mlenergy/1"


def test_the_closure_is_exact_and_one_microjoule_is_seen(run, result):
    """Records, idle and unattributed are the counter's, in whole microjoules; one that is missing is a reason."""
    closure = result["closure"]
    assert closure["exact"]
    assert closure["difference_uj"] == 0
    assert closure["records_j"] + closure["idle_j"] + closure["unattributed_j"] == pytest.approx(closure["counter_j"])
    short = dict(run.records)
    short[3] = {**short[3], "energy_uj": short[3]["energy_uj"] - 1}
    said = result_of(replace(run, records=short))
    assert said["closure"]["difference_uj"] == 1
    assert [reason["code"] for reason in said["reasons"]] == ["not_closed"]


def test_times_are_from_the_send_and_from_the_intended_send():
    """One late request by hand: lag 3 ms, a role after 5 ms, first token 20 ms after it was sent, 23 after it should have been."""
    samples, records, looks = closed_loop(1, 1)
    samples[0].intended_ns -= 3 * MS
    samples[0].first_byte_ns = samples[0].sent_ns + 5 * MS
    said = result_of(run_of(asked(), samples, records, looks))
    n = samples[0].output_tokens
    means = {key: each["mean"] for key, each in said["distributions"].items()}
    assert {key: means[key] for key in ("send_lag", "ttfb", "ttft", "ttft_intended", "e2e", "e2e_intended", "tpot", "ntpot", "icl")} == {
        "send_lag": 3, "ttfb": 5, "ttft": 20, "ttft_intended": 23, "e2e": 20 * n, "e2e_intended": 20 * n + 3, "tpot": 20, "ntpot": 20,
        "icl": 20}
    assert said["median_itl_ms"] == 20
    assert said["p99_e2el_ms"] == 20 * n


def test_failures_count_against_goodput_and_their_joules_are_wasted():
    """Of four requests one fails and one is cancelled by us: goodput is 2 of 3, and the joules of both are wasted."""
    samples, records, looks = closed_loop(1, 4)
    samples[1].outcome, samples[1].error = "errored", "504 Gateway Timeout"
    samples[2].outcome = "cancelled"
    said = result_of(run_of(asked(), samples, records, looks))
    wasted_j = sum(records[i]["energy_uj"] for i in (1, 2)) / 1e6
    assert said["metrics"]["goodput_share"]["value"] == pytest.approx(2 / 3)
    assert said["metrics"]["goodput_rps"]["value"] == pytest.approx(2 / said["duration"])
    assert said["metrics"]["wasted_j"]["value"] == pytest.approx(wasted_j)
    assert said["outcomes"] == {"completed": 2, "errored": 1, "cancelled": 1, "unfinished": 0, "errors": {"504 Gateway Timeout": 1}}
    assert said["distributions"]["e2e"]["n"] == 2


def test_joules_of_a_response_are_its_record_not_a_rate_times_its_length():
    """Two answers of one length that cost what their records say."""
    samples, records, looks = closed_loop(1, 2)
    for sample in samples:
        sample.output_tokens = sample.wanted_output_tokens = 10
    records[0]["energy_uj"], records[1]["energy_uj"] = 1_000_000, 3_000_000
    said = result_of(run_of(asked(), samples, records, looks))
    assert said["requests"]["energy_j"] == [1.0, 3.0]
    assert said["metrics"]["energy_per_response"]["value"] == 2.0
    assert said["distributions"]["energy_per_output_token"]["max"] == pytest.approx(0.3)


def test_without_joules_there_are_none():
    """No balance and no record: nulls, never zeros, and it says so."""
    samples, _, looks = closed_loop(2, 4)
    for look in looks:
        look.balance = None
    said = result_of(run_of(asked(), samples, [], looks))
    for key in ("energy_per_output_token", "energy_per_response", "idle_j", "avg_power_w", "prefill_j"):
        assert said["metrics"][key]["value"] is None
    assert said["closure"]["counter_j"] is None
    assert "energy_unavailable" in [reason["code"] for reason in said["reasons"]]
    json.dumps(said, allow_nan=False)


def test_an_open_loop_has_no_window_of_ml_energys():
    """Ours stands for it under their names, and it says so."""
    said = result_of(made_run(load={**LOAD, "mode": "open", "arrivals": "poisson", "request_rate": 9.0, "concurrency": None}))
    assert said["windows"]["mlenergy"] is None
    assert said["steady_state_rule"] == "steady/1"
    assert said["request_rate"] == 9.0


def test_joules_of_others_are_not_ours():
    """A record of a request that nobody here sent closes the sum, and spoils the run."""
    run = made_run()
    stranger = record(9_999, 400_000_000)
    looks = [replace(look, balance=dict(look.balance)) for look in run.observations]
    for look in looks[5:]:
        look.balance["measured_uj"] += 400_000_000
        look.balance["requests_uj"] += 400_000_000
    said = result_of(replace(run, observations=looks, others=[stranger]))
    assert said["closure"]["exact"]
    assert said["closure"]["others"] == 1
    assert "other_traffic" in [reason["code"] for reason in said["reasons"]]


def test_every_formula_that_is_shown_is_told_in_words(result):
    """By its id, the words of the table."""
    shown = [each["formula"] for part in ("metrics", "distributions") for each in result[part].values()]
    assert set(shown) <= result["formulas"].keys()
    assert {key: result["formulas"][key] for key in shown} == {key: definitions()[key] for key in shown}
    assert {*result["metrics"], *result["distributions"]} <= FORMULAS.keys()
    assert all(window is None or window["rule"] in result["formulas"] for window in result["windows"].values())


def test_a_thousand_looks_are_drawn_as_six_hundred_points_at_most(run):
    """Neighbours are put together: the timeline stays small, and its energy is the counter's."""
    drawn = result_of(run)["timeline"]
    looks = [look.t_ns for look in run.observations]
    assert len(drawn["t_s"]) == len(looks) - 1
    assert drawn["in_flight"][10] == pytest.approx(8)
    assert drawn["temperature_c"][10] == 60
    assert drawn["steady"][0][0] == 1.0
    every = [replace(run.observations[0], t_ns=round(i * looks[-1] / 3000), balance={"measured_uj": i * 1000}) for i in range(3001)]
    thin = result_of(replace(run, observations=every))["timeline"]
    assert 500 < len(thin["t_s"]) <= 600
    assert all(a < b for a, b in pairwise(thin["t_s"]))
    assert {len(column) for key, column in thin.items() if key != "steady"} == {len(thin["t_s"])}
    assert thin["power_w"] == pytest.approx([3_000_000 / 1e6 / (looks[-1] / S)] * len(thin["t_s"]))


def test_every_field_is_documented_and_every_documented_one_is_there(result):
    """docs/results.md names each field of a result that has all of them, and no other."""
    page = (DOCS / "results.md").read_text()
    table = page[page.index("## The result"):]
    documented = {name for row in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)}
    there = set(fields(result))
    assert there - documented == set(), "not in docs/results.md"
    assert documented - there == set(), "in docs/results.md alone"


def test_every_formula_is_documented_as_it_is():
    """docs/measures.md has a row for each: id, unit and words."""
    rows = [line for line in (DOCS / "measures.md").read_text().splitlines() if line.startswith("| `")]
    for key, formula in FORMULAS.items():
        expected = f"| `{key}/{formula.version}` | {formula.unit} | {formula.words} |"
        assert expected in rows
    named = [match[1] for row in rows if (match := re.match(r"\| `(\w+)/\d+` \|", row))]
    assert sorted(set(named) & FORMULAS.keys()) == sorted(FORMULAS)


def test_a_setting_that_nobody_told_is_null():
    """All keys are there, whatever run.json has."""
    samples, records, looks = closed_loop(1, 2)
    said = result_of(run_of({"setting": {"model_id": "m", "more": 1}}, samples, records, looks))
    assert said["setting"] == dict.fromkeys(SETTING) | {"model_id": "m"}


def test_a_run_without_requests_is_refused():
    """There is nothing to say of it."""
    with pytest.raises(ValueError, match="got no samples, expected at least one request"):
        result_of(run_of(asked(), [], [], []))


def fields(value, path=""):
    """Every field as docs/results.md writes it: `windows.steady.energy_j` is `windows.W.energy_j`, a metric `metrics.KEY.value`."""
    for key, each in value.items():
        place = f"{path}{key}"
        if path == "windows." and key in ("whole", "steady", "mlenergy"):
            yield place
            place = "windows.W"
        elif path in ("metrics.", "distributions.", "histograms."):
            place = f"{path}KEY"
        else:
            yield place
        if isinstance(each, dict) and key not in FREE:
            yield from fields(each, f"{place}.")
