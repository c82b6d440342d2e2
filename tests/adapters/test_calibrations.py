"""Calibrations on disk: whole files, bad ones named and skipped, versions of two writers kept."""

import json
import logging
from random import Random

import pytest

from perjoule.adapters.calibrations import CalibrationFolder
from perjoule.sidecar.metering.calibration import Calibration, Key
from tests.fakes.traffic import SPAN_NS, drawn, poisson

KEY = Key(gpu="NVIDIA H200", model="m", engine="vllm", engine_version="0.25.1", power_limit_w=700)


def taught(key=KEY, seed=0, windows=400):
    """A fitted calibration."""
    random, found = Random(seed), Calibration(key)
    for amounts, t_ns in poisson(random, windows):
        found.learn(amounts, drawn(random, amounts), t_ns, SPAN_NS)
    return found


def test_what_was_saved_is_loaded(tmp_path):
    """By its key only; another key knows nothing of it."""
    folder, one = CalibrationFolder(tmp_path), taught()
    folder.save(one.as_json(1_800_000_000))
    again = folder.load(KEY)
    assert again is not None
    assert again.as_json(0) == one.as_json(0)
    assert again.state == "fitted"
    assert folder.load(Key(gpu="NVIDIA H200", model="other")) is None
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_two_writers_keep_each_others_versions(tmp_path):
    """The one that wrote last is gone on from, and nobody's published version is lost."""
    folder, one, two = CalibrationFolder(tmp_path), taught(seed=1), taught(seed=2)
    folder.save(one.as_json(1))
    folder.save(two.as_json(2))
    found = folder.load(KEY)
    assert found.id == two.id
    assert {v.id for v in found.versions} == {v.id for v in one.versions} | {v.id for v in two.versions}
    folder.save(two.as_json(3))
    assert folder.load(KEY).versions == found.versions


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"key":{}}', b"null"])
def test_a_bad_file_is_named_and_learning_begins_anew(content, tmp_path, caplog):
    """It is not an error for anybody, and the next save replaces it."""
    folder, one = CalibrationFolder(tmp_path), taught()
    folder.save(one.as_json(1))
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert folder.load(KEY) is None
    assert str(path) in caplog.text
    ((named, reason),) = folder.kept()
    assert named == path
    assert isinstance(reason, str)
    folder.save(one.as_json(1))
    assert folder.load(KEY).id == one.id


def test_a_file_under_the_name_of_another_key_is_not_used(tmp_path, caplog):
    """Somebody has copied it there."""
    folder, other = CalibrationFolder(tmp_path), Key(gpu="NVIDIA L4", model="m")
    folder.save(taught().as_json(1))
    (path,) = tmp_path.iterdir()
    folder.save(Calibration(other).as_json(1))
    (there,) = set(tmp_path.iterdir()) - {path}
    there.write_bytes(path.read_bytes())
    assert folder.load(other) is None
    assert "NVIDIA L4" in caplog.text


def test_a_save_that_fails_leaves_what_was_there(tmp_path):
    """And no half-written file beside it."""
    folder, one = CalibrationFolder(tmp_path), taught()
    folder.save(one.as_json(1))
    (path,) = tmp_path.iterdir()
    before = path.read_bytes()
    with pytest.raises(TypeError):
        folder.save(one.as_json(1) | {"fit": object()})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="nowhere"):
        CalibrationFolder(tmp_path / "nowhere").save(one.as_json(1))


def test_the_file_is_for_people_too(tmp_path):
    """Indented JSON, with the key in words."""
    CalibrationFolder(tmp_path).save(taught().as_json(1))
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text())["key"]["power_limit_w"] == 700
    assert path.read_text().count("\n") > 20
