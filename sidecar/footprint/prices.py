"""The price of a kWh: one number, a tariff by weekday and hour of a place, or what the market had at each time."""

import csv
import io
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import gcd
from typing import Any, Protocol

from perjoule.sidecar.footprint.steps import Mean, Step, Steps
from perjoule.sidecar.units import NS_PER_S

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 1440
CLOCK_STEP_MINUTES = 15  # clocks are changed on multiples of it, everywhere
NS_PER_MINUTE = 60 * NS_PER_S


class PriceError(ValueError):
    """Prices that cannot be used; the text says what was got and what was expected."""


class Price(Protocol):
    """What a kWh costs, in whole units of the currency."""

    def mean(self, begin_unix_ns: int, until_unix_ns: int) -> Mean: ...
    def is_hourly(self) -> bool: ...


@dataclass(frozen=True)
class Fixed:
    """The same at all times."""

    per_kwh: Decimal

    def mean(self, begin_unix_ns: int, until_unix_ns: int) -> Mean:
        return Mean(Fraction(self.per_kwh), until_unix_ns - begin_unix_ns)

    def is_hourly(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Band:
    """A price for some minutes of some days of the week, by the wall clock: [begin, end), over midnight where end <= begin."""

    days: frozenset[int]
    begin_minute: int
    end_minute: int
    per_kwh: Decimal

    def holds(self, weekday: int, minute: int) -> bool:
        """A band over midnight belongs to the day on which it began."""
        if self.begin_minute < self.end_minute:
            return weekday in self.days and self.begin_minute <= minute < self.end_minute
        return (weekday in self.days and minute >= self.begin_minute) or ((weekday - 1) % 7 in self.days and minute < self.end_minute)


class Tariff:
    """Bands by the wall clock of a place, the first that holds; `otherwise` where none does. On the days on which clocks are changed the
    hour that is missing is not paid, and the one that comes twice is paid twice."""

    def __init__(self, zone: tzinfo, otherwise: Decimal, bands: Sequence[Band]) -> None:
        self._zone, self._otherwise, self._bands = zone, otherwise, bands
        edges = [edge for band in bands for edge in (band.begin_minute, band.end_minute)]
        self._step_ns = gcd(CLOCK_STEP_MINUTES, *edges) * NS_PER_MINUTE
        self._seen: dict[int, Decimal] = {}

    def at(self, unix_ns: int) -> Decimal:
        """The price at an instant."""
        local = datetime.fromtimestamp(unix_ns // NS_PER_S, self._zone)
        minute = local.hour * 60 + local.minute
        return next((band.per_kwh for band in self._bands if band.holds(local.weekday(), minute)), self._otherwise)

    def mean(self, begin_unix_ns: int, until_unix_ns: int) -> Mean:
        step_ns, weighted = self._step_ns, Fraction(0)
        for step_unix_ns in range(begin_unix_ns - begin_unix_ns % step_ns, until_unix_ns, step_ns):
            if step_unix_ns not in self._seen:
                self._seen[step_unix_ns] = self.at(step_unix_ns)
            span_ns = min(step_unix_ns + step_ns, until_unix_ns) - max(step_unix_ns, begin_unix_ns)
            weighted += Fraction(self._seen[step_unix_ns]) * span_ns
        return Mean(weighted / (until_unix_ns - begin_unix_ns), until_unix_ns - begin_unix_ns)

    def is_hourly(self) -> bool:
        edges_fit = all(edge % 60 == 0 for band in self._bands for edge in (band.begin_minute, band.end_minute))
        offsets = (self._zone.utcoffset(datetime(2026, month, 1)) or timedelta() for month in (1, 7))
        return edges_fit and all(offset % timedelta(hours=1) == timedelta() for offset in offsets)


def read_price(text: str) -> Decimal:
    """A price of a kWh. It may be below 0, as on some markets at noon. Raises PriceError."""
    try:
        price = Decimal(text)
    except InvalidOperation:
        price = Decimal("nan")
    if not price.is_finite() or abs(price) > 1_000_000:
        raise PriceError(f"got {text!r}, expected the price of a kWh as a number, e.g. 0.30")
    return price


def read_tariff(text: str, zone_of: Callable[[str], tzinfo]) -> tuple[Price, str | None]:
    """A tariff in TOML and the currency it names: `timezone`, `price_per_kwh`, and any number of [[band]] with `days`, `hours` and
    `price_per_kwh`. `zone_of` knows time zones by name. Raises PriceError."""
    try:
        table = tomllib.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise PriceError(f"not TOML: {error}") from error
    _only(table, {"currency", "timezone", "price_per_kwh", "band"}, "")
    for name in ("timezone", "price_per_kwh"):
        if name not in table:
            raise PriceError(f"{name} is missing")
    try:
        zone = zone_of(str(table["timezone"]))
    except (KeyError, ValueError, OSError) as error:
        raise PriceError(f"timezone: got {table['timezone']!r}, expected a name that this system knows, as Europe/Berlin"
                         " (or install tzdata)") from error
    bands = table.get("band", [])
    if not isinstance(bands, list):
        raise PriceError("band: expected [[band]]")
    currency = table.get("currency")
    return Tariff(zone, read_price(str(table["price_per_kwh"])), [_band(band) for band in bands]), currency and str(currency)


def read_market(text: str) -> Price:
    """Prices in CSV, a row for each change: `start` (ISO 8601 with its offset from UTC) and `price_per_kwh`; the last row ends the series,
    and needs no price. Raises PriceError."""
    rows = list(csv.DictReader(io.StringIO(text)))
    if len(rows) < 2 or "start" not in rows[0] or "price_per_kwh" not in rows[0]:
        raise PriceError("expected CSV with the columns start,price_per_kwh and at least two rows, of which the last says where it ends")
    starts = [read_instant(row["start"] or "") for row in rows]
    if starts != sorted(set(starts)):
        raise PriceError("start: expected every row to be later than the one before it")
    return Steps(Step(start, end, Fraction(read_price(row["price_per_kwh"] or "")))
                 for start, end, row in zip(starts, starts[1:], rows, strict=False))


def read_instant(text: str) -> int:
    """Unix ns of an ISO 8601 time that says its offset from UTC. Raises PriceError."""
    try:
        instant = datetime.fromisoformat(text.strip())
    except ValueError:
        instant = None
    if instant is None or instant.utcoffset() is None:
        raise PriceError(f"got {text!r}, expected a time with its offset, as 2026-07-01T12:00:00+02:00 or …Z")
    since = instant - datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1000


def _band(table: Any) -> Band:
    if not isinstance(table, Mapping):
        raise PriceError("band: expected [[band]]")
    _only(table, {"days", "hours", "price_per_kwh"}, "band: ")
    hours = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d)", str(table.get("hours", "00:00-24:00")))
    numbers = [int(number) for number in hours.groups()] if hours else [99] * 4
    begin, end = numbers[0] * 60 + numbers[1], numbers[2] * 60 + numbers[3]
    if max(begin, end) > DAY_MINUTES or begin == end or max(numbers[1], numbers[3]) > 59:
        raise PriceError(f"band: hours: got {table.get('hours')!r}, expected HH:MM-HH:MM")
    if "price_per_kwh" not in table:
        raise PriceError("band: price_per_kwh is missing")
    return Band(_weekdays(str(table.get("days", "mon-sun"))), begin, end, read_price(str(table["price_per_kwh"])))


def _weekdays(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.lower().split(","):
        first, _, last = part.strip().partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise PriceError(f"band: days: got {text!r}, expected days as mon-fri or sat,sun")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        days |= {day % 7 for day in range(begin, end + 1 + (7 if end < begin else 0))}
    return frozenset(days)


def _only(table: Mapping[str, Any], known: set[str], where: str) -> None:
    for name in table:
        if name not in known:
            raise PriceError(f"{where}unknown key {name!r}, expected {', '.join(sorted(known))}")
