"""The Shapley value by count vectors is the Shapley value by permutations, and has its axioms."""

from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.bench.shapley import influence, normalized_l1, shapley


def by_permutations(values, full):
    """Every order of arrival of every single player, and what each adds on average."""
    players = [i for i, count in enumerate(full) for _ in range(count)]
    added, orders = [0.0] * len(full), 0
    for order in permutations(range(len(players))):
        orders += 1
        counts = [0] * len(full)
        worth = 0.0
        for player in order:
            counts[players[player]] += 1
            added[players[player]] += values[tuple(counts)] - worth
            worth = values[tuple(counts)]
    return [a / orders / count for a, count in zip(added, full, strict=True)]


@settings(max_examples=25)
@given(st.data())
def test_counting_is_the_same_as_permuting(data):
    """Two of one class and one each of two others: any worths at all give the same values both ways."""
    full = (2, 1, 1)
    values = {counts: data.draw(st.floats(0, 1000)) for counts in product(*(range(n + 1) for n in full))}
    values[(0, 0, 0)] = 0.0
    assert shapley(values, full) == pytest.approx(by_permutations(values, full), abs=1e-6)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=4), st.floats(0, 1000))
def test_a_fixed_cost_is_shared_equally_and_own_costs_are_paid(own, fixed):
    """Of a step that costs a fixed part and each member's own, everybody pays his own and an equal share of the fixed."""
    full = (1,) * len(own)
    values = {c: fixed * any(c) + sum(x * n for x, n in zip(own, c, strict=True)) for c in product((0, 1), repeat=len(own))}
    assert shapley(values, full) == pytest.approx([x + fixed / len(own) for x in own], abs=1e-6)


def test_influence_is_what_a_joule_more_does():
    """One joule more of one coalition's worth moves each value by that coalition's weight."""
    full = (2, 1)
    values = {counts: float(sum(counts)) for counts in product(range(3), range(2)) if any(counts)}
    before = shapley(values, full)
    for counts in values:
        after = shapley(values | {counts: values[counts] + 1}, full)
        assert [b - a for a, b in zip(before, after, strict=True)] == pytest.approx([w.get(counts, 0) for w in influence(full)])


def test_a_coalition_that_was_not_run_is_missed():
    """A recording that lacks one cannot give the value."""
    with pytest.raises(KeyError):
        shapley({(1, 0): 1.0, (1, 1): 3.0}, (1, 1))


def test_distance():
    """0 for the same division of different totals, 2 for two that have nothing in common."""
    assert normalized_l1([1, 3], [10, 30]) == pytest.approx(0)
    assert normalized_l1([1, 0], [0, 5]) == pytest.approx(2)
