"""The nearest whole number is what `round` says it is."""

from math import inf, nan, nextafter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.units import MOST_SHIFTED as MOST
from perjoule.sidecar.units import nearest


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-10**6, 10**6).map(lambda n: n / 2) | st.floats(-10.0, 10.0))
def test_it_is_what_round_says(x):
    """Halves go to the even one, large numbers stay what they are, and it is an int."""
    assert nearest(x) == round(x)
    assert type(nearest(x)) is int


@pytest.mark.parametrize("x", [0.5, 1.5, 2.5, nextafter(0.5, 0.0), MOST - 0.5, MOST, 2 * MOST - 1, 4 * MOST + 4])
def test_it_is_so_at_the_edges(x):
    """On both sides of 0."""
    assert (nearest(x), nearest(-x)) == (round(x), round(-x))


@pytest.mark.parametrize(("x", "why"), [(nan, ValueError), (inf, OverflowError), (-inf, OverflowError)])
def test_what_is_no_number_has_none(x, why):
    """As with `round`."""
    with pytest.raises(why):
        nearest(x)
