"""Prices by the wall clock of a place, on the days on which clocks are changed, too; and a market's."""

from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.footprint.prices import Fixed, PriceError, read_instant, read_market, read_price, read_tariff

HOUR_NS = 3_600_000_000_000
NIGHT = """
currency = "EUR"
timezone = "Europe/Berlin"
price_per_kwh = 0.34
[[band]]
hours = "22:00-06:00"
price_per_kwh = "0.20"
"""


def tariff(text=NIGHT):
    return read_tariff(text, ZoneInfo)[0]


def ns(text, zone="Europe/Berlin"):
    return read_instant(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).isoformat())


@pytest.mark.parametrize(("day", "hours", "night_hours"), [
    ("2026-07-01", 24, 8), ("2026-03-29", 23, 7), ("2026-10-25", 25, 9)], ids=["a day", "23 hours", "25 hours"])
def test_a_day_of_another_length_is_paid_for_what_it_has(day, hours, night_hours):
    """Where clocks go forward in the night, a night hour is not paid; where they go back, one is paid twice."""
    begin = ns(f"{day}T00:00:00")
    end = ns(f"{datetime.fromisoformat(day) + timedelta(days=1):%Y-%m-%d}T00:00:00")
    mean = tariff().mean(begin, end)
    assert end - begin == hours * HOUR_NS == mean.known_ns
    assert mean.value * hours == Fraction("0.20") * night_hours + Fraction("0.34") * (hours - night_hours)


def test_a_band_over_midnight_belongs_to_the_day_on_which_it_began():
    """Friday night ends on Saturday morning; Saturday night is no Friday."""
    price = tariff('timezone = "UTC"\nprice_per_kwh = 3\n[[band]]\ndays = "fri"\nhours = "22:00-06:00"\nprice_per_kwh = 1')
    assert [price.at(ns(f"2026-07-{at}", "UTC")) for at in ("03T21:59:00", "03T22:00:00", "04T05:59:00", "04T06:00:00", "04T22:00:00")] == [
        3, 1, 1, 3, 3]


@given(st.sampled_from(["Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"]),
       st.integers(0, 1439), st.integers(0, 1439), st.integers(0, 380 * 1440), st.integers(1, 180))
def test_a_mean_is_that_of_its_minutes(zone, begin_minute, end_minute, start_minute, minutes):
    """Whatever the edges of the band, over changes of the clock: the mean of the price at each minute."""
    end_minute += begin_minute == end_minute
    hours = "-".join(f"{minute // 60:02}:{minute % 60:02}" for minute in (begin_minute, end_minute))
    price = tariff(f'timezone = "{zone}"\nprice_per_kwh = 7\n[[band]]\ndays = "sat-mon"\nhours = "{hours}"\nprice_per_kwh = 0.5')
    begin = ns("2026-01-01T00:00:00", "UTC") + start_minute * 60_000_000_000
    each = [price.at(begin + minute * 60_000_000_000) for minute in range(minutes)]
    assert price.mean(begin, begin + minutes * 60_000_000_000) == (Fraction(sum(each)) / minutes, minutes * 60_000_000_000)


def test_whether_hours_are_fine_enough_is_known():
    """A tariff that changes within an hour of UTC asks for minutes."""
    half = NIGHT.replace("22:00", "22:30")
    assert (tariff().is_hourly(), tariff(half).is_hourly()) == (True, False)
    assert tariff(NIGHT.replace("Europe/Berlin", "Asia/Kolkata")).is_hourly() is False
    assert Fixed(Decimal("0.3")).is_hourly()


def test_a_market_is_known_from_its_first_row_to_its_last():
    """Prices below 0 are prices; before and after there is none."""
    price = read_market("start,price_per_kwh\n2026-07-01T10:00:00Z,0.10\n2026-07-01T11:00:00Z,-0.02\n2026-07-01T12:00:00Z,\n")
    begin = ns("2026-07-01T09:00:00", "UTC")
    assert price.mean(begin, begin + 4 * HOUR_NS) == (Fraction("0.04"), 2 * HOUR_NS)
    assert price.mean(begin, begin + HOUR_NS) == (None, 0)


@pytest.mark.parametrize("text", [
    "price_per_kwh = 1", 'timezone = "Mars/Base"\nprice_per_kwh = 1', 'timezone = "UTC"\nprice_per_kwh = "a"', "= 1",
    'timezone = "UTC"\nprice_per_kwh = 1\nprice = 2', 'timezone = "UTC"\nprice_per_kwh = 1\n[[band]]\nhours = "8-9"\nprice_per_kwh = 1',
    'timezone = "UTC"\nprice_per_kwh = 1\n[[band]]\ndays = "someday"\nprice_per_kwh = 1', 'timezone = "UTC"\nprice_per_kwh = 1\nband = 3',
    'timezone = "UTC"\nprice_per_kwh = 1\n[[band]]\nhours = "08:00-25:00"\nprice_per_kwh = 1', 'timezone = "../etc"\nprice_per_kwh = 1',
    'timezone = "UTC"\nprice_per_kwh = 1\n[[band]]\nhours = "08:00-09:00"'])
def test_a_tariff_that_cannot_be_is_refused(text):
    """With what was got and what was expected."""
    with pytest.raises(PriceError):
        read_tariff(text, ZoneInfo)


@pytest.mark.parametrize("text", ["nan", "inf", "1e9", "", "0,30"])
def test_a_price_that_is_no_number_is_refused(text):
    with pytest.raises(PriceError, match="expected the price"):
        read_price(text)


@pytest.mark.parametrize("text", [
    "", "start,price_per_kwh\n2026-07-01T10:00:00Z,1\n", "start,price_per_kwh\n2026-07-01T10:00:00,1\n2026-07-01T11:00:00Z,\n",
    "start,price_per_kwh\n2026-07-01T11:00:00Z,1\n2026-07-01T10:00:00Z,\n"])
def test_a_market_that_cannot_be_is_refused(text):
    """No zone, no end, out of order."""
    with pytest.raises(PriceError):
        read_market(text)
