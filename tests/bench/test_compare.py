"""The command `perjoule compare`: what it says, its JSON, and its exit codes, on runs as they lie in folders."""

import json
from copy import deepcopy

import pytest

from perjoule.bench.compare import run
from perjoule.bench.measures.result import result_of
from perjoule.bench.measures.run import RESULT
from tests.bench.measures.made import made_run


@pytest.fixture(scope="module")
def result():
    return result_of(made_run())


def put(folder, result, factor=1.0, **more):
    """The result of a run whose every joule is `factor` times as much, in its folder."""
    result = deepcopy(result) | more
    result["requests"]["energy_j"] = [joules * factor for joules in result["requests"]["energy_j"]]
    for metric in result["metrics"].values():
        if metric["unit"] == "J" and metric["low"] is not None:
            metric |= {key: metric[key] * factor for key in ("value", "low", "high")}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).write_text(json.dumps(result))
    return folder


def test_the_same_run_twice_is_no_regression(tmp_path, result, capsys):
    """Exit code 0, by folder or by file."""
    a, b = put(tmp_path / "a", result), put(tmp_path / "b", result)
    assert run([str(a), str(b / RESULT)]) == 0
    out = capsys.readouterr().out
    assert "J/output token rose 0.0 % [-2.3, 2.3] → no difference" in out
    assert "Fewer than 3 repeats" in out


def test_a_regression_is_exit_code_1_and_says_how_much(tmp_path, result, capsys):
    """Five percent more; and the other way round an improvement."""
    a, b = put(tmp_path / "a", result), put(tmp_path / "b", result, 1.05)
    assert run([str(a), str(b)]) == 1
    assert "J/output token rose 5.0 % [2.6, 7.4] → regression" in capsys.readouterr().out
    assert run([str(b), str(a)]) == 0
    assert "J/output token fell: -4.8 % [-6.9, -2.5] → improvement" in capsys.readouterr().out


def test_what_may_pass_is_the_tolerance_and_the_metric(tmp_path, result):
    """Within 6 %, or of a metric that did not change, there is no regression."""
    a, b = put(tmp_path / "a", result), put(tmp_path / "b", result, 1.05)
    assert run([str(a), str(b), "--tolerance", "6%"]) == 0
    assert run([str(a), str(b), "--metric", "ttft"]) == 0
    assert run([str(a), str(b), "--metric", "ttft", "--metric", "energy_per_response"]) == 1
    assert run([str(a), str(b), "--run-to-run", "4%"]) == 0


def test_times_differ_more_from_run_to_run_than_joules(tmp_path, result, capsys):
    """So 5 % more is no news of the time to first token, and 13 % are assumed of it; what is asked for holds for all."""
    a, b = put(tmp_path / "a", result), put(tmp_path / "b", result, 1.05)
    assert run([str(a), str(b), "--json", "-"]) == 1
    said, seen = capsys.readouterr()
    assert {each["metric"]: each["run_to_run"] for each in json.loads(said)["changes"]}.items() >= {
        "energy_per_output_token": 0.01, "ttft": 0.13, "e2e": 0.03}.items()
    assert "1 to 13 % by metric" in seen
    run([str(a), str(b), "--run-to-run", "2%"])
    assert "is assumed, 2 % by metric" in capsys.readouterr().out


def test_repeats_are_paired(tmp_path, result, capsys):
    """A folder of three runs on each side; one more on one side is left out, which is said."""
    for nth in range(3):
        put(tmp_path / "a" / str(nth), result, 1 + 0.002 * nth, date=str(nth))
        put(tmp_path / "b" / str(nth), result, 1.05 + 0.001 * nth, date=str(nth))
    put(tmp_path / "b" / "3", result, date="3")
    assert run([str(tmp_path / "a"), str(tmp_path / "b"), "--json", "-"]) == 1
    said, seen = capsys.readouterr()
    found = json.loads(said)
    assert found["changes"][0] | {"low": 0, "high": 0, "a": 0, "b": 0, "change": 0} == {
        "metric": "energy_per_output_token", "a": 0, "b": 0, "change": 0, "low": 0, "high": 0, "pairs": 3, "requests": 1200,
        "run_to_run": 0.01, "formula": "paired_energy_per_output_token/1", "unit": "J", "verdict": "regression", "decides": True}
    assert found["formulas"]["paired_energy_per_output_token/1"].startswith("Σ of the records / Σ n")
    assert "1 left out" in seen
    assert "Fewer than 3" not in seen


def test_a_sweep_is_no_set_of_repeats(tmp_path, result, capsys):
    """Its runs are of different loads."""
    for nth, concurrency in enumerate((8, 16)):
        put(tmp_path / "a" / str(nth), result, load=result["load"] | {"concurrency": concurrency})
    assert run([str(tmp_path / "a"), str(tmp_path / "a")]) == 2
    assert "A holds no repeats of one thing: load.concurrency: 8 and 16" in capsys.readouterr().out


