"""`perjoule calibration`: every version by its id, for people and for programs."""

import json

import pytest

from perjoule.adapters.calibrations import CalibrationFolder
from perjoule.bench.calibrations import run
from tests.adapters.test_calibrations import KEY, taught


@pytest.fixture
def folder(tmp_path):
    """A folder with one fitted calibration."""
    CalibrationFolder(tmp_path).save(taught().as_json(1_800_000_000))
    return tmp_path


def test_the_list_names_all_versions_newest_first(folder, capsys):
    """As JSON, with natural units and which one is in use."""
    assert run(["--json", "--calibrations", str(folder)]) == 0
    rows = json.loads(capsys.readouterr().out)["calibrations"]
    assert [row["id"] for row in rows] == [version.id for version in reversed(taught().versions)]
    assert [row["in_use"] for row in rows] == [True] + [False] * (len(rows) - 1)
    assert (rows[0]["state"], rows[0]["unit"], rows[0]["model"], rows[0]["power_limit_w"]) == ("fitted", "joules", "m", 700)
    assert (rows[-1]["state"], rows[-1]["unit"], rows[-1]["coefficients"]["prompt_token"]) == ("prior", "prompt tokens", 1.0)
    assert 1.2 < rows[0]["coefficients"]["step"] < 2.2
    assert rows[0]["published"] == "2027-01-15T08:00:00+00:00"


@pytest.mark.parametrize("columns", ["70", "250"])
def test_the_table_fits_and_keeps_the_id(folder, capsys, monkeypatch, columns):
    """In any width, ids are whole."""
    monkeypatch.setenv("COLUMNS", columns)
    assert run(["list", "--calibrations", str(folder)]) == 0
    said = capsys.readouterr().out
    assert all(version.id in said for version in taught().versions)
    assert max(map(len, said.splitlines())) <= int(columns)


def test_one_is_shown_whole(folder, capsys):
    """By the id that records name it with."""
    wanted = taught().versions[0].id
    assert run(["show", wanted, "--calibrations", str(folder)]) == 0
    said = capsys.readouterr().out
    assert wanted in said
    assert KEY.gpu in said
    assert run(["show", wanted, "--json", "--calibrations", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == wanted


def test_an_unknown_id_is_refused(folder, capsys):
    """Exit code 2, and the ids that are there."""
    assert run(["show", "fitted-0", "--calibrations", str(folder)]) == 2
    said = capsys.readouterr()
    assert "got 'fitted-0', expected one of fitted-" in said.err
    assert said.out == ""


@pytest.mark.parametrize("argv", [["show"], ["list", "fitted-0"], ["drop"]])
def test_a_wrong_command_line_is_refused(argv, capsys):
    """Exit code 2."""
    with pytest.raises(SystemExit) as caught:
        run(argv)
    assert caught.value.code == 2


def test_nothing_learned_is_said(tmp_path, capsys):
    """An absent folder is an empty one."""
    assert run(["--calibrations", str(tmp_path / "none")]) == 0
    assert "Nothing has been learned" in capsys.readouterr().out


def test_a_bad_file_is_named_beside_the_good_ones(folder, capsys):
    """On standard error; the rest is listed."""
    (folder / "x.json").write_text("{}")
    assert run(["--json", "--calibrations", str(folder)]) == 0
    said = capsys.readouterr()
    assert "x.json is left out" in said.err
    assert json.loads(said.out)["calibrations"]
