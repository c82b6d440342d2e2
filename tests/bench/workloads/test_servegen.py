"""ServeGen's clients, sampled: at their rate, as irregularly as they are, with their lengths, the same for a seed."""

from itertools import pairwise
from pathlib import Path
from random import Random
from shutil import copytree
from statistics import fmean, stdev

import pytest

from perjoule.bench.workloads.open import workload_of
from perjoule.bench.workloads.servegen import Spell
from perjoule.bench.workloads.workload import WorkloadError

FOLDER = Path(__file__).parent / "files" / "servegen"


def test_clients_are_sampled_in_their_windows() -> None:
    """Nothing in a window without traffic; lengths are those of the window, an output of 0 tokens at least 1; a client without lengths
    is left out, and said."""
    workload = workload_of(f"servegen:{FOLDER}", seed=1)
    assert workload == workload_of(f"servegen:{FOLDER}", seed=1)
    assert workload.turns != workload_of(f"servegen:{FOLDER}", seed=2).turns
    times = [turn.at_s or 0.0 for turn in workload.turns]
    assert times == sorted(times)
    early, late = ([turn for turn in workload.turns if turn.at_s is not None and begin <= turn.at_s < begin + 600] for begin in (0, 1200))
    assert len(early) + len(late) == workload.read
    assert {turn.input_tokens for turn in early} == {10, 20}
    assert {turn.output_tokens for turn in early} == {1}
    assert {(turn.input_tokens, turn.output_tokens) for turn in late} == {(300, 7), (300, 9)}
    assert workload.notes[1] == "1 clients have no lengths in their files and are left out."
    assert "a workload like theirs, not theirs" in workload.notes[0]


def test_a_window_is_all_that_is_sampled() -> None:
    """It is how a service's week, with its hundreds of millions of requests, is used at all."""
    times = [turn.at_s for turn in workload_of(f"servegen:{FOLDER}", seed=1, window=(100.0, 200.0)).turns]
    assert times
    assert all(100 <= (at or 0) < 200 for at in times)


@pytest.mark.parametrize(("process", "shape", "variation"), [
    ("Gamma", 1.0, 1.0), ("Gamma", 0.25, 2.0), ("Gamma", 4.0, 0.5),
    ("Weibull", 1.0, 1.0), ("Weibull", 2.0, 0.5227), ("Weibull", 0.5, 2.2361),
])
def test_arrivals_have_the_rate_and_the_variation_of_their_family(process: str, shape: float, variation: float) -> None:
    """The gaps' coefficient of variation is that of the family in closed form. The window begins in the middle of traffic: the first
    arrival comes after (1 + variation²)/2 mean gaps on average, the law of a renewal process that has been running for long."""
    spells = [list(Spell(50.0, 150.0, 2.0, process, shape).arrivals(Random(f"{seed}"))) for seed in range(500)]
    gaps = [later - earlier for times in spells for earlier, later in pairwise(times)]
    assert fmean(len(times) for times in spells) == pytest.approx(200, rel=0.03)
    assert stdev(gaps) / fmean(gaps) == pytest.approx(variation, rel=0.05)
    firsts = [next(Spell(0.0, 1e9, 2.0, process, shape).arrivals(Random(f"{seed}"))) for seed in range(10_000)]
    assert fmean(firsts) == pytest.approx((1 + variation**2) / 2 / 2.0, rel=0.05)


def test_more_than_can_be_replayed_asks_for_a_window(tmp_path: Path) -> None:
    folder = copytree(FOLDER, tmp_path / "m")
    (folder / "chunk-0-trace.csv").write_text("0,5000,1.0,Gamma,1.0,2.0\n600,0,0,,0,0\n")
    with pytest.raises(WorkloadError, match=r"got 3,000,000 requests to be expected of 1 clients.*give a window"):
        workload_of(f"servegen:{folder}", seed=1)


@pytest.mark.parametrize(("file", "content", "said"), [
    ("chunk-0-trace.csv", "0,0.5,1.0,Gamma,1.0,2.0\n600,0.5,1.0,Pareto,1,2\n", "trace.csv, line 2: got '600,0.5,1.0,Pareto,1,2'"),
    ("chunk-0-dataset.json", '{"0": {"text_tokens": "{1: 1.0}", "output_tokens": "{1: 1.0}"}}', "multimodal clients are not read"),
    ("chunk-0-dataset.json", '{"0": {"input_tokens": "{1: x}", "output_tokens": "{1: 1.0}"}}', r"got '\{1: x\}', expected \{tokens"),
    ("chunk-0-dataset.json", "[1]", "expected an object of"),
])
def test_what_cannot_be_read_is_named(tmp_path: Path, file: str, content: str, said: str) -> None:
    folder = copytree(FOLDER, tmp_path / "m")
    (folder / file).write_text(content)
    with pytest.raises(WorkloadError, match=said):
        workload_of(f"servegen:{folder}", seed=1)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"got no chunk-N-trace\.csv"):
        workload_of(f"servegen:{tmp_path}", seed=1)
