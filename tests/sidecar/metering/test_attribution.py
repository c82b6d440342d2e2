"""A window's microjoules are divided exactly, fairly and by the weights alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.attribution import apportion

weights = st.lists(st.integers(0, 10**12), max_size=40)
totals = st.integers(0, 10**12)


@given(totals, weights)
def test_parts_sum_to_the_total(total, shares):
    """Nothing is lost and nothing made, as long as anybody weighs anything."""
    parts = apportion(total, shares)
    assert sum(parts) == (total if any(shares) else 0)
    assert all(part >= 0 for part in parts)


@given(totals, weights)
def test_each_part_is_within_one_of_its_quota(total, shares):
    """Rounding moves a part by less than a microjoule."""
    whole = sum(shares)
    for part, share in zip(apportion(total, shares), shares, strict=True):
        assert abs(part * whole - total * share) < max(whole, 1)


@given(totals, weights)
def test_who_weighs_nothing_pays_nothing(total, shares):
    """The null player of the game is charged nothing."""
    assert all(part == 0 for part, share in zip(apportion(total, shares), shares, strict=True) if share == 0)


@given(totals, st.integers(1, 10**9), st.integers(1, 40))
def test_equal_weights_pay_the_same(total, weight, count):
    """Symmetric requests differ by one microjoule at most."""
    parts = apportion(total, [weight] * count)
    assert max(parts) - min(parts) <= 1


@pytest.mark.parametrize(("total", "shares"), [(-1, [1]), (1, [-1, 2])])
def test_negative_amounts_are_refused(total, shares):
    """A negative total or weight is somebody's mistake and says so."""
    with pytest.raises(ValueError, match="expected nothing below 0"):
        apportion(total, shares)
