"""The ordeal finds what is missing, and on a sidecar that loses nothing it finds nothing."""

import json

import pytest

from perjoule.bench.ordeal.clients import Sent
from perjoule.bench.ordeal.collector import Spans
from perjoule.bench.ordeal.command import run
from perjoule.bench.ordeal.play import Run
from perjoule.bench.ordeal.reckoning import Kept, _row, missing


@pytest.mark.slow
def test_half_a_minute_of_it(capsys):
    """Seven kills, an outage of the collector and a flood of tenants: all that can be there is there."""
    code = run(["--minutes", "0.5", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [check for check in found["checks"] if not check["holds"]] == []
    assert code == 0
    assert [row["ended"] for row in found["runs"]] == ["killed"] * 7 + ["stopped"]
    assert sum(row["ledger"] for row in found["runs"]) > 100


def test_a_request_that_had_long_ended_is_not_overtaken():
    """A kill excuses what was in flight or had just ended, and nothing else."""
    sent = [Sent("kept", 1.0, 2.0, "completed"), Sent("in flight", 9.0, 11.0), Sent("just ended", 9.0, 9.5, "completed"),
            Sent("long ended", 5.0, 8.0, "completed"), Sent("after it", 10.5, 11.0, "completed"), Sent("nobody there", 9.0, 9.0, "refused"),
            Sent("on an old connection", 10.1, 10.2, "cut"), Sent("cut for no reason", 12.5, 12.6, "cut")]
    assert missing(sent, {"kept"}, [(10.0, 12.0)]) == (3, 3)


@pytest.mark.parametrize(("killed", "sent", "cut", "lost"), [
    (True, {1: 5, 2: 5}, 1, 0), (True, {1: 5, 3: 5}, 0, 1), (False, {1: 5, 2: 5}, 0, 1), (False, {1: 5, 2: 6, 3: 5}, 0, 0)])
def test_spans_may_only_be_missing_at_the_end_of_a_killed_run(killed, sent, cut, lost):
    """A hole is a loss, whoever was killed; another cost is wrong."""
    row = _row(Run(0, 0.0, 1.0, killed=killed), Kept({1: 5, 2: 5, 3: 5}), Spans(sent))
    assert (row["spans_cut"], row["spans_missing"]) == (cut, lost)
    assert row["spans_wrong"] == (6 in sent.values())


def test_a_hole_in_the_records_is_seen():
    """Sequences go from one on without gaps."""
    assert _row(Run(0, 0.0), Kept({1: 5, 3: 5}), Spans({}))["holes"] == 1


def test_too_short_is_refused(capsys):
    """Kills a second apart would meet no traffic."""
    with pytest.raises(SystemExit) as refused:
        run(["--minutes", "0.1"])
    assert refused.value.code == 2
    assert "--minutes: got 0.1, expected at least 0.5" in capsys.readouterr().err