def test_what_is_not_comparable_is_exit_code_2_unless_forced_or_allowed(tmp_path, result, capsys):
    """It names what differs."""
    a, b = put(tmp_path / "a", result), put(tmp_path / "b", result, 1.05, setting=result["setting"] | {"gpu_model": "H100"})
    assert run([str(a), str(b)]) == 2
    out = capsys.readouterr().out
    assert "not comparable gpu_model: H200 and H100" in out
    assert "regression" not in out
    assert run([str(a), str(b), "--force"]) == 1
    assert run([str(a), str(b), "--allow", "gpu_model"]) == 1
    assert "differs: gpu_model: H200 and H100" in capsys.readouterr().out


def test_runs_of_different_schedules_are_compared_by_what_both_tell(tmp_path, result, capsys):
    """Nothing is paired, and times of requests are not compared."""
    a = put(tmp_path / "a", result)
    longer = [*result["requests"]["output_tokens"][:-1], 1 + result["requests"]["output_tokens"][-1]]
    b = put(tmp_path / "b", result, 1.2, setting=result["setting"] | {"schedule_sha256": "s2"},
            requests=result["requests"] | {"output_tokens": longer})
    assert run([str(a), str(b)]) == 1
    out = capsys.readouterr().out
    assert "unpaired" in out
    assert "equal lengths" not in out
    assert "ttft" not in out
    assert run([str(a), str(b), "--metric", "ttft"]) == 2
    assert "ttft: got no interval of it from 'made', and no requests of one schedule" in capsys.readouterr().err


ANOTHER_SEED = {"schedule_sha256": "s2"}


def test_requests_of_another_seed_are_paired_where_lengths_are_equal(tmp_path, result, capsys):
    """As those of one schedule: the same numbers, and a note that their contents differ; one run may have done more of them."""
    load = result["load"] | {"seed": 2}
    a, b = put(tmp_path / "a", result), put(tmp_path / "b", result, 1.05)
    assert run([str(a), str(b), "--json", "-"]) == 1
    same = json.loads(capsys.readouterr().out)
    other = put(tmp_path / "other", result, 1.05, setting=result["setting"] | ANOTHER_SEED, load=load)
    assert run([str(a), str(other), "--json", "-"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["changes"] == same["changes"]
    assert found["changes"][0]["requests"] == 400
    assert "of equal lengths and differ in content" in " ".join(err.split())
    assert not any("lengths" in note for note in same["notes"])
    fewer = {key: column[:390] for key, column in result["requests"].items()}
    shorter = put(tmp_path / "fewer", result | {"requests": fewer}, 1.05, setting=result["setting"] | ANOTHER_SEED, load=load)
    assert run([str(a), str(shorter), "--json", "-"]) == 1
    assert json.loads(capsys.readouterr().out)["changes"][0]["requests"] == 390


@pytest.mark.parametrize("more", [
    {"setting": {**ANOTHER_SEED, "workload": "other"}}, {"setting": {**ANOTHER_SEED, "workload_filters": ["--thin 0.5"]}},
    {"setting": ANOTHER_SEED, "load": {"concurrency": 16}}], ids=["workload", "filters", "load"])
def test_equal_lengths_of_other_work_are_not_paired(tmp_path, result, capsys, more):
    """Another workload, another filter, another load: forced, it is compared by what each run tells of itself."""
    a = put(tmp_path / "a", result)
    b = put(tmp_path / "b", result, **{key: result[key] | value for key, value in more.items()})
    run([str(a), str(b), "--force", "--json", "-"])
    assert [each["requests"] for each in json.loads(capsys.readouterr().out)["changes"]] == [0, 0, 0, 0]


def test_what_is_not_valid_is_compared_and_said(tmp_path, result, capsys):
    """With its reasons."""
    a = put(tmp_path / "a", result)
    b = put(tmp_path / "b", result, valid=False, reasons=[{"code": "send_lag", "text": "p99 send lag: got 9", "value": 9, "limit": 5}])
    assert run([str(a), str(b)]) == 0
    assert "note: B: not valid: p99 send lag: got 9" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "said"), [
    ("{}", "got schema version None, expected a result of version 1"), ("[]", "got schema version list"), ("nonsense", "Expecting value"),
    ('{"schema_version": 2, "metrics": {}}', "got schema version 2")])
def test_what_is_no_result_is_exit_code_2(tmp_path, result, capsys, text, said):
    """With the file, what was got and what was expected."""
    a = put(tmp_path / "a", result)
    (tmp_path / "b.json").write_text(text)
    assert run([str(a), str(tmp_path / "b.json")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("perjoule compare: ")
    assert "b.json" in err
    assert said in err


def test_wrong_words_are_exit_code_2(tmp_path, result, capsys):
    """An empty folder, an unknown metric, a tolerance that is none."""
    a = put(tmp_path / "a", result)
    (tmp_path / "empty").mkdir()
    assert run([str(a), str(tmp_path / "empty")]) == 2
    assert "got no result.json in it" in capsys.readouterr().err
    assert run([str(a), str(a), "--metric", "joy"]) == 2
    assert "metric: got 'joy', expected one of ttft" in capsys.readouterr().err
    for tolerance in ("x", "100%", "-1%"):
        with pytest.raises(SystemExit) as left:
            run([str(a), str(a), f"--tolerance={tolerance}"])
        assert left.value.code == 2
