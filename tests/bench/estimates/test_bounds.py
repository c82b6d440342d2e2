"""The idealized bound is the paper's formula, and memory holds what the weights leave."""

import pytest

from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.batching import Limits
from perjoule.bench.estimates.boards import boards_of
from perjoule.bench.estimates.bounds import idealized_j, limits_of, tdp_j
from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.estimates.shapes import SHAPES, ModelShape

DENSE = ModelShape("dense", 1e9, 1e9)


def test_the_idealized_bound_by_hand():
    """TDP / peak × Σ FLOPs: 2 for each weight and token, of an RTX A6000 as in the paper, but at its dense 155 TFLOP/s."""
    joules = idealized_j([Asked(100, 11), Asked(50, 1)], DENSE, boards_of("RTX A6000"))
    assert joules == pytest.approx(300 / 155e12 * 2e9 * (100 + 10 + 50))


def test_attention_is_counted_where_the_layers_are_known():
    """4 · layers · width for each pair of tokens; what is cached is not computed, but it is looked at."""
    shape = ModelShape("layered", 1e9, 1e9, layers=10, attention_width=100)
    assert shape.flop(100, 1) == pytest.approx(2e9 * 100 + 4000 * 101**2 / 2)
    assert shape.flop(100, 1, cached=60) == pytest.approx(2e9 * 40 + 4000 * (101**2 - 60**2) / 2)


def test_several_boards_take_tdp_together_but_no_more_flops():
    """Work is the same, whoever does it."""
    one, four = boards_of("h100"), boards_of("h100", 4)
    assert idealized_j([Asked(9, 9)], DENSE, one) == idealized_j([Asked(9, 9)], DENSE, four)
    assert tdp_j(10.0, four) == 28_000


def test_memory_is_what_the_weights_leave():
    """0.9 of 80 GB less 16.06 GB of weights, at 131,072 bytes a token."""
    limits = limits_of(SHAPES["llama-3.1-8b"], boards_of("h100"), Limits())
    assert limits.kv_tokens == pytest.approx((72e9 - 16.06e9) / 131_072)
    assert limits_of(DENSE, boards_of("h100"), Limits()).kv_tokens == float("inf")  # keys and values of an unknown size


def test_a_model_that_does_not_fit_is_refused():
    """70 billion parameters in bf16 need two H100."""
    with pytest.raises(EstimateError, match=r"got 141 GB of weights .* expected less than the 72 GB"):
        limits_of(SHAPES["llama-3.1-70b"], boards_of("h100"), Limits())
    limits_of(SHAPES["llama-3.1-70b"], boards_of("h100", 2), Limits())
