"""Carbon intensities: units that are turned exactly, kinds that are never mixed, and no value where none was told."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.footprint.carbon import Kind, grids, intensity
from perjoule.sidecar.footprint.steps import Step, Steps

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 30), st.integers(0, 9)), max_size=8)


def test_pounds_for_a_megawatt_hour_are_grams_for_a_kilowatt_hour():
    """870 lb/MWh is 870 × 453.59237 g in 1000 kWh, to the next mg, and the word of the source is kept."""
    told = intensity("watttime", "CAISO_NORTH", Kind.MARGINAL, 0, 1, Decimal(870), "lbs_co2_per_mwh")
    assert (told.mg_per_kwh, told.value, told.unit, told.gas) == (394_625, "870", "lbs_co2_per_mwh", "CO2")
    assert intensity("electricitymaps", "DE", Kind.AVERAGE, 0, 1, Decimal("302.5"), "gCO2eq/kWh").mg_per_kwh == 302_500


def test_average_and_marginal_and_gases_stay_apart():
    """One series for each, and for each source: what two say of one time is not one number."""
    told = [intensity("a", "X", kind, 0, 10, Decimal(value), unit)
            for kind, value, unit in ((Kind.MARGINAL, 900, "gCO2/kWh"), (Kind.AVERAGE, 400, "gCO2eq/kWh"), (Kind.AVERAGE, 380, "gCO2/kWh"))]
    assert [(grid.name, grid.source, grid.grams_per_kwh.mean(0, 10).value) for grid in grids(told)] == [
        ("average CO2", "a X", 380), ("average CO2eq", "a X", 400), ("marginal CO2", "a X", 900)]
    told.append(intensity("b", "", Kind.AVERAGE, 0, 5, Decimal(7), "gCO2/kWh"))
    assert [(grid.name, grid.grams_per_kwh.mean(0, 10)) for grid in grids(told)][:2] == [
        ("average CO2 (a X)", (380, 10)), ("average CO2 (b)", (7, 5))]


@pytest.mark.parametrize(("value", "unit", "until"), [("-1", "gCO2/kWh", 1), ("100001", "gCO2/kWh", 1), ("nan", "gCO2/kWh", 1),
                                                      ("1", "kg", 1), ("1", "gCO2/kWh", 0)])
def test_what_cannot_be_an_intensity_is_refused(value, unit, until):
    with pytest.raises(ValueError, match="expected"):
        intensity("a", "X", Kind.AVERAGE, 0, until, Decimal(value), unit)


@given(spans, st.integers(0, 60), st.integers(1, 30), st.integers(1, 30))
def test_a_mean_is_what_each_moment_says(told, begin, first, second):
    """The mean over moments that are known; the sum over two stretches is that over both."""
    steps = Steps(Step(start, start + span, Fraction(value)) for start, span, value in told)
    latest = {start: (start + span, Fraction(value)) for start, span, value in told}
    begun = {at: max((start for start in latest if start <= at), default=None) for at in range(begin, begin + first + second)}
    moments = [latest[start][1] for at, start in begun.items() if start is not None and at < latest[start][0]]

    def weighed(a, b):
        mean = steps.mean(a, b)
        return (mean.value or 0) * mean.known_ns, mean.known_ns

    whole = weighed(begin, begin + first + second)
    assert whole == tuple(map(sum, zip(weighed(begin, begin + first), weighed(begin + first, begin + first + second), strict=True)))
    assert whole == (sum(moments), len(moments))
