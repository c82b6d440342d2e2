"""Four coefficients out of a stream of blocks: regression with a prior, forgetting, and a limit to what one block can do.

Everything is in the prior's units: an amount times its prior coefficient. The prior then says that all four numbers are equal,
each within its standard deviation, and nothing about their scale, which is one free number. A block's noise has a variance in
proportion to its energy, whose factor is estimated from the blocks; that they are not independent is estimated and allowed for.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from itertools import combinations
from typing import Any

SUMS = ("square", "product", "blocks", "energy_j", "error2", "error2_lagged", "last")

Vector = list[float]
Matrix = list[list[float]]

ALL = (0, 1, 2, 3)
FLOOR = 0.01  # of the common scale: no coefficient is lower, so that a relative error means something
HUBER = 2.5  # standard deviations from which on a block's pull grows no more
WORST = 0.1  # relative residual that is expected before anything has been learned
WORST_BLOCKS = 3.0  # what that expectation weighs


class Fit:
    """The sums that the four numbers follow from. `theta` are the numbers, `covariance` theirs."""

    def __init__(self, prior_sd: float) -> None:
        self.prior_sd = prior_sd
        self.square: Matrix = [[0.0] * 4 for _ in ALL]  # sum of amounts · amounts / energy
        self.product: Vector = [0.0] * 4  # sum of amounts, which is sum of amounts · energy / energy
        self.blocks = 0.0  # effective: what was forgotten does not count
        self.energy_j = 0.0
        self.error2 = 0.0  # sum of squared residuals over energy, in joules
        self.error2_lagged = 0.0  # of each residual with the next one
        self.last = 0.0
        self.solve()

    def predicted_j(self, x: Sequence[float]) -> float | None:
        """The energy of a block, None before any has been learned."""
        return _dot(self.theta, x) if self.blocks else None

    def learn(self, x: Sequence[float], energy_j: float, keep: float) -> float:
        """Take a block, after forgetting all but `keep` of what was. Answers how many standard deviations it was off."""
        predicted_j = _dot(self.theta, x) if self.blocks else energy_j
        scale_j = max(predicted_j, energy_j / 10, 1e-9)  # of its variance; the measured energy would favour the low ones
        residual = (energy_j - predicted_j) / math.sqrt(scale_j)
        z = residual / math.sqrt(self.variance_j) if self.blocks else 0.0
        pull = 1.0 if abs(z) <= HUBER else HUBER / abs(z)
        weight = pull / scale_j
        for i, row in enumerate(self.square):
            xi = x[i] * weight
            for j in ALL:
                row[j] = row[j] * keep + xi * x[j]
            self.product[i] = self.product[i] * keep + xi * energy_j
        bounded = residual * math.sqrt(pull)
        if self.blocks:
            self.error2 = self.error2 * keep + bounded * bounded
            self.error2_lagged = self.error2_lagged * keep + bounded * self.last
            self.last = bounded
        self.blocks = self.blocks * keep + 1.0
        self.energy_j = self.energy_j * keep + energy_j
        self.solve()
        return z

    @property
    def variance_j(self) -> float:
        """A block's variance over its energy, in joules."""
        mean_j = self.energy_j / self.blocks if self.blocks else 1.0
        return (self.error2 + WORST_BLOCKS * WORST * WORST * mean_j) / (self.blocks + WORST_BLOCKS) + 1e-12

    def solve(self) -> None:
        """The minimum of misfit and distance from the prior, no coefficient below the floor."""
        self.theta, self.covariance = [1.0] * 4, [[self.prior_sd**2 * (i == j) for j in ALL] for i in ALL]
        whole = sum(map(sum, self.square))
        if not self.blocks or whole <= 0.0:
            return
        scale = sum(self.product) / whole  # the prior's shape fitted with one number
        variance_j = self.variance_j * self._correlation()
        pull = variance_j / (self.prior_sd * scale) ** 2  # each number towards the mean of all
        normal = [[a + pull * ((i == j) - 0.25) for j, a in enumerate(row)] for i, row in enumerate(self.square)]
        self.theta = _bounded(normal, self.product, FLOOR * scale)
        inverse = _inverse(normal)
        self.covariance = [[variance_j * a for a in row] for row in inverse]

    def as_json(self) -> dict[str, Any]:
        """The sums."""
        return {name: deepcopy(getattr(self, name)) for name in SUMS}

    @classmethod
    def from_json(cls, value: Any, prior_sd: float) -> "Fit":
        """What `as_json` gave. Raises ValueError that says what was got and what was expected."""
        made = cls(prior_sd)
        if not isinstance(value, dict) or value.keys() != set(SUMS):
            raise ValueError(f"fit: got {value!r}, expected an object with {', '.join(SUMS)}")
        for name in SUMS:
            if not _is_like(value[name], getattr(made, name)):
                raise ValueError(f"fit: {name}: got {value[name]!r}, expected finite numbers shaped like {getattr(made, name)}")
            setattr(made, name, value[name])
        try:
            made.solve()
        except ArithmeticError as error:
            raise ValueError(f"fit: got sums that have no solution ({error}), expected those of a regression") from error
        if min(made.blocks, made.energy_j, made.error2, *made.theta, *(row[i] for i, row in enumerate(made.covariance))) < 0.0:
            raise ValueError("fit: got a negative sum or variance, expected none")
        return made

    def _correlation(self) -> float:
        """By how much the variance of a mean of blocks is larger than that of independent ones (lag one, AR(1))."""
        if self.blocks < 10 or self.error2 <= 0.0:
            return 1.0
        rho = min(max(self.error2_lagged / self.error2, 0.0), 0.8)
        return (1 + rho) / (1 - rho)


def _is_like(value: Any, example: Any) -> bool:
    """Whether it is a finite number where the example is one, and a list of as many such things where that is a list."""
    if isinstance(example, list):
        return isinstance(value, list) and len(value) == len(example) and all(map(_is_like, value, example))
    return isinstance(value, float) and math.isfinite(value)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]


def _inverse(matrix: Matrix) -> Matrix:
    """Of a symmetric positive definite matrix (Gauss-Jordan, no pivoting needed)."""
    size = len(matrix)
    left = [[*row, *(float(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for k in range(size):
        top = left[k]
        pivot = 1.0 / top[k]
        top[:] = [a * pivot for a in top]
        for i, row in enumerate(left):
            factor = row[k]
            if i != k and factor:
                row[:] = [a - factor * b for a, b in zip(row, top, strict=True)]
    return [row[size:] for row in left]


def _bounded(matrix: Matrix, right: Vector, floor: float) -> Vector:
    """Minimizes x·Mx/2 - right·x where no x is below `floor`: exact, by all sets of coefficients that can lie on the floor."""
    best, least = [floor] * 4, math.inf
    for held in range(5):
        for fixed in combinations(ALL, held):
            free = [i for i in ALL if i not in fixed]
            x = [floor] * 4
            if free:
                inverse = _inverse([[matrix[i][j] for j in free] for i in free])
                rest = [right[i] - floor * sum((matrix[i][j] for j in fixed), 0.0) for i in free]
                for i, row in zip(free, inverse, strict=True):
                    x[i] = sum((a * b for a, b in zip(row, rest, strict=True)), 0.0)
            if min(x) < floor * 0.999999:
                continue
            if not fixed:
                return x
            value = sum((x[i] * (_dot(matrix[i], x) / 2 - right[i]) for i in ALL), 0.0)
            if value < least:
                best, least = x, value
    return best
