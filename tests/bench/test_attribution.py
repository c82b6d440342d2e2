"""The bench of truth on recordings whose truth is known because the test made them."""

import gzip
import json
from itertools import product

import pytest

from perjoule.bench.attribution import run

MS = 1_000_000
IDLE_W, OWN_W = 100, {"a": 50, "b": 150}  # each running request adds its own watts: its fair share is its own energy
STEP_MS, TOKENS = 20, {"a": 1, "b": 3}  # and shows tokens in the same proportion, so token-share is exact up to window edges


def recording(folder, name, repeats=1):
    """All coalitions of one request of each class, two seconds each, with quiet between."""
    t_ns, energy_mj, counter, requests, marks = 10**12, 0, [], [], []
    load = []
    for classes in [c for c in product((0, 1), repeat=2) if any(c)] * repeats:
        t_ns += 500 * MS
        names = [n for n, there in zip("ab", classes, strict=True) if there]
        end_ns = t_ns + 2000 * MS
        load.append((t_ns, end_ns, sum(OWN_W[n] for n in names)))
        for n in names:
            ticks = list(range(t_ns + STEP_MS * MS, end_ns + 1, STEP_MS * MS))
            requests.append({"cls": n, "in": 0, "t0": t_ns, "t": ticks, "n": [TOKENS[n]] * len(ticks), "end": end_ns, "coal": len(marks)})
        marks.append((names, t_ns, end_ns, end_ns + 400 * MS))
        t_ns = end_ns + 400 * MS
    for tick in range(10**12 - 1000 * MS, t_ns + 1000 * MS, 100 * MS):
        counter.append((tick, tick, energy_mj))
        middle = tick + 50 * MS
        energy_mj += (IDLE_W + sum(w for a, b, w in load if a <= middle < b)) * 100
    path = folder / f"{name}.json.gz"
    with gzip.open(path, "wt") as file:
        json.dump({"counter": counter, "requests": requests, "marks": marks}, file)
    return path


def test_a_linear_world_is_attributed_exactly(tmp_path, capsys):
    """Where tokens are in proportion to watts, token-share is the Shapley value, conservation is exact, repeats do not differ."""
    recording(tmp_path, "linear", repeats=2)
    assert run([str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["recordings"]["linear"]
    assert said["l1"]["token-share"] == pytest.approx(0, abs=0.01)
    assert (said["players"], said["conserved"]) == ("requests", True)
    assert said["noise_floor"] == pytest.approx(0, abs=0.01)


def test_a_directory_gives_a_table(tmp_path, capsys):
    """For people: one row for each recording."""
    recording(tmp_path, "one")
    recording(tmp_path, "two")
    assert run([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "one" in out
    assert "two" in out


@pytest.mark.parametrize("content", [b"", b"no gzip", gzip.compress(b"{}"), gzip.compress(b'{"counter": 1}')])
def test_what_is_no_recording_is_refused(tmp_path, capsys, content):
    """Exit code 2, the file's name and what was expected."""
    (tmp_path / "bad.json.gz").write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        run([str(tmp_path)])
    assert stopped.value.code == 2
    assert "bad.json.gz: not a recording (expected" in capsys.readouterr().err


def test_an_empty_folder_is_refused(tmp_path, capsys):
    """Nothing to read is a mistake, not a result."""
    with pytest.raises(SystemExit) as stopped:
        run([str(tmp_path)])
    assert stopped.value.code == 2
    assert "got no recording" in capsys.readouterr().err
