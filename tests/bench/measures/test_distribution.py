"""Percentiles and histograms beside the standard library's, and by hand."""

from statistics import fmean, quantiles, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.measures.distribution import distribution, histogram, weighted

VALUES = st.lists(st.floats(0, 1e6), min_size=2, max_size=60)


@given(VALUES)
def test_percentiles_are_those_of_the_standard_library(values):
    """Inclusive quantiles, the sample's standard deviation."""
    found = distribution([*values, None])
    cuts = quantiles(values, n=100, method="inclusive")
    assert found["n"] == len(values)
    assert [found[f"p{p}"] for p in (50, 90, 95, 99)] == pytest.approx([cuts[p - 1] for p in (50, 90, 95, 99)], abs=1e-6)
    assert (found["mean"], found["std"]) == pytest.approx((fmean(values), stdev(values)), abs=1e-6)
    assert (found["min"], found["max"]) == (min(values), max(values))


@given(st.dictionaries(st.integers(0, 1000), st.integers(1, 9), min_size=1, max_size=30))
def test_counted_values_have_the_percentiles_of_the_values_written_out(counts):
    """The least value that as many do not exceed."""
    every = sorted(value for value, count in counts.items() for _ in range(count))
    found = weighted(counts)
    assert found["n"] == len(every)
    assert found["mean"] == pytest.approx(fmean(every))
    for percent in (50, 90, 95, 99):
        assert found[f"p{percent}"] == every[-(-len(every) * percent // 100) - 1]


@given(st.dictionaries(st.floats(-1e6, 1e6, allow_subnormal=True), st.integers(1, 9), min_size=1, max_size=30))
def test_a_histogram_counts_everything_once(counts):
    """51 edges that rise, 50 counts, none lost at the ends."""
    found = histogram(counts)
    assert (len(found["edges"]), len(found["counts"])) == (51, 50)
    assert sum(found["counts"]) == sum(counts.values())
    assert found["edges"] == sorted(found["edges"])
    assert found["edges"][0] == min(counts)


def test_nothing_has_no_distribution():
    """Null, not zeros; one value has no spread."""
    assert distribution([None]) is weighted({}) is histogram({}) is None
    assert distribution([3.0])["std"] == 0.0
    assert histogram({3.0: 2})["counts"][0] == 2
