"""Bins of length: every request is in one, and offline a full batch of its like is what it costs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.batching import Limits
from perjoule.bench.estimates.boards import boards_of
from perjoule.bench.estimates.bounds import limits_of
from perjoule.bench.estimates.by_length import by_bins, offline_j, offline_total_j
from perjoule.bench.estimates.costs import by_physics
from perjoule.bench.estimates.estimate import estimated
from perjoule.bench.estimates.shapes import SHAPES

SHAPE, H200 = SHAPES["llama-3.1-8b"], boards_of("H200")
COSTS, LIMITS = by_physics(SHAPE, H200), limits_of(SHAPE, H200, Limits())


def binned(asked, concurrency=8):
    found = estimated(asked, COSTS, Limits(concurrency=concurrency), SHAPE)
    return found, by_bins(found, COSTS, LIMITS, SHAPE, H200)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.builds(Asked, st.integers(1, 10_000), st.integers(1, 600)), min_size=1, max_size=20))
def test_bins_add_up_to_all_requests(asked):
    """In number and in joules; those beyond the last bin have a row, too."""
    found, rows = binned(asked)
    assert sum(row["requests"] for row in rows) == len(asked)
    assert sum(row["energy_j"] for row in rows) == pytest.approx(sum(found.requests_j))


def test_lengths_are_rounded_up_to_their_bin():
    """The paper's: 33 is in 128, 512 in itself; 8,193 is longer than all."""
    _, rows = binned([Asked(33, 512), Asked(32, 8), Asked(8193, 9)])
    assert [(row["input_tokens"], row["output_tokens"]) for row in rows] == [(32, 8), (128, 512), (None, 16)]
    assert rows[2]["offline_per_request_j"] is None
    assert offline_total_j(rows) is None


def test_offline_is_the_sum_over_full_batches():
    """Σ N(I, O) / B(I, O) · E_batch(I, O): of one bin, N times a batch's joules over its size."""
    _, rows = binned([Asked(128, 64)] * 10)
    assert offline_total_j(rows) == pytest.approx(10 * offline_j(128, 64, COSTS, LIMITS, SHAPE))


def test_a_full_batch_is_what_the_engine_takes_and_memory_holds():
    """Cheaper per request the more fit; where memory holds one, as dear as alone."""
    dear, cheap = (offline_j(128, 64, COSTS, Limits(n), SHAPE) for n in (1, 256))
    assert cheap < dear / 10
    assert offline_j(128, 64, COSTS, Limits(256, kv_tokens=200), SHAPE) == dear
    alone = estimated([Asked(128, 64)], COSTS, Limits(concurrency=1), SHAPE)
    assert dear == pytest.approx(alone.energy_j)
