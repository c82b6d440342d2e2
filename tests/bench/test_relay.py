"""The command `perjoule bench relay`, from flags to numbers."""

import json
import os

import pytest

from perjoule.bench import relay, relay_run, relay_scaling
from perjoule.bench.relay_load import Job
from perjoule.main import main

QUICK = ["--streams", "4", "--seconds", "0.2", "--repeats", "2"]
needs_two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the relay needs a core of its own")


@needs_two_cores
@pytest.mark.slow
def test_a_run_measures_every_relay_under_every_load(tmp_path, monkeypatch):
    """A row for each round, load and relay; all that ours relayed is in its ledger and at the collector; who is missing is named."""
    monkeypatch.setitem(relay_run.HELD, "connections", 16)
    out = tmp_path / "relay.json"
    absent = ["--nginx", "/nonexistent", "--peers", "direct,nginx,aiohttp,perjoule"]
    assert main(["bench", "relay", *QUICK, *absent, "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert list(found["peers"]) == ["direct", "aiohttp", "perjoule"]
    assert list(found["missing"]) == ["nginx"]
    plan = relay_run.loads([4], 0.2)
    assert sorted((row["round"], row["load"], row["peer"]) for row in found["rows"]) == sorted(
        (number, load, peer) for number in range(2) for load in plan for peer in found["peers"])
    assert not [row for row in found["rows"] if row["failed"] or row["lost"] or row["stalled"] or not row["requests"]]
    assert all((row["cpu_ns"] is None) == (row["peer"] == "direct") for row in found["rows"])
    (metered,) = found["metered"]
    assert metered["stored"] == {"ledger": metered["requests"], "otlp": metered["requests"]}
    assert metered["spans_received"] == metered["requests"] > 50
    assert found["memory"]["perjoule"]["held_streams"] == 16
    assert {budget["kept"] for budget in found["budgets"]} >= {True, None}


@pytest.mark.parametrize(("flags", "reason"), [
    (["--peers", "envoy"], "--peers: got envoy, expected some of direct, nginx, skeleton, aiohttp, litellm, perjoule"),
    (["--streams", "many"], "--streams: "),
    (["--streams", "0"], "--streams: got 0, expected more than 0"),
    (["--seconds", "-1"], "--seconds: got -1, expected more than 0"),
    (["--plot", "relay.gif"], "--plot: got relay.gif, expected a file that ends in .png or .svg"),
    (["--workers", "4096"], "cores, expected more than the 4096 of the relay"),
])
def test_what_cannot_be_measured_is_refused(flags, reason, capsys):
    """Exit code 2, and the reason on standard error."""
    with pytest.raises(SystemExit) as exit_:
        relay.run(flags)
    assert exit_.value.code == 2
    assert reason in capsys.readouterr().err


@pytest.mark.skipif(len(os.sched_getaffinity(0)) >= relay_scaling.LEAST_CORES, reason="there are enough cores here")
def test_scaling_needs_cores(capsys):
    """Where engine and load would be the limit, a second worker cannot be judged."""
    with pytest.raises(SystemExit) as exit_:
        relay.run(["--workers-scaling"])
    assert exit_.value.code == 2
    assert "expected 8 or more" in capsys.readouterr().err


def test_every_load_is_a_job():
    """Streams last for longer than they are measured, from the first one's begin to after the last one's."""
    for name, fields in relay_run.loads([64, 512], 4.0).items():
        job = Job(1, None, 1, **fields)
        assert len(job.request) > job.body_bytes
        if name.startswith("paced"):
            assert job.frames * job.gap_ms / 1000 > job.seconds + 0.002 * job.connections


def test_a_second_worker_is_compared_round_by_round():
    """1.9 and 1.7 times are 1.8 times, however fast the rounds were."""
    rows = [{"round": number, "load": load, "peer": peer, "per_s": per_s}
            for load in relay_scaling.COUNTED
            for number, speeds in enumerate([(100, 190), (1000, 1700)])
            for peer, per_s in zip(("workers 1", "workers 2"), speeds, strict=True)]
    assert relay_scaling.gain(rows, relay_scaling.REQUESTS) == pytest.approx(1.8)
