"""What one of each amount costs in joules and takes in seconds: by physics alone, or as a calibration has measured the joules."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from perjoule.bench.estimates.boards import Boards
from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.estimates.shapes import ModelShape
from perjoule.sidecar.metering.calibration import Calibration, Version
from perjoule.sidecar.metering.prior import COMPUTE_REACHED, MEMORY_POWER, RELATIVE_SD, prior
from perjoule.sidecar.metering.terms import Terms

POWER_REACHED = 0.9  # of TDP while prompts are computed; ML.ENERGY's fullest batches draw 0.87 to 0.98 of an H100's
POWER_SD = 0.15  # of that; over all of ML.ENERGY's runs the average power is 0.27 to 0.99 of TDP, in the middle 0.71
GAIN_SD = 0.06  # how far a calibration of one day and board is off on another of the name (root mean square, docs/estimate.md)
SPEED_SD = 0.25  # of durations by physics (docs/estimate.md has what recordings show)


class Doubt(NamedTuple):
    """One source of error: a relative standard deviation of the whole, and where it comes from."""

    source: str
    relative_sd: float
    text: str


@dataclass(frozen=True, slots=True)
class Costs:
    """`joules` are above what the boards draw loaded and idle, `idle_w`; `covariance` is of the four, each relative to itself. `doubts`
    are of all of them in common. `attention` says whether a prompt's work grows with its square here, or is in what was measured."""

    joules: Terms
    seconds: Terms
    idle_w: float
    covariance: Sequence[Sequence[float]]
    doubts: tuple[Doubt, ...]
    method: str
    attention: bool

    def coefficients_sd(self, amounts: Terms) -> float:
        """Relative standard deviation of what these amounts cost above idle, as far as the coefficients are to blame."""
        parts = [amount * cost for amount, cost in zip(amounts, self.joules, strict=True)]
        whole = sum(parts)
        if whole <= 0:
            return 0.0
        return math.sqrt(max(0.0, sum(a * b * c for a, row in zip(parts, self.covariance, strict=True)
                                      for b, c in zip(parts, row, strict=True)))) / whole


def by_physics(shape: ModelShape, boards: Boards) -> Costs:
    """The sidecar's physics prior, whose unit is a prompt token, with a prompt token's seconds and watts.

    All boards of a group are taken to share the work evenly, at no loss."""
    ratio = prior(boards.name, shape.for_prior)
    busy_w = (POWER_REACHED * boards.tdp_w - boards.idle_w)
    if busy_w <= 0:
        raise EstimateError(f"got {boards.idle_w:g} W drawn idle, expected less than {POWER_REACHED:g} of the {boards.tdp_w:g} W at most")
    seconds = _seconds(shape, boards)
    joules = Terms(*(each * seconds.prefill * busy_w * boards.count for each in ratio))
    doubts = (Doubt("watts", POWER_SD, f"{POWER_REACHED:g} of TDP is drawn while prompts are computed, or so"),)
    covariance = [[RELATIVE_SD**2 * (i == j) for j in range(4)] for i in range(4)]
    return Costs(joules, seconds, boards.idle_w * boards.count, covariance, doubts, "physics", attention=True)


def by_calibration(calibration: Calibration, version: Version, boards: Boards, shape: ModelShape | None) -> Costs:
    """Joules as fitted. Computing takes as long as its joules do at nearly TDP, since watts are known better than the share of FLOP/s that
    is reached; reading takes as long as the bandwidth says where the model's shape is known, else as its joules do. Nothing is so short
    that the boards would draw more than they may. Raises EstimateError for a calibration that is not fitted."""
    if version.state != "fitted":
        raise EstimateError(f"got {version.id}, a prior, whose unit is no joule, expected a fitted calibration; --model-shape and --gpu "
                            "estimate from the same physics")
    joules, room_w = version.coefficients, (boards.tdp_w - boards.idle_w) * boards.count
    watts = max(POWER_REACHED * boards.tdp_w - boards.idle_w, 1.0) * boards.count
    wanted = Terms(*(j / w for j, w in zip(joules, (watts, watts * MEMORY_POWER, watts, watts * MEMORY_POWER), strict=True)))
    if shape is not None:
        physics = _seconds(shape, boards)
        wanted = Terms(wanted.prefill, physics.steps, wanted.decode, physics.context)
    seconds = Terms(*(max(s, j / room_w) for s, j in zip(wanted, joules, strict=True)))
    doubts = (Doubt("gain", GAIN_SD, "boards of one name and their sensors differ, from one to the next and from day to day"),
              Doubt("model", version.window_error or 0.0, "how far windows of a second were off, out of sample"))
    return Costs(joules, seconds, boards.idle_w * boards.count, calibration.relative_covariance, doubts, "calibration", attention=False)


def _seconds(shape: ModelShape, boards: Boards) -> Terms:
    """How long one of each amount takes by physics: the prior without the watts in it."""
    ratio = prior(boards.name, shape.for_prior)
    prompt_s = 2 * shape.active_parameters / (boards.flop_s * COMPUTE_REACHED * boards.count)
    return Terms(prompt_s, ratio.steps / MEMORY_POWER * prompt_s, ratio.decode * prompt_s, ratio.context / MEMORY_POWER * prompt_s)
