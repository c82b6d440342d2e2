"""Energy, money and carbon of groups of requests over a time, in whole numbers that add up to the whole, however it is grouped.

Joules are the ledger's. Factors multiply them here, and nowhere else: PUE, the price of a kWh, the carbon intensity of the grid, each as it
was at that time.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, NamedTuple

from perjoule.sidecar.footprint.carbon import Grid
from perjoule.sidecar.footprint.prices import Price
from perjoule.sidecar.footprint.remainder import Accounts
from perjoule.sidecar.footprint.steps import Mean
from perjoule.sidecar.metering.attribution import apportion
from perjoule.sidecar.units import J_PER_KWH, NS_PER_S, UJ_PER_J

UJ_PER_KWH = J_PER_KWH * UJ_PER_J
MICRO = 1_000_000
HOUR_S, MINUTE_S = 3_600, 60
REQUESTS, IDLE, UNATTRIBUTED, HOST = "requests", "idle", "unattributed", "host"
REMAINDERS = (IDLE, UNATTRIBUTED, HOST)


@dataclass(frozen=True)
class Factors:
    """What joules are multiplied by: `pue` on everything, `price` for money, `grids` for carbon. Nothing has a value unless it is given."""

    pue: Fraction = Fraction(1)
    price: Price | None = None
    currency: str | None = None
    grids: Sequence[Grid] = ()

    @property
    def grain_s(self) -> int:
        """How finely time must be cut for the factors: into hours where they change on full hours only, else into minutes."""
        series = [*(grid.grams_per_kwh for grid in self.grids), *filter(None, [self.price])]
        return HOUR_S if all(each.is_hourly() for each in series) else MINUTE_S


class Amount(NamedTuple):
    """Money or carbon in millionths of its unit, None where there is energy and no factor for any of it; `known_uj` has one."""

    micro: int | None
    known_uj: int


@dataclass
class Line:
    """One group of requests, or one kind of energy that no request bears. `amounts` are in the order of `Statement.names`."""

    what: str
    key: Mapping[str, str | None]
    requests: int = 0
    with_energy: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    energy_uj: int | None = None
    spread_uj: int = 0  # of energy_uj, its part of what no request bears
    statuses: set[str] = field(default_factory=set)
    amounts: list[Amount] = field(default_factory=list)
    sums: list[Counter[int]] = field(default_factory=list)  # while it is added up: for each amount, the energy at each value


@dataclass(frozen=True)
class Statement:
    """Lines, and the whole they add up to. `names` says what the amounts are: "cost", then the name of each grid."""

    lines: Sequence[Line]
    total: Line
    names: Sequence[str]


def statement(groups: Iterable[Mapping[str, Any]], by: Sequence[str], accounts: Accounts, factors: Factors, grain_s: int,
              since_unix_ns: int, until_unix_ns: int) -> Statement:
    """Of the ledger's groups, cut into intervals of `grain_s`, and of the accounts cut alike."""
    series = [_Series(factors.price.mean, factors.pue)] if factors.price is not None else []
    series += [_Series(grid.grams_per_kwh.mean, factors.pue) for grid in factors.grids]
    names = ["cost"] * (factors.price is not None) + [grid.name for grid in factors.grids]
    lines: dict[tuple[str | None, ...], Line] = {}
    held: dict[int, list[int]] = {}

    def of_line(what: str, key: Mapping[str, str | None]) -> Line:
        name = (what, *key.values())
        if name not in lines:
            lines[name] = Line(what, key, sums=[Counter() for _ in series])
        return lines[name]

    def add(line: Line, begin_ns: int, uj: int | None) -> None:
        if uj is None:
            return
        line.energy_uj = (line.energy_uj or 0) + uj
        if begin_ns not in held:
            start, end = max(begin_ns, since_unix_ns), min(begin_ns + grain_s * NS_PER_S, until_unix_ns)
            held[begin_ns] = [each.number(start, end) for each in series]
        for sums, number in zip(line.sums, held[begin_ns], strict=True):
            sums[number] += uj

    for group in groups:
        line = of_line(REQUESTS, {name: group[name] for name in by})
        _count(line, group)
        add(line, group["interval_unix_ns"], group["energy_uj"])
    for begin_ns, drawn in sorted(accounts.cells.items()):
        for what, uj in ((IDLE, drawn.idle_uj), (UNATTRIBUTED, drawn.unattributed_uj), (HOST, drawn.host_uj)):
            line = of_line(what, {})
            add(line, begin_ns, uj)
            line.statuses |= {str(status) for status in accounts.statuses} if what != HOST else set()
    found = [line for line in lines.values() if line.what == REQUESTS or line.energy_uj is not None]
    total = _whole(found)
    for number, each in enumerate(series):
        _round(found, total, [each.come_to(line.sums[number]) for line in found])
    return Statement(found, total, names)


