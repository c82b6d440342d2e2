"""The command `perjoule estimate`: each of its ways, what it prints, and what it refuses."""

import json

import pytest

from perjoule.bench.estimate import run
from tests.bench.estimates.made import calibration, result

PHYSICS = ("--model-shape", "llama-3.1-8b", "--gpu", "h200")
CLOSED = ("fixed:500,200,100", "--concurrency", "16")


def told(capsys, *argv):
    """The JSON of a run that must succeed."""
    assert run([*argv, "--json", "-"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *argv):
    """What is said on standard error, with exit code 2, whoever noticed."""
    try:
        code = run(argv)
    except SystemExit as error:
        code = error.code
    assert code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture
def taught(tmp_path):
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(calibration().as_json(1_800_000_000)))
    return str(file)


@pytest.fixture
def results(tmp_path):
    """A sweep over concurrencies of three models."""
    for name in ("org/Model-3B", "org/Model-8B", "org/Model-30B"):
        for concurrency in (1, 8, 32):
            folder = tmp_path / "sweep" / name / str(concurrency)
            folder.mkdir(parents=True)
            (folder / "result.json").write_text(json.dumps(result(concurrency, model=name)))
    return str(tmp_path / "sweep")


def test_physics_alone(capsys):
    """From datasheets: between the bounds, its parts and bins adding up, and said to be an estimate."""
    found = told(capsys, *CLOSED, *PHYSICS)
    assert (found["kind"], found["status"], found["method"], found["requests"]) == ("estimate", "estimated", "physics", 100)
    assert found["idealized_j"] < found["energy_j"]["low"] < found["energy_j"]["value"] < found["energy_j"]["high"]
    assert found["energy_j"]["value"] < found["tdp_time_j"]
    assert sum(found["parts"].values()) == pytest.approx(found["energy_j"]["value"])
    assert sum(row["energy_j"] for row in found["bins"]) == pytest.approx(found["energy_j"]["value"])
    assert found["energy_kwh"] == pytest.approx(found["energy_j"]["value"] / 3.6e6)
    assert found["avg_power_w"] * found["duration_s"] == pytest.approx(found["energy_j"]["value"])
    assert found["basis"]["gpu"]["source"].startswith("NVIDIA H200")
    assert found["workload"]["source"] == "fixed:500,200,100"


def test_each_request(capsys):
    """Its own joules, in the workload's order; the longer answer's are more."""
    found = told(capsys, "pareto:300,2.5,100,40", "--concurrency", "4", *PHYSICS, "--each")
    assert sum(found["each"]["energy_j"]) == pytest.approx(found["energy_j"]["value"])
    lengths = found["each"]["output_tokens"]
    longest, shortest = lengths.index(max(lengths)), lengths.index(min(lengths))
    assert found["each"]["energy_j"][longest] > found["each"]["energy_j"][shortest]


def test_the_tables_are_for_people(capsys):
    """The whole, its parts, the error and the bins; every note below."""
    assert run([*CLOSED, *PHYSICS]) == 0
    out = capsys.readouterr().out
    for text in ("estimated, physics", "kWh", "idealized", "TDP × time", "reading all weights", "together", "By length", "J a request"):
        assert text in out


def test_a_calibration(capsys, taught):
    """Its joules, the boards and the model of its key, and less error than physics."""
    found = told(capsys, *CLOSED, "--calibration", taught)
    assert (found["method"], found["basis"]["gpu"]["name"], found["basis"]["model"]["name"]) == ("calibration", "H200", "llama-3.1-8b")
    assert found["basis"]["calibration_id"].startswith("fitted-")
    assert found["relative_sd"] < told(capsys, *CLOSED, *PHYSICS)["relative_sd"]
    assert [doubt["source"] for doubt in found["errors"]] == ["coefficients", "gain", "model", "durations"]


def test_a_calibration_holds_for_its_own_boards(capsys, tmp_path, taught):
    """Another GPU, or another number of them, is refused; its name in other words is not."""
    assert "got b200, expected NVIDIA H200" in refused(capsys, *CLOSED, "--calibration", taught, "--gpu", "b200")
    assert told(capsys, *CLOSED, "--calibration", taught, "--gpu", "h200")["method"] == "calibration"
    file = tmp_path / "two.json"
    file.write_text(json.dumps(calibration(group=("GPU-1", "GPU-2")).as_json(1_800_000_000)))
    assert told(capsys, *CLOSED, "--calibration", str(file))["basis"]["gpu"]["count"] == 2
    assert "got 4, expected 2" in refused(capsys, *CLOSED, "--calibration", str(file), "--gpus", "4")


def test_a_calibration_of_a_model_that_nobody_knows(capsys, tmp_path):
    """Durations follow from the joules, and there is no idealized bound."""
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(calibration(model="mystery").as_json(1_800_000_000)))
    found = told(capsys, *CLOSED, "--calibration", str(file))
    assert found["idealized_j"] is None
    assert any("the shape of mystery is not known" in text for text in found["warnings"])
    assert told(capsys, *CLOSED, "--calibration", str(file), "--model-shape", "llama-3.1-8b")["idealized_j"] > 0


