"""The Shapley value of a game whose coalitions were all run: what each player's fair share of the joules is.

Players of one class are the same request sent at the same time, hence symmetric: a coalition is a vector of counts, and the value
of one player of a class is a sum over the count vectors of the others (Shapley 1953; the multiplicities are binomial).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import comb, factorial

Counts = tuple[int, ...]


def shapley(values: Mapping[Counts, float], full: Counts) -> list[float]:
    """The value of one player of each class. `values` holds every count vector up to `full`; the empty one is worth 0.
    Raises KeyError for a coalition that was not run."""
    return [sum(weight * values[counts] for counts, weight in weights.items()) for weights in influence(full)]


def influence(full: Counts) -> list[dict[Counts, float]]:
    """What one joule more of each coalition's worth adds to the value of one player, for each class: the value is linear in it."""
    players, found = sum(full), []
    for i in range(len(full)):
        weights: dict[Counts, float] = defaultdict(float)
        for others, weight in _others(full, i, players):
            weights[_plus(others, i)] += weight
            if any(others):
                weights[others] -= weight
        found.append(dict(weights))
    return found


def _others(full: Counts, i: int, players: int) -> Iterator[tuple[Counts, float]]:
    """Every count vector without one player of class `i`, and the chance that exactly these come before him."""
    rest = [count - (j == i) for j, count in enumerate(full)]
    for counts in product(*(range(count + 1) for count in rest)):
        ways, size = 1, sum(counts)
        for of, chosen in zip(rest, counts, strict=True):
            ways *= comb(of, chosen)
        yield counts, ways * factorial(size) * factorial(players - size - 1) / factorial(players)


def _plus(counts: Counts, i: int) -> Counts:
    return tuple(count + (j == i) for j, count in enumerate(counts))


def normalized_l1(charged: Sequence[float], fair: Sequence[float]) -> float:
    """The distance between two divisions of a whole: sum of |share - share|, 0 for the same, 2 at most."""
    a, b = sum(charged), sum(fair)
    return sum(abs(x / a - y / b) for x, y in zip(charged, fair, strict=True))
