"""The energy bill of a time divided among who was served in it, to the last millionth of the currency.

The origin is what the counter measured, by balances, at the price of its time. Idle, unattributed and host energy of each hour are parts of
their own, or are spread; the rest goes to tenants, models and hours in proportion to what their records cost at the price of their time. So
the parts always add up to the bill, although a request that ran over an edge of the time is in the bill by what was drawn inside.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from perjoule.sidecar.footprint.prices import PriceError
from perjoule.sidecar.footprint.remainder import Accounts, Drawn
from perjoule.sidecar.footprint.statement import HOST, HOUR_S, IDLE, MICRO, REQUESTS, UJ_PER_KWH, UNATTRIBUTED, Factors, rounded
from perjoule.sidecar.metering.attribution import apportion
from perjoule.sidecar.units import NS_PER_S

HOUR_NS = HOUR_S * NS_PER_S
RATIO_DIGITS = 12


@dataclass(frozen=True)
class Part:
    """One part of the bill: whose (`key`, empty for what no request bears), in which hour (a day where sums are no finer), how much.

    `ledger_uj` is what the records themselves say, None for what no record bears; `ratio` of the bill sums to 10^12 over all parts.
    """

    what: str
    key: Mapping[str, str | None]
    begin_unix_ns: int
    until_unix_ns: int
    energy_uj: int
    cost_micro: int
    ratio: int
    ledger_uj: int | None = None
    requests: int = 0
    statuses: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Bill:
    """The origin, and its parts. `from_records` says that no balance tells what was measured, so that the records are the bill."""

    energy_uj: int
    cost_micro: int
    parts: Sequence[Part]
    from_records: bool


@dataclass
class _Share:
    uj: int = 0
    worth: Fraction = Fraction(0)
    requests: int = 0
    statuses: set[str] = field(default_factory=set)


def bill(groups: Iterable[Mapping[str, Any]], by: Sequence[str], accounts: Accounts, factors: Factors, grain_s: int, since_unix_ns: int,
         until_unix_ns: int, *, spread: bool) -> Bill:
    """Of the ledger's groups and the accounts, both cut into cells of `grain_s`. Raises PriceError where a time has no price."""
    unit_prices: dict[int, Fraction] = {}

    def worth(begin_ns: int, uj: int) -> Fraction:
        if begin_ns not in unit_prices:
            unit_prices[begin_ns] = _unit_price(factors, max(begin_ns, since_unix_ns), min(begin_ns + grain_s * NS_PER_S, until_unix_ns))
        return unit_prices[begin_ns] * uj

    span_ns = max(grain_s * NS_PER_S, HOUR_NS)
    shares: defaultdict[tuple[int, tuple[str | None, ...]], _Share] = defaultdict(_Share)
    for group in groups:
        cell_ns, uj = group["interval_unix_ns"], group["energy_uj"] or 0
        share = shares[cell_ns - cell_ns % span_ns, tuple(group[name] for name in by)]
        share.uj += uj
        share.worth += worth(cell_ns, uj)
        share.requests += group["requests"]
        share.statuses.update(group["statuses"])
    from_records = not accounts.cells
    cells = accounts.cells if not from_records else {}
    pool_uj = sum(drawn.requests_uj for drawn in cells.values()) if cells else sum(share.uj for share in shares.values())
    pool_worth = (sum((worth(cell_ns, drawn.requests_uj) for cell_ns, drawn in cells.items()), Fraction(0)) if cells
                  else sum((share.worth for share in shares.values()), Fraction(0)))
    parts, values = _bearing(shares, by, pool_uj, pool_worth, span_ns, since_unix_ns, until_unix_ns)
    statuses = frozenset(map(str, accounts.statuses))
    for (what, hour_ns), (uj, value) in sorted(_remainders(cells, worth, span_ns).items()):
        parts.append(Part(what, {}, max(hour_ns, since_unix_ns), min(hour_ns + span_ns, until_unix_ns), uj, 0, 0, None, 0, statuses))
        values.append(value)
    if spread:
        parts, values = _spread(parts, values)
    costs = rounded(values)
    ratios = apportion(10 ** RATIO_DIGITS, list(map(abs, costs)))
    return Bill(sum(part.energy_uj for part in parts), sum(costs),
                [replace(part, cost_micro=cost, ratio=ratio) for part, cost, ratio in zip(parts, costs, ratios, strict=True)], from_records)


