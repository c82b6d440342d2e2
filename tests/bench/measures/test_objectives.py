"""Objectives as they are written, and who keeps them."""

import pytest

from perjoule.bench.measures.objectives import kept, objectives

TIMES = {"ttft": 200.0, "tpot": None, "e2e": 4_999.0}


def test_limits_are_read_in_milliseconds():
    """Spaces or commas, any unit of time."""
    assert objectives("ttft:200ms tpot:50ms e2e:5s") == {"ttft": 200, "tpot": 50, "e2e": 5_000}
    assert objectives("ttft:.5s,ntpot:900us") == {"ttft": 500, "ntpot": 0.9}
    assert objectives("") == {}


@pytest.mark.parametrize("text", ["ttft", "ttft:200", "ttft:-1ms", "ttft:0ms", "itl:5ms", "ttft:1s ttft:2s", "e2e:5h"])
def test_what_is_no_objective_is_refused(text):
    """With what was got and what was expected."""
    with pytest.raises(ValueError, match=r"objectives: got .*, expected each of ttfb"):
        objectives(text)


def test_all_must_be_kept():
    """At the limit is kept; a time that is not there is not, but for the time per token of one token."""
    assert kept({"ttft": 200}, TIMES, 9)
    assert not kept({"ttft": 199.9, "e2e": 5_000}, TIMES, 9)
    assert not kept({"ttft": 200, "tpot": 50}, TIMES, 9)
    assert kept({"ttft": 200, "tpot": 50}, TIMES, 1)
    assert not kept({"tpot": 50}, TIMES, None)
