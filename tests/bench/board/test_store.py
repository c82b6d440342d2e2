"""What the store reads, what it refuses and how it says so, and which of several files of one run counts."""

import json

import pytest

from perjoule.bench.board.store import UnreadableError, read, read_result
from tests.bench.board.made import GPUS, MODELS, result


def put(folder, found):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(found if isinstance(found, str) else json.dumps(found))
    return folder / "result.json"


def test_results_are_found_at_any_depth_and_come_by_model_and_gpu(tmp_path):
    """A sweep's folders and a single file are read alike, in an order that does not depend on the folders' names."""
    second = put(tmp_path / "a", result(MODELS[1]))
    put(tmp_path / "b" / "c" / "d", result(MODELS[0], GPUS[1]))
    put(tmp_path / "z", result(MODELS[0], GPUS[0]))
    (tmp_path / "z" / "other.json").write_text("not a result, and not looked at")
    store = read([tmp_path, second])
    assert [(one["model_id"], one["gpu_model"]) for one in store.results] == [
        (MODELS[1].model_id, GPUS[0].name), (MODELS[0].model_id, GPUS[0].name), (MODELS[0].model_id, GPUS[1].name)]
    assert (store.problems, store.repeated) == ((), 0)


@pytest.mark.parametrize(("found", "said"), [
    ("{", "expected a result of perjoule replay"),
    ("\xff", "expected a result of perjoule replay"),
    ([1], "got list, expected an object"),
    ({"schema_version": 2}, "got schema_version 2, expected 1"),
    ({}, "got schema_version null, expected 1"),
    ({"schema_version": 1, "run_id": ""}, 'got run_id "", expected a text'),
    ({"schema_version": 1, "run_id": 7}, "got run_id 7, expected a text"),
    ({"schema_version": 1, "run_id": "a", "valid": "yes"}, 'got valid "yes", expected true or false'),
    ({"schema_version": 1, "run_id": "a", "valid": True, "setting": {}, "load": {}, "metrics": []}, "got metrics [], expected an object"),
])
def test_a_file_that_is_no_result_is_named_with_the_reason_and_the_others_are_read(tmp_path, found, said):
    """One bad file hides no good one."""
    bad = put(tmp_path / "bad", found)
    put(tmp_path / "good", result())
    with pytest.raises(UnreadableError) as raised:
        read_result(bad)
    assert str(raised.value).startswith(f"{bad}: ")
    assert said in str(raised.value)
    store = read([tmp_path])
    assert [str(problem) for problem in store.problems] == [str(raised.value)]
    assert len(store.stored) == 1


def test_of_one_run_the_whole_result_counts_then_the_latest(tmp_path):
    """A run that was resumed has left a broken-off result behind: that one gives way, whatever the folders are called."""
    whole = result(run_id="one", date="2026-11-20T00:00:00+00:00")
    put(tmp_path / "a", {**whole, "partial": True, "date": "2026-11-21T00:00:00+00:00"})
    put(tmp_path / "b", whole)
    put(tmp_path / "c", {**whole, "date": "2026-11-19T00:00:00+00:00"})
    put(tmp_path / "d", result(run_id="two"))
    store = read([tmp_path])
    assert {one["run_id"]: one["date"] for one in store.results}["one"] == whole["date"]
    assert (len(store.stored), store.repeated) == (2, 2)


def test_the_same_file_given_twice_is_one(tmp_path):
    """A folder and the file in it are no repetition."""
    path = put(tmp_path / "a", result())
    assert read([tmp_path, path, tmp_path / "a"]).repeated == 0


def test_links_are_followed_and_lead_round_in_no_circle(tmp_path):
    """A store may be made of links to folders of runs, and one of them may lead back to the store: each file is read once."""
    put(tmp_path / "elsewhere" / "sweep" / "1", result(run_id="linked"))
    put(tmp_path / "store" / "own", result(run_id="own"))
    (tmp_path / "store" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "store" / "again").symlink_to(tmp_path / "elsewhere" / "sweep", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "store", target_is_directory=True)
    (tmp_path / "store" / "nowhere").symlink_to(tmp_path / "gone", target_is_directory=True)
    store = read([tmp_path / "store"])
    assert ({one["run_id"] for one in store.results}, store.repeated, store.problems) == ({"linked", "own"}, 0, ())


def test_a_place_that_is_not_there_is_an_error(tmp_path):
    """Nothing to read is not the same as nowhere to read."""
    assert read([tmp_path]).stored == ()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read([tmp_path / "nowhere"])
