"""Published rows beside estimates: each is told, and so is what the rows say of each way to tell them."""

import json

import pytest

from perjoule.bench.estimates.published import ROWS, compared, main


def test_the_rows_that_are_kept_are_told(capsys):
    """Every model and GPU in them is known; physics is within a factor of two of each, and so of little use for a few per cent."""
    _, rows = compared(ROWS, 250)
    assert len(rows) == len(json.loads(ROWS.read_text())["rows"])
    assert max(abs(row.physics - row.energy) for row in rows) < 0.7
    assert main([]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in out[-3:]] == ["physics", "regression", "regression beside physics"]


def test_a_file_of_ones_own(tmp_path, capsys):
    """One model alone has no regression; the prompt's length is assumed, and counts."""
    row = {"model_id": "org/Model-8B", "gpu_model": "H100", "num_gpus": 1, "max_num_seqs": 8, "energy_per_token_joules": 0.5,
           "energy_per_request_joules": 100.0}
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"source": "me", "rows": [row]}))
    assert main([str(file)]) == 0
    assert "regression" not in capsys.readouterr().out
    short, long = (compared(file, tokens)[1][0] for tokens in (10, 4000))
    assert long.physics > short.physics
    assert long.energy == short.energy


@pytest.mark.parametrize("text", ["no", json.dumps({"source": "me", "rows": [{"model_id": "x", "energy_per_token_joules": 1.0}]})])
def test_what_cannot_be_read_is_exit_code_2(tmp_path, capsys, text):
    """With a reason."""
    (tmp_path / "x.json").write_text(text)
    assert main([str(tmp_path / "x.json")]) == 2
    assert "expected" in capsys.readouterr().err