def test_results(capsys, results):
    """One model's curve; all of the joules are the prompts' and the outputs'."""
    found = told(capsys, *CLOSED, "--results", results, "--model", "Model-8B")
    assert (found["method"], len(found["basis"]["points"]), found["requests"]) == ("results", 3, 100)
    assert found["idealized_j"] < found["energy_j"]["value"] < found["tdp_time_j"]
    assert "expected one (--model, --gpu)" in refused(capsys, *CLOSED, "--results", results)


def test_a_regression_over_results(capsys, results):
    """Of another model; what it is worth is in the basis, and what physics says beside it."""
    found = told(capsys, *CLOSED, "--results", results, "--regression", "--model-shape", "qwen3-14b", "--gpu", "h200")
    assert (found["method"], found["basis"]["models"]) == ("regression", ["org/Model-30B", "org/Model-3B", "org/Model-8B"])
    assert found["basis"]["left_one_model_out_median_error"] >= 0
    assert found["basis"]["physics_j"] > 0
    assert "left out, and told from the others" in found["errors"][0]["text"]


def test_loads(capsys, tmp_path):
    """A rate is Poisson; without a flag a trace has its own times."""
    assert told(capsys, "fixed:500,200,50", "--rate", "2", *PHYSICS)["duration_s"] == pytest.approx(25, rel=0.5)
    trace = tmp_path / "t.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.0000000,100,10\n2023-11-16 18:16:46.0000000,100,10\n")
    found = told(capsys, f"azure2023:{trace}", *PHYSICS)
    assert (found["load"]["mode"], found["duration_s"]) == ("trace", pytest.approx(60, abs=1))
    assert found["parts"]["idle_j"] == pytest.approx(60 * 126, rel=0.01)
    assert told(capsys, f"azure2023:{trace}", *PHYSICS, "--time-scale", "0.5")["duration_s"] == pytest.approx(30, abs=1)


def test_files(tmp_path, capsys):
    """JSON and a picture."""
    pytest.importorskip("matplotlib")
    assert run([*CLOSED, *PHYSICS, "--json", str(tmp_path / "x.json"), "--plot", str(tmp_path / "x.svg")]) == 0
    assert json.loads((tmp_path / "x.json").read_text())["kind"] == "estimate"
    assert "TDP" in (tmp_path / "x.svg").read_text()[:100_000] or (tmp_path / "x.svg").stat().st_size > 10_000


@pytest.mark.parametrize(("argv", "text"), [
    (("fixed:5,5", *PHYSICS), "fixed:5,5 has no times, expected --concurrency N or --rate R"),
    (CLOSED, "got nothing to estimate from, expected --calibration FILE|ID, --results DIR…, or --model-shape NAME"),
    ((*CLOSED, "--model-shape", "llama-3.1-8b"), "and --gpu NAME"),
    ((*CLOSED, "--model-shape", "mystery", "--gpu", "h200"), "got the model 'mystery', expected one of"),
    ((*CLOSED, "--model-shape", "8B", "--gpu", "potato"), "got 'potato', expected one of"),
    ((*CLOSED, "--model-shape", "llama-3.1-70b", "--gpu", "h100"), "got 141 GB of weights"),
    ((*CLOSED, *PHYSICS, "--rate", "3"), "got --concurrency and --rate, expected one of them"),
    (("nonsense", *PHYSICS), "got 'nonsense', expected one of azure2023:PATH"),
    (("diffusion:20,512x512", "--concurrency", "1", *PHYSICS), "expected text: diffusion has no model here"),
    ((*CLOSED, "--calibration", "/nowhere", "--calibrations", "/nowhere"), "no file and no id, expected one of none"),
    ((*CLOSED, "--results", "/nowhere"), "got /nowhere, expected a folder of results"),
    ((*CLOSED, *PHYSICS, "--regression"), "--regression: got no --results"),
    ((*CLOSED, *PHYSICS, "--plot", "x.pdf"), "expected a file that ends in .png or .svg"),
    ((*CLOSED, *PHYSICS, "--gpus", "1.5"), "got '1.5', expected a whole number"),
])
def test_what_is_missing_is_said(capsys, argv, text):
    """Exit code 2, what was got, and what was expected."""
    assert text in refused(capsys, *argv)


def test_a_regression_needs_three_models(capsys, tmp_path):
    """And says how many there are."""
    (tmp_path / "result.json").write_text(json.dumps(result(4)))
    argv = (*CLOSED, "--results", str(tmp_path), "--regression", "--model-shape", "8B", "--gpu", "h200")
    assert "got valid results of 1 models (org/Model-8B), expected at least 3" in refused(capsys, *argv)
