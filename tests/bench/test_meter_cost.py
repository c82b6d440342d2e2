"""The load of the cost bench is the one it states, and the meter takes all of it."""

import json
import sys
from collections import Counter
from random import Random

import pytest

from perjoule.bench import meter_cost
from perjoule.bench.meter_cost import IDLE_NS, TOKENS_PER_S, WARM_NS, calls, events, new_meter


@pytest.mark.parametrize("in_flight", [32, 512])
def test_the_tokens_flow_at_the_stated_rate(in_flight):
    """After the warm-up, 10,000 tokens come a second, from as many requests as stated, in the order of time."""
    happened = list(events(in_flight, 1.0, Random(0)))
    assert [event[0] for event in happened] == sorted(event[0] for event in happened)
    late = [event for event in happened if event[0] >= IDLE_NS + WARM_NS]
    assert sum(what == "token" for _, what, _, _ in late) == pytest.approx(TOKENS_PER_S, rel=0.05)
    assert len({name for _, what, name, _ in late if what == "token"}) >= in_flight
    counts = Counter(what for _, what, _, _ in happened)
    assert counts["begin"] - counts["end"] in range(in_flight - 1, in_flight + 1)


def test_a_request_ends_with_as_many_tokens_as_it_has_shown():
    """What the end says of the output is what came."""
    shown = Counter()
    for _, what, name, tokens in events(32, 1.0, Random(0)):
        shown[name] += what == "token"
        assert what != "end" or tokens == shown[name]


def test_the_meter_conserves_what_it_is_fed():
    """The calls are valid: all windows are divided, and the balance holds."""
    meter = new_meter("token-share")
    for _, call, args, more in calls(meter, list(events(32, 1.0, Random(0)))):
        call(*args, **more)
    assert meter.balance.conserved
    assert meter.balance.requests_uj > 0.9 * 2 * 600e6


def test_the_command_says_one_json_object(monkeypatch, capsys):
    """With --json, a row for each method and load, and how the last two compare."""
    monkeypatch.setattr(meter_cost, "IN_FLIGHT", (4, 8))
    monkeypatch.setattr(meter_cost, "METHODS", ("token-share",))
    monkeypatch.setattr(sys, "argv", ["meter_cost.py", "--json", "--seconds", "1"])
    assert meter_cost.main() == 0
    said = json.loads(capsys.readouterr().out)
    assert [(row["method"], row["in_flight"]) for row in said["rows"]] == [("token-share", 4), ("token-share", 8)]
    assert all(row["core_percent"] > 0 for row in said["rows"])
    assert said["512_to_256"]["token-share"] > 0
