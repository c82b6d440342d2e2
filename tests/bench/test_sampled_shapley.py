"""Sampling finds the Shapley value, says how well, and stops when told."""

from math import factorial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.bench.sampled_shapley import FEWEST_PAIRS, value
from perjoule.bench.shapley import shapley

OWN = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.0, 5.0, 8.0]


def shared(coalition):
    """A fixed cost of 60 borne together, and each player's own."""
    return 60.0 + sum(OWN[i] for i in coalition)


def roofline(coalition):
    """As long as the floor or the sum of the work, whichever is more."""
    return max(30.0, sum(OWN[i] for i in coalition))


@settings(max_examples=20)
@given(st.integers(1, 5), st.data())
def test_few_players_are_exact(players, data):
    """Of up to eight players every coalition counts: any game has the value that summing over count vectors gives."""
    worths = data.draw(st.lists(st.floats(-10, 10), min_size=1 << players, max_size=1 << players))

    def worth(coalition):
        return worths[sum(1 << i for i in coalition)]

    counts = {tuple(int(m >> i & 1) for i in range(players)): worths[m] for m in range(1, 1 << players)}
    found = value(players, worth, Random(0))
    assert found.values == pytest.approx(shapley(counts, (1,) * players), abs=1e-9)
    assert (found.errors, found.l1_error, found.pairs) == ([0.0] * players, 0.0, 0)


def test_more_players_are_sampled_around_the_truth():
    """Twelve players with a shared 60 pay 5 each and their own, within what the standard errors allow."""
    found = value(len(OWN), shared, Random(1), error=0.02)
    assert sum(found.values) == pytest.approx(shared(range(len(OWN))))
    for got, own, error in zip(found.values, OWN, found.errors, strict=True):
        assert abs(got - (own + 5)) < 4 * error + 1e-9


def test_the_standard_error_is_what_repeats_spread():
    """Over many seeds, the mean distance from the truth is the expected one that each estimate states, within a third."""
    seeds, distance, said = 40, 0.0, 0.0
    full = roofline(range(len(OWN)))
    by_all = all_coalitions(len(OWN), roofline)
    for seed in range(seeds):
        found = value(len(OWN), roofline, Random(seed), error=0.0, most_pairs=60)
        distance += sum(abs(a - b) for a, b in zip(found.values, by_all, strict=True)) / full
        said += found.l1_error
    assert 0.67 < distance / said < 1.5


def all_coalitions(players, worth):
    """By the definition."""
    values = [0.0] * players
    for others in range(1 << players):
        size = others.bit_count()
        members = [i for i in range(players) if others >> i & 1]
        for i in set(range(players)) - set(members):
            weight = factorial(size) * factorial(players - size - 1) / factorial(players)
            values[i] += weight * (worth([*members, i]) - (worth(members) if members else 0.0))
    return values


def test_a_smaller_error_takes_more_pairs_and_is_kept():
    """The estimate stops at the error asked for, after no fewer pairs than a spread needs, and no more than allowed."""
    rough, fine = (value(len(OWN), roofline, Random(3), error=error) for error in (0.5, 0.01))
    assert rough.pairs == FEWEST_PAIRS
    assert fine.pairs > rough.pairs
    assert fine.l1_error <= 0.01
    assert value(len(OWN), roofline, Random(3), error=0.0, most_pairs=11).pairs == 11


def test_no_coalition_is_run_twice():
    """A run is dear: each set of players is asked for once, whatever the number of permutations it is in."""
    asked = []

    def worth(coalition):
        asked.append(coalition)
        return shared(coalition)

    value(9, worth, Random(5), error=0.0, most_pairs=200)
    assert len(asked) == len(set(asked)) < 2 ** 9


def test_a_game_alike_takes_the_sampling_off():
    """Beside a game whose value is known, only the difference is sampled: none is left if they are the same, and else fewer pairs."""
    equal = [own + 60.0 / len(OWN) for own in OWN]
    same = value(len(OWN), shared, Random(3), alike=(shared, equal))
    assert same.values == pytest.approx(equal)
    assert (same.pairs, same.l1_error) == (FEWEST_PAIRS, 0.0)

    def nearly(coalition):
        return shared(coalition) + 0.1 * roofline(coalition)

    near, alone = (value(len(OWN), nearly, Random(3), error=0.005, alike=alike) for alike in ((shared, equal), None))
    assert near.pairs < alone.pairs
    assert near.values == pytest.approx(all_coalitions(len(OWN), nearly), rel=0.05)
