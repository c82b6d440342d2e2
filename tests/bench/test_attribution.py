"""The bench of truth on recordings whose truth is known because the test made them."""

import gzip
import json
from itertools import product

import pytest

from perjoule.bench.attribution import run

MS = 1_000_000
IDLE_W, OWN_W = 100, {"a": 50, "b": 150}  # each running request adds its own watts: its fair share is its own energy
STEP_MS, TOKENS = 20, {"a": 1, "b": 3}  # and shows tokens in the same proportion, so token-share is exact up to window edges


def recording(folder, name, *, repeats=1, marked=True, **more):
    """All coalitions of one request of each class, two seconds each, with quiet between; `more` goes into it as it is."""
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
    whole = {"counter": counter, "requests": requests, "marks": marks if marked else []} | more
    path = folder / f"{name}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(whole).encode()))
    return path


def said(capsys, *argv):
    """What the command says with --json."""
    assert run([*map(str, argv), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["recordings"]


def refusal(capsys, *argv):
    """What the command says when it refuses."""
    with pytest.raises(SystemExit) as stopped:
        run([*map(str, argv)])
    assert stopped.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_linear_world_is_attributed_exactly(tmp_path, capsys):
    """Where tokens are in proportion to watts, token-share is the Shapley value, conservation is exact, repeats do not differ."""
    recording(tmp_path, "linear", repeats=2)
    found = said(capsys, tmp_path)["linear"]
    assert found["l1"]["token-share"] == pytest.approx(0, abs=0.01)
    assert (found["players"], found["conserved"], found["repeats"]) == ("requests", True, "own")
    assert found["noise_floor"] == pytest.approx(0, abs=0.01)


def test_rules_of_others_are_shown_beside(tmp_path, capsys):
    """By time in flight both pay the same, half of the joules: a quarter and three quarters would be fair. Tokens are exact here."""
    recording(tmp_path, "linear")
    found = said(capsys, tmp_path)["linear"]["baselines"]
    assert found["time, per window"] == pytest.approx(0.5, abs=0.02)
    assert found["output, per window"] == pytest.approx(0, abs=0.02)
    assert found["tokens, whole request"] == pytest.approx(0, abs=0.02)


def test_the_step_model_learns_from_the_traffic_of_its_machine(tmp_path, capsys):
    """What stands beside on the same board is learned from, what ran elsewhere is not."""
    recording(tmp_path, "game", board="one")
    recording(tmp_path, "traffic", marked=False, board="one")
    recording(tmp_path, "elsewhere", marked=False, board="two")
    found = said(capsys, tmp_path)
    assert "after traffic" in found["game"]["calibration"]
    assert found["game"]["step_model_held"] is not None
    assert found["traffic"]["l1"] == {}
    assert found["traffic"]["players"] is None


def test_without_traffic_it_begins_with_physics(tmp_path, capsys):
    """Nothing is held out then, and the table says prior."""
    recording(tmp_path, "game")
    found = said(capsys, tmp_path)["game"]
    assert found["calibration"] == "prior"
    assert "step_model_held" not in found
    assert found["step_model_prior"] is not None


def test_noise_is_borrowed_where_nothing_was_repeated(tmp_path, capsys):
    """The other recordings' repeats are taken, and it is said; alone, the floor is not known."""
    path = recording(tmp_path, "once")
    recording(tmp_path, "twice", repeats=2)
    assert said(capsys, tmp_path)["once"]["repeats"] == "of other recordings"
    assert said(capsys, path)["once"]["noise_floor"] is None


def test_what_a_sidecar_said_in_production_is_judged_too(tmp_path, capsys):
    """Records beside the requests: exact charges are at no distance, and the truth lies within their intervals."""
    path = recording(tmp_path, "served")
    whole = json.loads(gzip.decompress(path.read_bytes()))
    whole["records"] = {}
    for i, request in enumerate(whole["requests"]):
        request["record"] = str(i)
        whole["records"][str(i)] = {"method": "step-model", "active_uj": OWN_W[request["cls"]] * 2_000_000, "uncertainty_uj": 3_000_000}
    path.write_bytes(gzip.compress(json.dumps(whole).encode()))
    found = said(capsys, path)["served"]
    assert found["as_served"] == pytest.approx(0, abs=0.01)
    assert found["as_served_by"] == ["step-model"]
    assert found["coverage_90"]["as served"] == 1


def test_a_directory_gives_a_table(tmp_path, capsys):
    """For people: every recording, its rules and the noise floor."""
    recording(tmp_path, "one")
    recording(tmp_path, "two", repeats=2)
    assert run([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("one", "two", "token-share", "noise floor", "among requests", "exact"))


def test_recordings_of_one_name_are_told_apart_by_their_folders(tmp_path, capsys):
    """Two recorders may call theirs the same."""
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        recording(tmp_path / folder, "same")
    assert set(said(capsys, tmp_path / "x", tmp_path / "y")) == {"x/same", "y/same"}


def test_a_picture(tmp_path, capsys):
    """Both formats, and not empty."""
    pytest.importorskip("matplotlib")
    recording(tmp_path, "one", repeats=2)
    for name, begin in (("a.svg", b"<?xml"), ("a.png", b"\x89PNG")):
        said(capsys, tmp_path, "--plot", tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(begin)


def test_a_picture_of_nothing_is_refused(tmp_path, capsys):
    """Another format, or no coalitions: said, with what was expected."""
    recording(tmp_path, "plain", marked=False)
    assert "expected a file that ends in .svg or .png" in refusal(capsys, tmp_path, "--plot", tmp_path / "a.jpg")
    assert "expected a recording with coalitions" in refusal(capsys, tmp_path, "--plot", tmp_path / "a.svg")


@pytest.mark.parametrize("content", [b"", b"no gzip", *(gzip.compress(each, mtime=0) for each in (
    b"{}", b'{"counter": 1}', b"[]", b'{"counter": [], "requests": [], "marks": []}'))])
def test_what_is_no_recording_is_refused(tmp_path, capsys, content):
    """Exit code 2, the file's name and what was expected."""
    (tmp_path / "bad.json.gz").write_bytes(content)
    assert "bad.json.gz: not a recording (expected" in refusal(capsys, tmp_path)


def test_a_file_that_ends_early_is_refused(tmp_path, capsys):
    """A copy that broke off, anywhere."""
    path = recording(tmp_path, "cut")
    whole = path.read_bytes()
    for length in (len(whole) // 2, len(whole) - 4):
        path.write_bytes(whole[:length])
        assert "cut.json.gz: not a recording" in refusal(capsys, path)


@pytest.mark.parametrize(("change", "expected"), [
    (lambda w: w["marks"].pop(2) and [w["requests"].pop() for _ in range(2)], "expected one of each up to {'a': 1, 'b': 1}"),
    (lambda w: w["requests"][-1].update(error="broken"), "expected one of each up to {'a': 1, 'b': 1}"),
    (lambda w: w["requests"].pop(), "expected those of ['a', 'b']"),
    (lambda w: w["requests"][0]["n"].pop(), "expected t and n of one length"),
    (lambda w: w["requests"][0].update(end=0), "times that rise from t0 to end"),
    (lambda w: w.update(counter=w["counter"][:40]), "expected times that rise within the counter's"),
    (lambda w: w["counter"].reverse(), "in the order of time"),
    (lambda w: w["requests"][0].pop("t"), "KeyError('t')"),
])
def test_a_recording_that_lacks_something_is_refused(tmp_path, capsys, change, expected):
    """What is missing is named; a truth is never made of what was not run."""
    path = recording(tmp_path, "lacking")
    whole = json.loads(gzip.decompress(path.read_bytes()))
    change(whole)
    path.write_bytes(gzip.compress(json.dumps(whole).encode()))
    said_of_it = refusal(capsys, path)
    assert "lacking" in said_of_it
    assert expected in said_of_it


def test_an_empty_folder_is_refused(tmp_path, capsys):
    """Nothing to read is a mistake, not a result."""
    assert "got no recording" in refusal(capsys, tmp_path)
