"""Models and GPUs by their names."""

import pytest

from perjoule.bench.estimates.boards import RATED, boards_of
from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.estimates.shapes import shape_of
from perjoule.sidecar.metering.prior import DATASHEETS


@pytest.mark.parametrize(("name", "known"), [
    ("llama-3.1-8b", "llama-3.1-8b"), ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
    ("meta-llama/Meta-Llama-3.1-70B", "llama-3.1-70b"), ("Qwen/Qwen3-30B-A3B-Instruct-2507", "qwen3-30b-a3b"),
    ("Qwen/Qwen3-32B", "qwen3-32b"), ("openai/gpt-oss-120b", "gpt-oss-120b"),
])
def test_a_model_is_known_by_the_name_of_its_repository(name, known):
    """Organisation, variant and letters of either case do not matter."""
    assert shape_of(name).name == known


def test_a_name_that_tells_its_size_is_enough():
    """30B-A3B: 30 billion parameters, 3 billion of them in use; nothing is known of its layers."""
    shape = shape_of("org/Some-30B-A3B-v2")
    assert (shape.parameters, shape.active_parameters, shape.layers, shape.kv_bytes) == (30e9, 3e9, 0, 0)
    assert shape_of("org/Some-7B", "fp8").weight_bytes == 1.0
    assert shape_of("openai/gpt-oss-20b", "bfloat16").weight_bytes == 0.66  # engines tell what they compute in, not what is stored


def test_what_is_told_counts_more_than_the_name():
    """Flags; a number of parameters without an active one is a dense model."""
    shape = shape_of("llama-3.1-8b", parameters=9e9, weight_bytes=0.5)
    assert (shape.parameters, shape.active_parameters, shape.weight_bytes, shape.layers) == (9e9, 9e9, 0.5, 32)


@pytest.mark.parametrize("name", ["", "org/Mystery", "mixtral-8x9b"])
def test_a_name_that_tells_nothing_is_refused(name):
    """8x9B says nothing either: experts share layers."""
    with pytest.raises(EstimateError, match=r"expected one of llama-3\.2-1b"):
        shape_of(name)


def test_more_active_parameters_than_all_are_refused():
    """They are a part."""
    with pytest.raises(EstimateError, match=r"got 2e\+09 active parameters"):
        shape_of("x", parameters=1e9, active_parameters=2e9)


def test_a_prompt_is_more_work_the_longer_it_is():
    """An 8B model: attention adds 2 · 32 · 4,096 / 16 GFLOP for each pair, so a token at 30,000 is twice one at the start, about."""
    shape = shape_of("llama-3.1-8b")
    assert shape.prompt_work(100) == pytest.approx(100, rel=0.01)
    assert shape.prompt_work(30_000) == pytest.approx(30_000 * (1 + 2 * 32 * 4096 * 30_000 / (2 * 8.03e9)))
    assert shape.prompt_work(200, cached=199) < 1.01


def test_every_board_is_one_of_the_prior_and_names_its_source():
    """Speed and watts are of the same GPU."""
    assert set(RATED) <= set(DATASHEETS)
    assert all(len(source) > 10 for *_, source in RATED.values())


@pytest.mark.parametrize(("name", "tdp_w", "gigabytes"), [
    ("h100", 700, 80), ("NVIDIA H100 80GB HBM3", 700, 80), ("NVIDIA H100 PCIe", 350, 80), ("NVIDIA A100-SXM4-40GB", 400, 40),
    ("b200", 1000, 180), ("NVIDIA L40S", 350, 48),
])
def test_a_board_is_known_as_the_driver_calls_it(name, tdp_w, gigabytes):
    """The longest name that fits, and memory that the name tells."""
    boards = boards_of(name)
    assert (boards.tdp_w, boards.memory_bytes) == (tdp_w, gigabytes * 1e9)


def test_an_unknown_board_is_refused_and_a_limit_counts():
    """A power limit that was set replaces the datasheet's."""
    with pytest.raises(EstimateError, match="got 'potato', expected one of V100"):
        boards_of("potato")
    assert boards_of("h200", tdp_w=500).tdp_w == 500
    with pytest.raises(EstimateError, match="got 600 W drawn idle, expected less than the 500 W"):
        boards_of("h200", tdp_w=500, idle_w=600)
