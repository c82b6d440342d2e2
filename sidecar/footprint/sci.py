"""Software Carbon Intensity (ISO/IEC 21031:2024): ((E × I) + M) per R, where M is what making the hardware emitted, and R what was served.

Units of SCI for AI: a token, an image, a second of video. What is not known stays null, with a reason: without M there is no SCI, only its
operational part.
"""

from dataclasses import dataclass
from fractions import Fraction

NS_PER_YEAR = 31_557_600 * 1_000_000_000  # 365.25 days


@dataclass(frozen=True, slots=True)
class Embodied:
    """What making the hardware emitted, in grams, and for how long it is used: M is the part of that time that is looked at."""

    grams: Fraction
    lifetime_years: Fraction

    def over(self, span_ns: int) -> Fraction:
        """M = TE × TS, with TS the time reserved over the expected lifespan; all of the hardware is taken to be reserved."""
        return self.grams * span_ns / (self.lifetime_years * NS_PER_YEAR)


@dataclass(frozen=True, slots=True)
class Score:
    """Grams for each unit: `sci_g`, and of it the operational part E × I / R. `reason` says why one of them is None."""

    unit: str
    count: int | None
    operational_g: Fraction | None
    sci_g: Fraction | None
    reason: str | None


def score(unit: str, count: int | None, operational_micro_g: int | None, embodied_g: Fraction | None) -> Score:
    """The score of what emitted so many millionths of a gram in serving `count` units."""
    if not count:
        return Score(unit, count, None, None, f"the number of {unit}s is not known, or is 0")
    operational_g = None if operational_micro_g is None else Fraction(operational_micro_g, 1_000_000) / count
    if operational_g is None:
        return Score(unit, count, None, None, "no carbon intensity is known for any of the energy")
    if embodied_g is None:
        return Score(unit, count, operational_g, None, "embodied emissions are not given")
    return Score(unit, count, operational_g, operational_g + embodied_g / count, None)
