"""The carbon intensity of a grid: whose number it is, for which time, average or marginal, and what it comes to in mg for a kWh."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from enum import StrEnum
from fractions import Fraction

from perjoule.sidecar.footprint.steps import Step, Steps

GRAMS_PER_POUND = Decimal("453.59237")  # exactly, by definition
UNITS = {"gCO2eq/kWh": Decimal(1), "kgCO2eq/MWh": Decimal(1), "gCO2/kWh": Decimal(1), "lbs_co2_per_mwh": GRAMS_PER_POUND / 1000}
"""Grams in a kWh, for each unit that a source may speak in. CO2eq counts other gases, too; CO2 does not."""
MOST_G_PER_KWH = 100_000  # more is a mistake of unit


class Kind(StrEnum):
    """Which question an intensity answers. Their numbers are never mixed."""

    AVERAGE = "average"  # what was emitted for each kWh of the grid: for accounts
    MARGINAL = "marginal"  # what one kWh more would have emitted: for decisions


@dataclass(frozen=True, slots=True)
class Intensity:
    """One value of one source, as it was told (`value` in `unit`), for [start, end); `mg_per_kwh` is the same to the next mg."""

    source: str
    zone: str
    kind: Kind
    begin_unix_ns: int
    until_unix_ns: int
    value: str
    unit: str
    mg_per_kwh: int
    estimated: bool | None = None  # whether the source itself calls it an estimate, None where it does not say

    @property
    def gas(self) -> str:
        """What is counted."""
        return "CO2eq" if "CO2eq" in self.unit else "CO2"


def intensity(source: str, zone: str, kind: Kind, begin_unix_ns: int, until_unix_ns: int, value: Decimal, unit: str,
              estimated: bool | None = None) -> Intensity:
    """The intensity that a source has told. Raises ValueError for one that cannot be."""
    if unit not in UNITS:
        raise ValueError(f"got the unit {unit!r}, expected one of {', '.join(UNITS)}")
    if not value.is_finite() or not 0 <= value * UNITS[unit] <= MOST_G_PER_KWH or until_unix_ns <= begin_unix_ns:
        raise ValueError(f"got {value} {unit} from {begin_unix_ns} to {until_unix_ns}, expected 0 to {MOST_G_PER_KWH} g/kWh over some time")
    mg = (value * UNITS[unit] * 1000).quantize(Decimal(1), ROUND_HALF_EVEN)
    return Intensity(source, zone, kind, begin_unix_ns, until_unix_ns, str(value), unit, int(mg), estimated)


@dataclass(frozen=True)
class Grid:
    """All that one source has said of one zone: grams for a kWh over time. `name` tells it from the others."""

    kind: Kind
    gas: str
    source: str
    name: str
    grams_per_kwh: Steps


def grids(intensities: Iterable[Intensity]) -> list[Grid]:
    """One for each kind, gas, source and zone, average first: what two sources say of one time is not one number."""
    found: dict[tuple[Kind, str, str], list[Intensity]] = {}
    for each in intensities:
        found.setdefault((each.kind, each.gas, f"{each.source} {each.zone}".strip()), []).append(each)
    alike = Counter((kind, gas) for kind, gas, _ in found)
    return [Grid(kind, gas, source, f"{kind} {gas}" + (f" ({source})" if alike[kind, gas] > 1 else ""),
                 Steps(Step(each.begin_unix_ns, each.until_unix_ns, Fraction(each.mg_per_kwh, 1000)) for each in told))
            for (kind, gas, source), told in sorted(found.items())]
