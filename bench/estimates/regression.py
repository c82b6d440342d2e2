"""Energy per response across models and GPUs, by a regression on public numbers, after "From Prompts to Power" (arXiv 2511.05597).

Ridge regression of logarithms: parameters, active parameters, bytes of a weight, mean prompt and answer, batch, the GPUs' bandwidth, FLOP/s
and TDP. Twice: of the joules as in the paper, and of what they are beside those of physics. What either is worth is told by leaving each
model out in turn and predicting it from the others, and the better one is taken.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.boards import Boards
from perjoule.bench.estimates.costs import Doubt
from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.estimates.estimate import Estimate
from perjoule.bench.estimates.rows import Row, features_of
from perjoule.bench.estimates.shapes import ModelShape

MODELS = 3  # fewer tell nothing of a model that was not there
RIDGE = 0.1  # of the rows' number; features have a standard deviation of one
LEAST_SPREAD = 1e-9


@dataclass(frozen=True, slots=True)
class Fitted:
    """Standardized ridge regression, of joules, or with `beside_physics` of joules over those of physics. `errors` are of each row's
    logarithm, predicted without any row of its model; `rival` is the relative standard deviation of the other of the two."""

    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    beside_physics: bool
    models: tuple[str, ...] = ()
    errors: tuple[float, ...] = ()
    rival: float = math.inf

    def energy(self, features: Sequence[float], physics: float) -> float:
        """The logarithm of joules a response, `physics` being what physics says of it."""
        found = self.intercept + sum(w * (x - m) / s for w, x, m, s in zip(self.weights, features, self.means, self.scales, strict=True))
        return found + physics if self.beside_physics else found

    @property
    def relative_sd(self) -> float:
        """Root mean square of the errors, as of a logarithm."""
        return math.sqrt(fmean(error**2 for error in self.errors))

    @property
    def median_error(self) -> float:
        """Median of |predicted / measured - 1| over rows of models left out."""
        return median(abs(math.exp(error) - 1) for error in self.errors)


def fit(rows: Sequence[Row]) -> Fitted:
    """The better of both regressions over all rows. Raises EstimateError for rows of fewer than `MODELS` models."""
    models = sorted({row.model for row in rows})
    if len(models) < MODELS:
        raise EstimateError(f"--regression: got valid results of {len(models)} models ({', '.join(models) or 'none'}), expected at least "
                            f"{MODELS}: with fewer, nothing tells what it is worth for another one")
    found = sorted((cross_validated(rows, beside_physics=kind) for kind in (True, False)), key=lambda each: each.relative_sd)
    return replace(found[0], rival=found[1].relative_sd)


def cross_validated(rows: Sequence[Row], *, beside_physics: bool) -> Fitted:
    """One regression over all rows, with the error of each row by a fit without its model."""
    errors: dict[int, float] = {}
    for model in {row.model for row in rows}:
        others = _ridge([row for row in rows if row.model != model], beside_physics)
        errors |= {i: others.energy(row.features, row.physics) - row.energy for i, row in enumerate(rows) if row.model == model}
    return replace(_ridge(rows, beside_physics), models=tuple(sorted({row.model for row in rows})),
                   errors=tuple(errors[i] for i in range(len(rows))))


def by_regression(asked: Sequence[Asked], fitted: Fitted, physics: Estimate, shape: ModelShape, boards: Boards) -> Estimate:
    """Joules of the mean request by the regression, times the requests; who of them takes how much, the batch and the duration are those of
    physics, but no shorter than TDP allows."""
    count = len(asked)
    mean = (sum(one.prompt for one in asked) / count, sum(one.output for one in asked) / count)
    mean_j = physics.energy_j / count
    energy_j = count * math.exp(fitted.energy(features_of(shape, boards, *mean, physics.batch), math.log(mean_j)))
    scale = energy_j / sum(physics.requests_j)
    doubt = Doubt("regression", fitted.relative_sd, f"each of {len(fitted.models)} models left out, and told from the others "
                  f"(half of the rows are within {fitted.median_error:.0%})")
    return Estimate("regression", energy_j, {"attributed_j": energy_j, "idle_j": 0.0}, tuple(each * scale for each in physics.requests_j),
                    max(physics.duration_s, energy_j / (boards.tdp_w * boards.count)), physics.batch, (doubt,), asked)


def _ridge(rows: Sequence[Row], beside_physics: bool) -> Fitted:
    columns = list(zip(*(row.features for row in rows), strict=True))
    means = tuple(map(fmean, columns))
    spreads = [math.sqrt(fmean((x - m) ** 2 for x in column)) for column, m in zip(columns, means, strict=True)]
    scales = tuple(spread if spread > LEAST_SPREAD else 1.0 for spread in spreads)  # what never differs gets no weight
    scaled = [[(x - m) / s for x, m, s in zip(row.features, means, scales, strict=True)] for row in rows]
    wanted = [row.energy - row.physics if beside_physics else row.energy for row in rows]
    middle, size = fmean(wanted), len(columns)
    square = [[sum(each[i] * each[j] for each in scaled) + RIDGE * len(rows) * (i == j) for j in range(size)] for i in range(size)]
    right = [sum(each[i] * (y - middle) for each, y in zip(scaled, wanted, strict=True)) for i in range(size)]
    return Fitted(means, scales, tuple(_solved(square, right)), middle, beside_physics)


def _solved(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """Of a symmetric positive definite matrix, by elimination."""
    rows = [[*row, b] for row, b in zip(matrix, right, strict=True)]
    for k, top in enumerate(rows):
        for row in rows[k + 1:]:
            factor = row[k] / top[k]
            row[k:] = [a - factor * b for a, b in zip(row[k:], top[k:], strict=True)]
    found = [0.0] * len(rows)
    for k in reversed(range(len(rows))):
        found[k] = (rows[k][-1] - sum(rows[k][j] * found[j] for j in range(k + 1, len(rows)))) / rows[k][k]
    return found
