"""The comparison with recordings tells what was measured from what was estimated, and refuses what is none."""

import gzip
import json
from random import Random

import pytest

from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.validation import asked_of, main
from perjoule.bench.recording import Recording
from perjoule.sidecar.metering.terms import Terms
from tests.bench.estimates.made import IDLE_W, TRUTH

MS, S = 1_000_000, 1_000_000_000
STEP_S, PROMPT_S = 0.005, 3e-5


def served(path, seed, seconds=60.0):
    """Traffic of 3 requests a second on an engine whose every step takes and draws what it must, its counter read every 100 ms."""
    random, t_s, joules, looked_s = Random(seed), 0.0, 0.0, 0.0
    arrivals, t = [], 2.0  # before which the meter sees what is drawn idle
    while (t := t + random.expovariate(3.0)) < seconds:
        arrivals.append((t, random.choice((50, 300, 1000, 6000)), random.randrange(20, 400)))
    requests, running, counter = [], [], []
    while arrivals or running:
        while looked_s <= t_s:
            counter.append([round(looked_s * S), round(looked_s * S) + 1, round(joules * 1000)])
            looked_s += 0.1
        begun = arrivals.pop(0) if arrivals and arrivals[0][0] <= t_s else None
        if not begun and not running:
            joules, t_s = joules + IDLE_W * (looked_s - t_s), looked_s
            continue
        amounts = Terms(begun[1] if begun else 0, bool(running), len(running) + bool(begun), sum(r["in"] + len(r["t"]) for r in running))
        took_s = amounts.prefill * PROMPT_S + amounts.steps * STEP_S + amounts.decode * 3e-5
        joules, t_s = joules + TRUTH.dot(amounts) + IDLE_W * took_s, t_s + took_s
        if begun:
            running.append({"cls": "a", "in": begun[1], "t0": round(begun[0] * S), "t": [], "n": [], "want": begun[2]})
            requests.append(running[-1])
        for request in running:
            request["t"].append(round(t_s * S))
            request["n"].append(1)
            request["end"] = request["t"][-1] + 1
        running = [request for request in running if len(request["t"]) < request["want"]]
    counter.append([round((t_s + 1) * S), round((t_s + 1) * S) + 1, round((joules + IDLE_W) * 1000)])
    with gzip.open(path, "wt") as file:
        json.dump({"gpu": "NVIDIA H200", "model": "m", "engine": "vllm", "counter": counter, "requests": requests, "marks": []}, file)
    return path


@pytest.fixture
def recording(tmp_path):
    """Two requests, 400 W throughout, looked at every 20 ms for three seconds."""
    counter = [[i * 20 * MS, i * 20 * MS + 1, 8000 * i] for i in range(150)]
    requests = [{"cls": "a", "in": 100, "t0": 1000 * MS, "t": [1020 * MS, 1030 * MS], "n": [1, 9], "end": 1040 * MS},
                {"cls": "b", "in": 50, "t0": 500 * MS, "t": [510 * MS], "n": [4], "end": 520 * MS}]
    path = tmp_path / "made.json.gz"
    with gzip.open(path, "wt") as file:
        json.dump({"gpu": "NVIDIA H200", "model": "m", "engine": "vllm", "counter": counter, "requests": requests, "marks": []}, file)
    return path


def test_lengths_and_times_are_told_joules_are_kept_apart(recording):
    """In the order of sending; what the counter advanced from the first send to the last end."""
    asked, joules, duration_s = asked_of(Recording(recording))
    assert asked == [Asked(50, 4, 0.0), Asked(100, 10, 0.5)]
    assert duration_s == pytest.approx(0.54)
    assert joules == pytest.approx(0.54 * 400, rel=0.01)


def test_the_table_and_its_json(recording, capsys):
    """One that no other recording calibrates is told by physics alone."""
    assert main([str(recording), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["recording"], row["way"], row["taught"], row["requests"]) == ("made", "physics", "", 2)
    assert row["error"] == pytest.approx(row["estimated_j"] / row["measured_j"] - 1)
    assert row["tdp_time"] == pytest.approx(700 / 400, rel=0.01)
    assert main([str(recording)]) == 0
    assert f"physics: root mean square of 1 errors {abs(row['error']):.1%}" in capsys.readouterr().out


def test_what_is_no_recording_is_exit_code_2(tmp_path, capsys):
    """With its name."""
    (tmp_path / "x.json.gz").write_bytes(b"no")
    assert main([str(tmp_path / "x.json.gz")]) == 2
    assert "not a recording" in capsys.readouterr().err


def test_each_is_told_by_a_calibration_that_the_others_taught(tmp_path, capsys):
    """Two minutes of one engine: either tells the other within a twelfth, nearer than physics says that it is itself."""
    paths = [str(served(tmp_path / f"{name}.json.gz", seed)) for seed, name in enumerate(("one", "other"))]
    assert main([*paths, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["recording"], row["way"], row["taught"]) for row in rows] == [
        ("one", "calibration", "other"), ("one", "physics", ""), ("other", "calibration", "one"), ("other", "physics", "")]
    for taught, physics in (rows[:2], rows[2:]):
        assert abs(taught["error"]) < 1 / 12
        assert taught["inside"]
        assert physics["high_j"] / physics["low_j"] > taught["high_j"] / taught["low_j"]
        assert taught["estimated_s"] == pytest.approx(taught["measured_s"], rel=0.1)
