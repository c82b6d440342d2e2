"""The Shapley value of any game: by all coalitions where they are few, else by permutations until the error is small enough.

A permutation lets the players come one after another and gives each what it adds; the mean over permutations is the value (Castro,
Gómez, Tejada 2009). Two things make the mean settle sooner: each permutation is taken together with its reverse, in which who came
early comes late (Mitchell et al. 2022), and what a k-th comer adds on average, whoever it is, is taken out, since all players get
the same of that: with much shared cost most of the spread is who came first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import factorial, pi, sqrt
from random import Random

EXACT_UP_TO = 8  # players: 256 coalitions
FEWEST_PAIRS = 8  # whose spread is a standard error that means something
MOST_PAIRS = 2000

Worth = Callable[[tuple[int, ...]], float]  # of a coalition, its players in rising order; never asked for the empty one


@dataclass(frozen=True, slots=True)
class Estimate:
    """The value of each player and its standard error, 0 where all coalitions were summed; the values sum to the whole exactly."""

    values: list[float]
    errors: list[float]
    pairs: int = 0

    @property
    def l1_error(self) -> float:
        """The expected normalized L1 distance from the true value, if errors are normal."""
        return sqrt(2 / pi) * sum(self.errors) / abs(sum(self.values)) if any(self.errors) else 0.0


def value(players: int, worth: Worth, random: Random, *, error: float = 0.005, most_pairs: int = MOST_PAIRS,
          alike: tuple[Worth, Sequence[float]] | None = None) -> Estimate:
    """The Shapley value; of more than `EXACT_UP_TO` players, sampled until `l1_error` is at most `error`, or for `most_pairs`.
    Each coalition is asked for once. `alike` is a game like this one with its value, if one is known: then only the difference
    has to be sampled (the value is additive), which settles the sooner the more alike they are."""
    other, known = alike or ((lambda _: 0.0), [0.0] * players)
    worths: dict[int, float] = {0: 0.0}

    def of(coalition: int) -> float:
        if coalition not in worths:
            members = tuple(i for i in range(players) if coalition >> i & 1)
            worths[coalition] = worth(members) - other(members)
        return worths[coalition]

    if players <= EXACT_UP_TO:
        return Estimate([_exact(players, i, of) + known[i] for i in range(players)], [0.0] * players)
    pairs: list[tuple[list[int], list[float], list[float]]] = []
    while True:
        order = list(range(players))
        random.shuffle(order)
        pairs.append((order, _added(order, of), _added(order[::-1], of)))
        if len(pairs) >= FEWEST_PAIRS:
            estimate = _estimate(pairs, known)
            if estimate.l1_error <= error or len(pairs) >= most_pairs:
                return estimate


def _estimate(pairs: Sequence[tuple[list[int], list[float], list[float]]], known: Sequence[float]) -> Estimate:
    players, many = len(pairs[0][0]), len(pairs)
    comers = [sum(one[order[k]] + other[order[-1 - k]] for order, one, other in pairs) / (2 * many) for k in range(players)]
    equal = sum(comers) / players
    sums, squares = [0.0] * players, [0.0] * players
    for order, one, other in pairs:
        for k, i in enumerate(order):
            mean = equal + (one[i] - comers[k] + other[i] - comers[-1 - k]) / 2
            sums[i] += mean
            squares[i] += mean ** 2
    means = [total / many for total in sums]
    values = [mean + value for mean, value in zip(means, known, strict=True)]
    spreads = [max(0.0, square / many - mean ** 2) for mean, square in zip(means, squares, strict=True)]
    return Estimate(values, [sqrt(spread / (many - 1)) for spread in spreads], many)


def _added(order: Sequence[int], of: Callable[[int], float]) -> list[float]:
    """What each player adds when they come in this order."""
    added, coalition = [0.0] * len(order), 0
    for player in order:
        grown = coalition | 1 << player
        added[player] = of(grown) - of(coalition)
        coalition = grown
    return added


def _exact(players: int, i: int, of: Callable[[int], float]) -> float:
    total = 0.0
    for others in range(1 << players):
        if not others >> i & 1:
            size = others.bit_count()
            total += factorial(size) * factorial(players - size - 1) * (of(others | 1 << i) - of(others))
    return total / factorial(players)