def spread(made: Statement) -> Statement:
    """The same whole with what no request bears divided among the groups, in proportion to their energy; itself where none has any."""
    bearing = [replace(line, amounts=list(line.amounts)) for line in made.lines if line.what == REQUESTS]
    rest = [line for line in made.lines if line.what != REQUESTS]
    weights = [line.energy_uj or 0 for line in bearing]
    if not sum(weights):
        return made
    for line, part_uj in zip(bearing, _signed(sum(line.energy_uj or 0 for line in rest), weights), strict=True):
        if line.energy_uj is not None:
            line.energy_uj += part_uj
            line.spread_uj = part_uj
    for number, amounts in enumerate(zip(*(line.amounts for line in rest), strict=True)):
        micros = _signed(sum(amount.micro or 0 for amount in amounts), weights)
        known_uj = _signed(sum(amount.known_uj for amount in amounts), weights)
        for line, micro, uj in zip(bearing, micros, known_uj, strict=True):
            had = line.amounts[number]
            is_known = had.micro is not None or uj != 0
            line.amounts[number] = Amount((had.micro or 0) + micro if is_known else None, had.known_uj + uj)
    return Statement(bearing, made.total, made.names)


def rounded(values: Sequence[Fraction]) -> list[int]:
    """Whole numbers that add up to the rounded sum, each less than one from its value (largest remainder; ties to the earlier)."""
    parts = [value.__floor__() for value in values]
    left = round(sum(values, Fraction(0))) - sum(parts)
    by_remainder = sorted(range(len(values)), key=lambda i: values[i] - parts[i], reverse=True)
    for i in by_remainder[:left]:
        parts[i] += 1
    return parts


def _count(line: Line, group: Mapping[str, Any]) -> None:
    line.requests += group["requests"]
    line.with_energy += group["with_energy"]
    line.input_tokens = _total((line.input_tokens, group["input_tokens"]))
    line.output_tokens = _total((line.output_tokens, group["output_tokens"]))
    line.statuses.update(group["statuses"])


def _whole(lines: Sequence[Line]) -> Line:
    """What lines count and draw together."""
    whole = Line("total", {})
    for line in lines:
        whole.requests += line.requests
        whole.with_energy += line.with_energy
        whole.input_tokens = _total((whole.input_tokens, line.input_tokens))
        whole.output_tokens = _total((whole.output_tokens, line.output_tokens))
        whole.energy_uj = _total((whole.energy_uj, line.energy_uj))
        whole.statuses |= line.statuses
    return whole


class _Series:
    """A factor over time; stretches at which it has the same value are one, so that a long time is a sum of few products."""

    def __init__(self, mean: Callable[[int, int], Mean], pue: Fraction) -> None:
        self._mean, self._pue = mean, pue
        self._numbers: dict[tuple[Fraction | None, Fraction], int] = {}

    def number(self, begin_unix_ns: int, until_unix_ns: int) -> int:
        """Of its value over a stretch, and of how much of that is known."""
        value, known_ns = self._mean(begin_unix_ns, until_unix_ns)
        return self._numbers.setdefault((value, Fraction(known_ns, until_unix_ns - begin_unix_ns)), len(self._numbers))

    def come_to(self, energies_uj: Mapping[int, int]) -> tuple[Fraction, Fraction]:
        """Millionths of what these energies come to, by number, and of how much energy that is."""
        micro, known_uj = Fraction(0), Fraction(0)
        for (value, part), number in self._numbers.items():
            uj = energies_uj.get(number, 0) * part
            known_uj += uj
            micro += uj * (value or 0)
        return micro * self._pue * MICRO / UJ_PER_KWH, known_uj


def _round(lines: Sequence[Line], total: Line, sums: Sequence[tuple[Fraction, Fraction]]) -> None:
    """One amount of every line, so that they add up. Nothing times anything is 0, also where the factor is not known."""
    micros = rounded([micro for micro, _ in sums])
    known_uj = rounded([uj for _, uj in sums])
    for line, (_, exact_uj), micro, uj in zip(lines, sums, micros, known_uj, strict=True):
        line.amounts.append(Amount(micro if exact_uj or line.energy_uj == 0 else None, uj))
    whole_is_known = total.energy_uj == 0 or any(exact_uj for _, exact_uj in sums)
    total.amounts.append(Amount(sum(micros) if whole_is_known else None, sum(known_uj)))


def _signed(amount: int, weights: Sequence[int]) -> list[int]:
    """`apportion`, also of an amount below 0: a price may be."""
    return [part if amount >= 0 else -part for part in apportion(abs(amount), weights)]


def _total(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
