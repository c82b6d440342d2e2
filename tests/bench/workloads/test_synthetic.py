"""Made-up lengths and jobs: as asked, with the moments they claim, and called synthetic."""

from pathlib import Path
from random import Random
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.workloads.bins import INPUT_BINS, OUTPUT_BINS, PAPER, binned
from perjoule.bench.workloads.lengths import log_normal
from perjoule.bench.workloads.open import FORMS, workload_of
from perjoule.bench.workloads.workload import IMAGES, VIDEOS, Turn, Workload, WorkloadError


def test_fixed_lengths_are_fixed() -> None:
    workload = workload_of("fixed:128,32,5", seed=1)
    assert workload.turns == (Turn(None, 128, 32),) * 5
    assert len(workload_of("fixed:128,32", seed=1).turns) == 1000


def test_pareto_is_the_length_control_of_ml_energy() -> None:
    """Scale and shape as in its source: nothing is shorter than mean × (α − 1)/α, and the means come out."""
    turns = workload_of("pareto:500,2.5,300,20000", seed=1).turns
    inputs, outputs = [turn.input_tokens or 0 for turn in turns], [turn.output_tokens or 0 for turn in turns]
    assert min(inputs) == 300
    assert fmean(inputs) == pytest.approx(500, rel=0.03)
    assert fmean(outputs) == pytest.approx(300, rel=0.03)
    assert stdev(outputs) == pytest.approx(300, rel=0.03)
    assert max(inputs + outputs) <= 32768
    assert min(outputs) >= 1


def test_a_log_normal_length_has_its_moments() -> None:
    random = Random("moments")
    drawn = [log_normal(1631.58, 1529.64, random) for _ in range(20000)]
    assert fmean(drawn) == pytest.approx(1631.58, rel=0.03)
    assert stdev(drawn) == pytest.approx(1529.64, rel=0.06)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_workloads_are_in_its_bins_and_called_synthetic(name: str) -> None:
    workload = workload_of(f"bins:{name}", seed=1)
    assert {turn.input_tokens for turn in workload.turns} <= set(INPUT_BINS)
    assert {turn.output_tokens for turn in workload.turns} <= set(OUTPUT_BINS)
    assert workload.read == 1024 == len(workload.turns) + sum(workload.dropped.values())
    assert "synthetic" in workload.notes[0]


@given(st.lists(st.tuples(st.integers(1, 9000), st.integers(1, 600))))
def test_a_length_goes_up_to_its_bin_or_is_counted(lengths: list[tuple[int, int]]) -> None:
    """Never down, never by more than to the next; what is beyond the largest is dropped, and nothing else."""
    workload = binned(Workload("w", "w", tuple(Turn(None, *pair) for pair in lengths), len(lengths)))
    fit = [(given, wanted) for given, wanted in lengths if given <= 8192 and wanted <= 512]
    assert [(turn.input_tokens, turn.output_tokens) for turn in workload.turns] == [
        (min(b for b in INPUT_BINS if b >= given), min(b for b in OUTPUT_BINS if b >= wanted)) for given, wanted in fit]
    assert sum(workload.dropped.values()) == len(lengths) - len(fit)


def test_any_workload_can_be_put_in_bins() -> None:
    workload = workload_of("bins:fixed:100,10,3", seed=1)
    assert workload.turns == (Turn(None, 128, 16),) * 3
    assert (workload.name, workload.source) == ("bins:fixed:100,10", "bins:fixed:100,10,3")


def test_jobs_of_a_diffusion_server() -> None:
    """Pictures go to the images endpoint, a video to the one whose answer is the video; no two jobs are the same."""
    pictures = workload_of("diffusion:28,1024x768,1,4,50", seed=1).turns
    assert {turn.endpoint for turn in pictures} == {IMAGES}
    assert len({str(turn.body) for turn in pictures}) == 50
    body = dict(pictures[0].body or {})
    assert isinstance(body.pop("seed"), int)
    assert body.pop("prompt")
    assert body == {"n": 4, "num_inference_steps": 28, "size": "1024x768", "response_format": "b64_json"}
    (film,) = workload_of("diffusion:50,832x480,81,1,1", seed=1).turns
    assert film.endpoint == VIDEOS
    assert (film.body or {})["num_frames"] == 81


@pytest.mark.parametrize("spec", ["pareto:500,2.5,300", "bins:azure-code", "diffusion:2,64x64"])
def test_equal_seeds_equal_workloads(spec: str) -> None:
    assert workload_of(spec, seed=1) == workload_of(spec, seed=1)
    assert workload_of(spec, seed=1).turns != workload_of(spec, seed=2).turns


@pytest.mark.parametrize(("spec", "said"), [
    ("trace", "got 'trace', expected one of azure2023:PATH, azure2024:PATH"),
    ("nope:x", "got 'nope:x', expected one of"),
    ("fixed:", "got 'fixed:', expected one of"),
    ("fixed:1", "got 'fixed:1', expected fixed:IN,OUT"),
    ("fixed:1,2,3,4", "got 'fixed:1,2,3,4', expected fixed:IN,OUT"),
    ("fixed:0,2", "numbers above 0"),
    ("fixed:1.5,2", "expected fixed:IN,OUT"),
    ("pareto:500,1,300", "got alpha 1, expected more than 1"),
    ("pareto:50000,2,300", "expected at most 32768"),
    ("pareto:nan,2,300", "expected pareto:"),
    ("bins:azure", "expected bins:NAME"),
    ("bins:azure-code,x", "expected bins:NAME"),
    ("diffusion:28,1024", "expected diffusion:STEPS,WIDTHxHEIGHT"),
    ("hf:some/data", "got task none, expected one of lm-arena-chat, gpqa"),
    ("hf:some/data:chess", "got task chess, expected one of"),
    ("hf:some/data:gpqa,many", "expected hf:DATASET_ID"),
])
def test_a_wrong_specification_is_answered_with_the_right_one(spec: str, said: str) -> None:
    with pytest.raises(WorkloadError, match=said):
        workload_of(spec, seed=1)


def test_every_form_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[3] / "docs" / "workloads.md").read_text()
    assert not [kind for kind in FORMS if f"`{kind}:" not in page]
