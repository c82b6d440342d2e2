"""Sweeps: which runs there are, in which order, and what each is told."""

import argparse

import pytest

from perjoule.bench.runs.engine import EngineError
from perjoule.bench.runs.flags import read_flags
from perjoule.bench.runs.sweep import axis, flags_of, listed, points, restart

FLAGS = ["--url", "http://127.0.0.1:1", "--model", "m", "--trace", "fixed:8,8", "--out", "runs", "--concurrency", "1"]


def test_repeats_meet_every_point_in_turns():
    """What drifts over an hour then drifts for all."""
    found = points([("concurrency", ("1", "8"))], repeats=2)
    assert [point.folder for point in found] == ["concurrency=1/1", "concurrency=8/1", "concurrency=1/2", "concurrency=8/2"]


def test_a_server_is_started_once_for_all_its_points():
    """Whatever place its axis has on the command line."""
    found = points([("concurrency", ("1", "8")), ("server", ("a", "b"))], repeats=2)
    assert [point.values["server"] for point in found] == ["a"] * 4 + ["b"] * 4
    assert len({point.folder for point in found}) == 8


def test_one_run_needs_no_folder_of_its_own():
    (point,) = points([], repeats=1)
    assert (point.folder, dict(point.values)) == ("", {})


def test_a_value_cannot_leave_the_folder():
    (point,) = points([("server", ("../../etc --tp 2",))], repeats=1)
    assert point.folder == "server=.._.._etc_--tp_2"


def test_a_point_is_told_its_value_and_each_repeat_its_seed():
    """By the flag itself, so what a flag may be is said by nobody else."""
    _, second = points([("concurrency", ("16",))], repeats=2)
    args = flags_of([*FLAGS, "--seed", "5"], second, read_flags)
    assert (args.concurrency, args.seed) == (16, 6)


@pytest.mark.parametrize("text", ["concurrency", "=1", "concurrency=", "concurrency=,"])
def test_what_is_no_axis_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected NAME=VALUE,VALUE"):
        axis(text)


@pytest.mark.parametrize(("flags", "text"), [
    (["--sweep", "speed=1,2"], "got speed, expected a flag with a value"),
    (["--sweep", "server=a,b"], "go together"),
    (["--restart", "true"], "go together"),
    (["--request-rate", "2"], "expected one of them"),
    (["--repeats", "0"], "expected 1 or more"),
    (["--slo", "ttft<1"], "ttft"),
    (["--api-key-env", "PERJOULE_NO_SUCH_VARIABLE"], "which is not set"),
    (["--setting", "gpu"], "expected KEY=VALUE"),
])
def test_wrong_flags_are_refused(flags, text, capsys):
    """With exit code 2, and what was expected."""
    with pytest.raises(SystemExit) as refused:
        read_flags([*FLAGS, *flags])
    assert refused.value.code == 2
    assert text in capsys.readouterr().err


def test_settings_are_json_where_they_can_be():
    args = read_flags([*FLAGS, "--setting", "num_gpus=2", "--setting", "weight_precision=fp8"])
    assert dict(args.setting) == {"num_gpus": 2, "weight_precision": "fp8"}


async def test_a_server_that_cannot_be_started_is_said():
    with pytest.raises(EngineError, match=r"ended with 3: no such GPU"):
        await restart("echo no such GPU >&2; exit {server}", "3", "http://127.0.0.1:1", "m", {})


def test_only_runs_that_are_there_are_listed(tmp_path):
    first, _ = found = points([("concurrency", ("1", "8"))], repeats=1)
    (tmp_path / first.folder).mkdir()
    assert listed(tmp_path, found, 5)["runs"] == [{"folder": "concurrency=1", "values": {"concurrency": "1"}, "repeat": 1, "seed": 5}]


@pytest.mark.parametrize(("flags", "swept", "seeds"), [
    (["--seed", "5"], ("concurrency", ("16",)), [5, 6]), ([], ("seed", ("3", "9")), [3, 9, 4, 10])])
def test_a_folder_has_the_number_of_its_repeat_and_the_list_its_seed(tmp_path, flags, swept, seeds):
    """Whatever the seed is; and it is the seed that the run was told."""
    found = points([swept], repeats=2)
    for point in found:
        (tmp_path / point.folder).mkdir(parents=True)
    rows = listed(tmp_path, found, read_flags([*FLAGS, *flags]).seed)["runs"]
    assert [row["folder"].rpartition("/")[2] for row in rows] == [str(row["repeat"]) for row in rows]
    assert [row["seed"] for row in rows] == [flags_of([*FLAGS, *flags], point, read_flags).seed for point in found] == seeds
