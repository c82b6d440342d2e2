"""The steady part of a recording, and ML.ENERGY's definition of it beside ours."""

import gzip
import json
from random import Random

import pytest

from perjoule.bench.steady_state import Request, Traffic, activities, assess, ml_energy, paced, recorded, run
from perjoule.sidecar.metering.steady_state import Activity
from perjoule.sidecar.metering.timeline import Window
from perjoule.sidecar.units import NS_PER_S

MS = 1_000_000
STEP = 10 * MS


def full_batch(places, rounds):
    """A closed loop of so many places, a token each 10 ms, 400 W while it is full and 4 W a place less where it is not."""
    requests, ends, random = [], [], Random(1)
    for _ in range(places):
        t_ns = NS_PER_S
        for _ in range(rounds):
            begin_ns, count = t_ns, random.randrange(60, 240)
            t_ns += STEP * count
            requests.append(Request(begin_ns, t_ns, [(begin_ns + STEP * (i + 1), 1) for i in range(count)]))
        ends.append(t_ns)
    counter, uj = [], 0
    for t_ns in range(0, max(ends) + NS_PER_S, 100 * MS):
        running = sum(r.begin_ns <= t_ns < r.end_ns for r in requests)
        uj += round((100 + 300 * (running > 0) - 4 * (places - running) * (running > 0)) * 100_000)
        counter.append((t_ns + 100 * MS, uj))
    return Traffic("full", counter, requests)


def test_a_windows_activity_is_what_a_proxy_sees():
    """Time, tokens, who joined, who decodes and who waits, of a request that begins, one that runs and one that ends."""
    requests = [Request(0, 150, [(50, 1), (120, 2)]), Request(20, 400, [(130, 5), (300, 1)]), Request(180, 900, [(500, 1)])]
    assert list(activities(Traffic("", [], requests), [Window(100, 200, 1)])) == [Activity(100, 200, 50 + 100 + 20, 7, 1, 1, 1)]


def test_a_full_batch_costs_the_same_by_both_definitions():
    """Where the batch is full from the first tokens to the drain, ours and ML.ENERGY's agree within 1 %, told the limit or not."""
    traffic = full_batch(32, 20)
    for limit in (32, 0):
        said = assess(traffic, limit)
        assert abs(said["difference"]) < 0.01
        assert said["share"]["steady"] > 0.5


def test_ml_energys_window_is_from_the_first_token_of_a_batch_to_the_end_of_all_but_one_batch_and_one():
    """Six requests, a batch of two: from the second first token to the third end."""
    requests = [Request(0, 100 * i, [(50 + i, 1), (100 * i, 3)]) for i in range(1, 7)]
    counter = [(t_ns, 1000 * t_ns) for t_ns in range(0, 1000, 2)]
    their_s, per_token = ml_energy(Traffic("", counter, requests), 2)
    assert their_s == pytest.approx(248e-9)
    assert per_token == pytest.approx((300 - 52) * 1000e-6 / (4 + 9))


def test_at_a_finite_rate_ml_energys_window_is_empty_and_ours_is_not():
    """A paced stream: their client is still sending when their window should open."""
    traffic = paced(20, 64)
    said = assess(traffic, 0)
    assert said["ml_energy_joules_per_output_token"] is None
    assert said["difference"] is None
    assert said["share"]["steady"] > 0.6
    spent, at_rate = said["steady_joules_per_output_token"], 20 * 256
    assert spent == pytest.approx((traffic.counter[150][1] - traffic.counter[100][1]) / 1e6 / 5 / at_rate, rel=0.02)


def test_a_recording_becomes_a_table_or_json(tmp_path, capsys):
    """Both name the recording; JSON is all there is on standard output."""
    path = tmp_path / "few.json.gz"
    rows = {"requests": [{"cls": "a", "in": 9, "t0": 0, "t": [10, 20], "n": [1, 2], "end": 20}], "marks": [],
            "counter": [[i * 100 * MS, i * 100 * MS + 1, 10_000 * i] for i in range(20)]}
    path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    assert recorded(path).in_flight == 1
    assert run([str(path)]) == 0
    assert "few" in capsys.readouterr().out
    assert run([str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["recordings"]["few"]
    assert said["steady_joules_per_output_token"] is None
    assert sum(said["share"].values()) == pytest.approx(1)


@pytest.mark.parametrize("argv", [[], ["--paced", "0"], ["missing.json.gz"], ["--paced", "20", "--max-num-seqs", "-1"],
                                  ["--paced", "20", "--plot", "x.gif"]])
def test_what_cannot_be_read_or_drawn_is_said(argv, capsys):
    """Two, and what was got and expected."""
    with pytest.raises(SystemExit) as stop:
        run(argv)
    assert stop.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_a_plot_is_drawn_where_matplotlib_is(tmp_path):
    """A picture with something in it."""
    pytest.importorskip("matplotlib")
    assert run(["--paced", "40", "--json", "--plot", str(tmp_path / "p.svg")]) == 0
    assert (tmp_path / "p.svg").stat().st_size > 10_000
