"""The steady window by hand on a recording, and ML.ENERGY's beside the bench that knows it."""

import gzip
import json
import os
from pathlib import Path

import pytest

from perjoule.bench.load.sample import Observation
from perjoule.bench.measures import windows
from perjoule.bench.measures.counter import EnergyCounter
from perjoule.bench.measures.measured import measure
from perjoule.bench.measures.recorded import recorded
from perjoule.bench.measures.result import result_of
from perjoule.bench.measures.traffic import Traffic
from perjoule.bench.measures.windows import counted, ml_energy, slices, trend
from perjoule.bench.steady_state import Request
from perjoule.bench.steady_state import Traffic as Stream
from perjoule.bench.steady_state import ml_energy as as_their_code_does
from tests.bench.measures.made import IDLE_W, MS, S, closed_loop, made_run

PLACES = 8


def write_recording(path):
    """What `closed_loop` did, as recordings are written: the counter in whole millijoules each 100 ms."""
    samples, _, looks = closed_loop(PLACES, 10, lead_s=2.0)
    counter = EnergyCounter(looks)
    rows = [[t_ns, t_ns + MS, round(counter.at(t_ns)[0] / 1000)] for t_ns in range(0, looks[-1].t_ns, 100 * MS)]
    path.write_bytes(gzip.compress(json.dumps({
        "gpu": "H200", "model": "m", "engine": "e", "counter": rows, "marks": [], "requests": [
            {"cls": "x", "coal": None, "in": 64, "want": s.output_tokens, "t0": s.sent_ns, "t": s.chunk_ns, "n": [1] * s.output_tokens,
             "end": s.end_ns} for s in samples]}).encode()))


def by_hand(path, window):
    """Joules over tokens, from the file alone, in steady stretches that are one."""
    whole = json.loads(gzip.decompress(path.read_bytes()))
    begin = min([whole["counter"][0][0], *(request["t0"] for request in whole["requests"])])
    t0, t1 = (begin + round(window[key] * S) for key in ("t0_s", "t1_s"))
    shown = {t: mj for t, _, mj in whole["counter"]}
    tokens = sum(n for request in whole["requests"] for t, n in zip(request["t"], request["n"], strict=True) if t0 < t <= t1)
    return (shown[t1] - shown[t0]) / 1000 / tokens


def test_the_steady_joules_of_a_recording_are_its_counter_over_its_tokens(tmp_path):
    """One stretch, from a row of the counter to a row of it."""
    path = tmp_path / "made.json.gz"
    write_recording(path)
    said = result_of(recorded(path, concurrency=PLACES))
    steady = said["windows"]["steady"]
    assert steady["spans"] == 1
    assert steady["energy_error_j"] == 0
    assert steady["energy_per_output_token"] == pytest.approx(by_hand(path, steady), rel=1e-12)
    assert said["closure"]["exact"]
    assert said["closure"]["idle_j"] > IDLE_W


def test_the_steady_joules_of_sat32_are_its_counter_over_its_tokens():
    """The recorded H200, 32 in flight: 0.1222 J a token, as docs/steady-state.md has it."""
    folder = os.environ.get("PERJOULE_RECORDINGS")
    if not folder or not (path := Path(folder) / "sat32.json.gz").exists():
        pytest.skip("the recordings are not in the repository; PERJOULE_RECORDINGS names their folder")
    said = result_of(recorded(path, concurrency=32))
    steady = said["windows"]["steady"]
    assert steady["spans"] == 1
    assert steady["energy_per_output_token"] == pytest.approx(by_hand(path, steady), rel=1e-12)
    assert steady["energy_per_output_token"] == pytest.approx(0.1222, abs=5e-5)
    assert said["closure"]["exact"]


def test_ml_energys_window_is_that_of_their_code():
    """The edges and tokens of `bench/steady_state.py`, which follows theirs line by line; joules interpolated."""
    run = made_run(rounds=10)
    seen = measure(run)
    counter = [(look.t_ns, look.balance["measured_uj"]) for look in run.observations]
    stream = Stream("", counter, [Request(s.sent_ns, s.end_ns, [(t, 1) for t in s.chunk_ns]) for s in run.samples])
    for batch in (1, 3, PLACES):
        window = counted("mlenergy/1", ml_energy(seen.traffic, batch), seen.counter, seen.traffic)
        their_s, theirs = as_their_code_does(stream, batch)
        assert window["duration_s"] == pytest.approx(their_s)
        assert window["energy_per_output_token"] == pytest.approx(theirs, rel=0.06)  # theirs reads the counter half a second late


def test_a_run_shorter_than_two_batches_has_none_of_theirs():
    """It would end before it began."""
    traffic = Traffic(measure(made_run(rounds=2)).requests)
    assert ml_energy(traffic, 8) != []
    assert ml_energy(traffic, 16) == []
    assert counted("mlenergy/1", [], None, traffic) is None


def test_the_pieces_of_a_window_are_the_window():
    """Joules, tokens and seconds add up."""
    seen = measure(made_run())
    window = seen.windows["steady"]
    cut = slices(seen.steady, seen.counter, seen.traffic)
    assert sum(each.joules for each in cut) == pytest.approx(window["energy_j"])
    assert sum(each.output_tokens for each in cut) == pytest.approx(window["output_tokens"])
    assert sum(each.input_tokens for each in cut) == pytest.approx(window["input_tokens"])
    assert sum(each.seconds for each in cut) == pytest.approx(window["duration_s"])


def test_a_drain_is_not_steady():
    """The window ends about when the first place stays empty, not with the last answer."""
    seen = measure(made_run(rounds=30))
    ends = [max(s.end_ns for s in seen.run.samples if s.index % PLACES == place) for place in range(PLACES)]
    assert min(ends) - S < seen.steady[-1][1] <= min(ends) + S < max(ends)


def test_a_window_outside_of_what_the_counter_saw_has_no_joules():
    """Null, not a part of them."""
    seen = measure(made_run(rounds=4))
    late = EnergyCounter([Observation(t_ns, 0, {"measured_uj": t_ns}) for t_ns in (1_000 * S, 1_001 * S)])
    found = counted("whole/1", windows.whole(seen.traffic), late, seen.traffic)
    assert found["energy_j"] is found["energy_per_output_token"] is None
    assert found["output_tokens"] > 0


def test_a_trend_is_how_much_a_line_rises():
    """Exact on a line, nothing of what goes up and down."""
    assert trend([(0, 10.0), (5, 15.0), (10, 20.0)]) == pytest.approx(10)
    assert trend([(0, 1.0), (1, 2.0), (2, 2.0), (3, 1.0)]) == pytest.approx(0)
    assert trend([(0, 1.0)]) == 0
