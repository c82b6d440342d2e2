"""`perjoule leaderboard`: what it writes where, and its exit codes."""

import json
import webbrowser

import pytest

from perjoule.bench.leaderboard import run
from tests.bench.board.made import MODELS, invalid, result


@pytest.fixture
def runs(tmp_path):
    """A folder with two results, one of them not valid."""
    for name, one in (("good", result()), ("bad", invalid(result(MODELS[7])))):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "result.json").write_text(json.dumps(one))
    return tmp_path / "runs"


def test_a_table_by_energy_with_what_is_not_valid_last(runs, capsys):
    """Without any file to write, people read it in the terminal."""
    assert run([str(runs)]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["Model", "Precision", "GPU", "Load"]
    assert first.startswith("Llama-3.1-8B-Instruct")
    assert "64 at once" in first
    assert second.startswith("Llama-3.1-70B-Instruct")
    assert "4 × H100" in second
    assert "not valid: send_lag" in second


def test_a_page_with_references(runs, tmp_path, capsys):
    """One file, into a folder that need not be there; the references are in it."""
    (tmp_path / "references.json").write_text('{"source": "Somebody", "rows": [{"model_id": "m", "energy_per_token_joules": 1}]}')
    out = tmp_path / "new" / "page.html"
    assert run([str(runs), "--out", str(out), "--references", str(tmp_path / "references.json")]) == 0
    assert '"source":"Somebody"' in out.read_text()
    assert f"2 results in {out}" in capsys.readouterr().err


def test_the_page_can_be_shown(runs, tmp_path, monkeypatch):
    """By the browser that the system knows, at the file."""
    shown = []
    monkeypatch.setattr(webbrowser, "open", shown.append)
    assert run([str(runs), "--out", str(tmp_path / "page.html"), "--open"]) == 0
    assert shown == [(tmp_path / "page.html").resolve().as_uri()]


def test_rows_as_json(runs, tmp_path, capsys):
    """To standard output, where nothing else goes, or into a file."""
    assert run([str(runs), "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["model_id"], row["valid"]) for row in rows] == [(MODELS[7].model_id, False), (MODELS[0].model_id, True)]
    assert run([str(runs), "--json", str(tmp_path / "rows.json")]) == 0
    assert json.loads((tmp_path / "rows.json").read_text()) == rows


def test_files_that_are_no_results_are_named_and_the_exit_code_is_1(runs, capsys):
    """The others are shown all the same."""
    (runs / "good" / "more").mkdir()
    (runs / "good" / "more" / "result.json").write_text("{}")
    assert run([str(runs)]) == 1
    said = capsys.readouterr()
    assert f"{runs / 'good' / 'more' / 'result.json'}: got schema_version null, expected 1" in said.err
    assert len(said.out.splitlines()) == 3


def test_what_mlenergys_folders_have_no_place_for_is_named_and_the_exit_code_is_1(runs, tmp_path, capsys):
    """One is not valid, the other has no samples beside it."""
    assert run([str(runs), "--mlenergy", str(tmp_path / "theirs")]) == 1
    said = capsys.readouterr().err
    assert "not valid: send_lag" in said
    assert "expected samples.jsonl beside the result" in said
    assert f"0 results in {tmp_path / 'theirs'}" in said


def test_model_sizes_may_be_told(runs, tmp_path, capsys):
    """And a file of them that is none is refused."""
    (tmp_path / "models.json").write_text("[]")
    assert run([str(runs), "--mlenergy", str(tmp_path / "theirs"), "--model-info", str(tmp_path / "models.json")]) == 2
    assert "expected an object of objects" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["DIR", "--open"], ["DIR", "--references", "x"], ["DIR", "--model-info", "x"], ["DIR", "--nothing"]])
def test_flags_that_cannot_be_are_refused_with_2(argv):
    """Before anything is read."""
    with pytest.raises(SystemExit) as raised:
        run(argv)
    assert raised.value.code == 2


def test_nothing_to_show_is_2(tmp_path, capsys):
    """A place that is not there, and a folder without results."""
    assert run([str(tmp_path / "nowhere")]) == 2
    assert run([str(tmp_path)]) == 2
    assert "got no result in" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_2(runs, tmp_path, capsys):
    """With the reason, not a traceback."""
    (tmp_path / "file").write_text("")
    assert run([str(runs), "--out", str(tmp_path / "file" / "page.html")]) == 2
    assert "perjoule leaderboard:" in capsys.readouterr().err
