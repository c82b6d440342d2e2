"""The bench of what the sidecar takes away: the interval that it states, and a whole run against the embedded engine."""

import json
import subprocess
import sys
from asyncio import to_thread

import pytest

from perjoule.bench.child import child
from perjoule.bench.dialect import MODEL
from perjoule.bench.overhead import interval


def test_the_interval_is_student_s():
    """Of five ratios, worked out by hand (t = 2.776); equal ratios leave nothing open."""
    assert interval([0.99, 1.01, 1.0, 0.98, 1.02]) == pytest.approx((0.9999, 0.9804, 1.0198), abs=2e-4)
    assert interval([0.99, 0.99]) == pytest.approx((0.99, 0.99, 0.99))


async def test_a_run_compares_both_ways():
    """Two pairs on the embedded engine: all answered both ways, a ratio with its interval, and the cores that the sidecar used."""
    async with child("perjoule.bench.engine", "--port", "0") as engine:
        done = await to_thread(subprocess.run, [
            sys.executable, "-m", "perjoule.bench.overhead", "--engine", engine["url"], "--model", MODEL, "--in-flight", "4",
            "--pairs", "2", "--rounds", "3", "--energy", "simulated"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert [pair[way]["failed"] for pair in result["pairs"] for way in ("engine", "sidecar")] == [0] * 4
    ratio = result["ratios"]["tokens_per_s"]
    assert 0 < ratio["low"] <= ratio["mean"] <= ratio["high"]
    assert all(pair["sidecar"]["cores"] > 0 and pair["sidecar"]["records"] == 12 for pair in result["pairs"])
    assert "with the sidecar" in done.stderr