def _unit_price(factors: Factors, begin_ns: int, until_ns: int) -> Fraction:
    """Millionths of the currency for a microjoule, PUE included."""
    if factors.price is None:
        raise PriceError("no price, expected --price or --prices")
    mean = factors.price.mean(begin_ns, until_ns)
    if mean.value is None or mean.known_ns != until_ns - begin_ns:
        raise PriceError(f"no price is known for all of the time from {begin_ns} to {until_ns} (Unix ns); a bill needs one")
    return mean.value * factors.pue * MICRO / UJ_PER_KWH


def _bearing(shares: Mapping[tuple[int, tuple[str | None, ...]], _Share], by: Sequence[str], pool_uj: int, pool_worth: Fraction,
             span_ns: int, since_unix_ns: int, until_unix_ns: int) -> tuple[list[Part], list[Fraction]]:
    """What requests bear: energy by the records' energy, money by what that energy was worth, or by energy where that weighs nothing."""
    ordered = sorted(shares.items(), key=lambda item: (item[0][0], [name or "" for name in item[0][1]]))
    energies = apportion(pool_uj, [share.uj for _, share in ordered])
    if pool_uj and not any(share.uj for _, share in ordered):  # it belongs to requests whose records are not in this time
        return [Part(REQUESTS, dict.fromkeys(by), since_unix_ns, until_unix_ns, pool_uj, 0, 0)], [pool_worth]
    by_worth = [share.worth for _, share in ordered]
    can_weigh = all(worth >= 0 for worth in by_worth) and any(by_worth)  # where a price is below 0, worths could cancel
    weights = by_worth if can_weigh else [Fraction(share.uj) for _, share in ordered]
    whole = sum(weights, Fraction(0)) or Fraction(1)
    parts = [Part(REQUESTS, dict(zip(by, key, strict=True)), max(hour_ns, since_unix_ns), min(hour_ns + span_ns, until_unix_ns), uj, 0, 0,
                  share.uj, share.requests, frozenset(share.statuses))
             for ((hour_ns, key), share), uj in zip(ordered, energies, strict=True)]
    return parts, [pool_worth * weight / whole for weight in weights]


def _remainders(cells: Mapping[int, Drawn], worth: Any, span_ns: int) -> dict[tuple[str, int], tuple[int, Fraction]]:
    """What no request bears, by kind and hour."""
    found: defaultdict[tuple[str, int], tuple[int, Fraction]] = defaultdict(lambda: (0, Fraction(0)))
    for cell_ns, drawn in cells.items():
        for what, uj in ((IDLE, drawn.idle_uj), (UNATTRIBUTED, drawn.unattributed_uj), (HOST, drawn.host_uj or 0)):
            if uj:
                key = what, cell_ns - cell_ns % span_ns
                found[key] = found[key][0] + uj, found[key][1] + worth(cell_ns, uj)
    return found


def _spread(parts: list[Part], values: list[Fraction]) -> tuple[list[Part], list[Fraction]]:
    """The parts that requests bear, with the others divided among them by energy; as they are where no request bears any."""
    bearing = [i for i, part in enumerate(parts) if part.what == REQUESTS]
    weights = [parts[i].energy_uj for i in bearing]
    if not sum(weights):
        return parts, values
    rest = [i for i, part in enumerate(parts) if part.what != REQUESTS]
    extra = apportion(sum(parts[i].energy_uj for i in rest), weights)
    value = sum((values[i] for i in rest), Fraction(0))
    return ([replace(parts[i], energy_uj=parts[i].energy_uj + uj) for i, uj in zip(bearing, extra, strict=True)],
            [values[i] + value * Fraction(weight, sum(weights)) for i, weight in zip(bearing, weights, strict=True)])
