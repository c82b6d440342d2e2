"""The table of rules: the games are what they say, equal time is equal time, and the command prints one."""

import json
import sys
from random import Random

import pytest

from perjoule.bench import rules
from perjoule.bench.rules import MIXES, Game, covered, equal_time
from perjoule.bench.sampled_shapley import value
from perjoule.sidecar.metering.calibration import Calibration, Key


def test_a_moment_is_shared_equally_by_those_who_are_there():
    """One for 10 ns, one for the last 4 of them and 2 more: 6 + 2, and 2 + 2."""
    assert equal_time([(0, 10), (6, 12)]) == [8.0, 4.0]


def test_equal_time_is_the_shapley_value_of_the_time_covered():
    """Spans that touch, overlap, hold each other and stand apart: the parts are the value of the game of their union."""
    spans = [(0, 10), (6, 12), (7, 8), (12, 20), (30, 31)]
    found = value(len(spans), lambda members: covered([spans[i] for i in members]), Random(0))
    assert found.values == pytest.approx(equal_time(spans))
    assert covered(spans) == 21


def test_together_is_at_one_moment_and_staggered_is_not():
    """Without a stagger all arrive at 0; with one, in order, within it."""
    together, staggered = (Game("linear", "mixed", 5, stagger_s).draw(Random(1)) for stagger_s in (0.0, 2.0))
    assert [request.at_ns for request in together] == [0] * 5
    times = [request.at_ns for request in staggered]
    assert times == sorted(times)
    assert 0 < times[-1] <= 2_000_000_000


@pytest.mark.parametrize("mix", MIXES)
def test_lengths_are_of_the_mix(mix):
    """Drawn lengths stay within the mix and reach over most of it."""
    drawn = [rules.lengths(MIXES[mix], Random(seed)) for seed in range(300)]
    for place, (low, high) in enumerate((MIXES[mix][:2], MIXES[mix][2:])):
        seen = [pair[place] for pair in drawn]
        assert low <= min(seen) < 1.3 * low
        assert high / 1.3 < max(seen) <= high


def test_in_chat_all_but_tokens_are_near_and_tokens_are_far():
    """Decode hides what a token costs: of chats that arrive together, equal time is near the Shapley value and total tokens are not."""
    said = rules.assess(Game("roofline", "chat", 4), Calibration(Key(gpu="H200")), draws=2)
    assert said["truth_error"] == 0.0
    assert said["l1"]["per step"] < 0.02 < 0.15 < said["l1"]["total-token"]
    assert said["l1"]["step-model"] < 0.05


def test_the_command_says_one_json_object(monkeypatch, capsys):
    """With --json, standard output is one object with a row for each game."""
    monkeypatch.setattr(rules, "GAMES", (Game("linear", "chat", 3),))
    monkeypatch.setattr(rules, "OTHER_S", 5)
    monkeypatch.setattr(sys, "argv", ["rules.py", "--json", "--draws", "1"])
    assert rules.main() == 0
    (row,) = json.loads(capsys.readouterr().out)["games"]
    assert (row["physics"], row["players"], row["draws"]) == ("linear", 3, 1)


def test_no_draws_are_refused(monkeypatch, capsys):
    """Zero draws are no measurement."""
    monkeypatch.setattr(sys, "argv", ["rules.py", "--draws", "0"])
    with pytest.raises(SystemExit):
        rules.main()
    assert "got 0, expected at least 1" in capsys.readouterr().err
