"""Of repeats the median one stands for their configuration, whatever came by luck."""

from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.board.repeats import METRIC, standing
from tests.bench.board.made import invalid, result


def repeat(energy, seed=1, **changed):
    found = result(seed=seed, **changed)
    found["metrics"][METRIC]["value"] = energy
    return found


def test_the_median_of_three_stands_for_them():
    """Seeds differ, and the schedules that came of them; another load is another configuration."""
    found = standing([repeat(0.30, 1), repeat(0.25, 2), repeat(0.28, 3), repeat(0.20, 1, concurrency=128)])
    assert [one["stands"] for one in found] == [False, False, True, True]
    assert [one["repeats"] for one in found] == [3, 3, 3, 1]


def test_of_two_the_greater_stands():
    """Never the better one of two."""
    assert [one["stands"] for one in standing([repeat(0.30, 1), repeat(0.25, 2)])] == [True, False]


def test_what_is_not_valid_or_not_known_is_no_repeat():
    """It counts for nothing, and stands for nothing; nor are two runs alike of which nobody knows what they did."""
    strange, unknown, other = invalid(repeat(0.1, 2)), repeat(None, 3), [repeat(energy, seed) for seed, energy in ((4, 0.4), (5, 0.5))]
    for one in other:
        one["setting"]["workload"] = None
    found = standing([repeat(0.3, 1), strange, unknown, *other])
    assert [one["stands"] for one in found] == [True, False, False, True, True]
    assert [one["repeats"] for one in found] == [1, 1, 1, 1, 1]


@given(st.lists(st.tuples(st.sampled_from([8, 64]), st.sampled_from([0.1, 0.2, 0.3]), st.booleans()), max_size=12))
def test_each_configuration_has_one_that_stands(runs):
    """One of its valid ones, with at least half of them not dearer and half not cheaper."""
    results = [{"valid": valid, "setting": {"workload": "w"}, "load": {"concurrency": many}, "metrics": {METRIC: {"value": energy}}}
               for many, energy, valid in runs]
    found = standing(results)
    for many in {many for many, _, valid in runs if valid}:
        mine = [energy for each, energy, valid in runs if each == many and valid]
        (stands,) = [energy for (each, energy, _), one in zip(runs, found, strict=True) if each == many and one["stands"]]
        assert sum(energy <= stands for energy in mine) * 2 >= len(mine)
        assert sum(energy >= stands for energy in mine) * 2 >= len(mine)
    assert all(valid for (_, _, valid), one in zip(runs, found, strict=True) if one["stands"])
