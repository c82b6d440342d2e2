"""What a report or a bill asks for: the time, and the factors that stored joules are multiplied by. None is assumed."""

import argparse
import re
import time
from dataclasses import dataclass
from datetime import datetime, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from perjoule.adapters.grid import open_grid
from perjoule.adapters.ledger import intensities
from perjoule.adapters.ledger.drawn import drawn, finest_s, oldest
from perjoule.adapters.ledger.queries import Queries
from perjoule.sidecar.footprint.carbon import grids
from perjoule.sidecar.footprint.prices import Fixed, Price, PriceError, read_market, read_price, read_tariff
from perjoule.sidecar.footprint.remainder import Accounts
from perjoule.sidecar.footprint.statement import Factors
from perjoule.sidecar.units import NS_PER_S

PUE_MOST = 10
INSTANT = "Unix seconds or ISO 8601 (UTC where it names no zone)"


@dataclass(frozen=True)
class Asked:
    """The time [since, until), the factors, how finely time is cut, and what had to be left aside."""

    since_unix_ns: int
    until_unix_ns: int
    factors: Factors
    grain_s: int
    notes: tuple[str, ...]

    def accounts(self, ledger: Queries) -> Accounts:
        """What was drawn and no request bears. Raises LedgerError."""
        return drawn(ledger.database, self.grain_s, self.since_unix_ns, self.until_unix_ns)


def add_time_arguments(parser: argparse.ArgumentParser) -> None:
    """--since and --until."""
    parser.add_argument("--since", type=instant, metavar="TIME", help=f"{INSTANT}, inclusive (default: the beginning)")
    parser.add_argument("--until", type=instant, metavar="TIME", help="the same, exclusive (default: now)")


def add_factor_arguments(parser: argparse.ArgumentParser) -> None:
    """Prices, PUE, and what of idle energy."""
    price = parser.add_mutually_exclusive_group()
    price.add_argument("--price", type=_price, metavar="N", help="what a kWh costs")
    price.add_argument("--prices", type=Path, metavar="FILE", help="a tariff by weekday and hour (TOML), or prices over time (CSV)")
    parser.add_argument("--currency", metavar="CODE", help="of the price, as EUR (ISO 4217)")
    parser.add_argument("--pue", type=_pue, metavar="N",
                        help="power usage effectiveness: what the building draws for each joule of its computers (default: not counted)")
    parser.add_argument("--idle", choices=("own", "spread"), default="own",
                        help="what no request bears (idle, unattributed, host): lines of its own, or divided by energy (default: own)")


def period_of(asked: argparse.Namespace, ledger: Queries) -> tuple[int, int]:
    """[since, until). Raises ValueError for an empty one."""
    until = time.time_ns() if asked.until is None else asked.until
    since = asked.since if asked.since is not None else oldest(ledger.database)
    if since is None:
        raise ValueError("the ledger is empty")
    if since >= until:
        raise ValueError(f"--since: got {since / NS_PER_S:.0f}, expected a time before --until ({until / NS_PER_S:.0f})")
    return since, until


def asked_of(asked: argparse.Namespace, ledger: Queries, *, grid: str | None = None) -> Asked:
    """Time and factors. Without `grid`, carbon intensities are those that the ledger keeps. Raises ValueError, LedgerError."""
    since, until = period_of(asked, ledger)
    price, currency = _price_of(asked)
    if price is not None and not re.fullmatch("[A-Z]{3}", currency or ""):
        raise ValueError(f"--currency: got {currency}, expected the code of the price's currency, as EUR")
    told = open_grid(grid, None).fetch(since, until) if grid else intensities.between(ledger.database, since, until)
    factors = Factors(asked.pue or Fraction(1), price, currency, grids(told))
    grain_s = finest_s(ledger.database, factors.grain_s, since)
    notes = [] if grain_s == factors.grain_s else [
        f"sums finer than {grain_s // 60} minutes are no longer kept for all of this time: factors are means over each of these"]
    return Asked(since, until, factors, grain_s, tuple(notes))


def instant(text: str) -> int:
    """Unix ns. Raises ArgumentTypeError."""
    try:
        if text.isascii() and text.isdigit():
            return int(text) * NS_PER_S
        told = datetime.fromisoformat(text)
        epoch = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
        since = (told if told.tzinfo else told.replace(tzinfo=epoch.tzinfo)) - epoch
        return (since.days * 86_400 + since.seconds) * NS_PER_S + since.microseconds * 1000
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {INSTANT}") from None


def _price_of(asked: argparse.Namespace) -> tuple[Price | None, str | None]:
    if asked.prices is None:
        return (None if asked.price is None else Fixed(asked.price)), asked.currency
    try:
        text = asked.prices.read_text()
        price, currency = read_tariff(text, _zone) if asked.prices.suffix == ".toml" else (read_market(text), None)
    except (OSError, UnicodeDecodeError, PriceError) as error:
        raise ValueError(f"--prices: {asked.prices}: {error}") from error
    if currency and asked.currency and currency != asked.currency:
        raise ValueError(f"--currency: got {asked.currency}, but {asked.prices} says {currency}")
    return price, asked.currency or currency


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError as error:
        raise ValueError(str(error)) from error


def _price(text: str) -> Decimal:
    try:
        return read_price(text)
    except PriceError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _pue(text: str) -> Fraction:
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if not 1 <= value <= PUE_MOST:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected 1 to {PUE_MOST}, as 1.2")
    return value
