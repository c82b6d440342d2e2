"""`perjoule demo` itself: the real command, the real sidecar, and what happens when something does not start."""

import contextlib
import json
import subprocess
import sys

import aiohttp
import pytest

from perjoule.bench.demo import FailedError, child, run

DEMO = [sys.executable, "-m", "perjoule.main", "demo"]


def test_the_demo_works():
    """It ends with 0: a simulated record for each request, conserved, nearer to the truth than rules of thumb."""
    done = subprocess.run([*DEMO, "--requests", "7", "--seed", "45", "--json"], capture_output=True, timeout=60)
    told = json.loads(done.stdout)
    assert (done.returncode, told["problems"]) == (0, [])
    assert len({row["record_id"] for row in told["requests"]}) == 7
    assert {row["status"] for row in told["requests"]} == {"simulated"}
    assert [row["outcome"] for row in told["requests"] if row["kind"] == "leaves halfway"] == ["cancelled"]
    balance = told["balance"]
    assert balance["measured_uj"] == balance["requests_uj"] + balance["idle_uj"] + balance["unattributed_uj"]
    distance = told["distance_from_truth"]
    assert distance["perjoule"] < min(distance["equal_split"], distance["by_output_tokens"], distance["by_all_tokens"])


def test_bad_flags_are_refused(capsys):
    """Zero requests is an error that says what was got and what was expected."""
    with pytest.raises(SystemExit) as ended:
        run(["--requests", "0"])
    assert ended.value.code == 2
    assert "got 0, expected at least 1" in capsys.readouterr().err


async def test_a_child_that_does_not_start_is_told():
    """The error carries what the child said on standard error."""
    with pytest.raises(FailedError, match=r"did not start[\s\S]*unrecognized arguments: --no-such-flag"):
        async with child("perjoule.bench.engine", "--no-such-flag"):
            pass


async def test_a_child_lives_as_long_as_the_block():
    """It is ready when the block begins and gone when it has ended, also by an error."""
    async def health():
        async with aiohttp.ClientSession() as http, http.get(url + "/health") as response:
            return response.status

    with contextlib.suppress(ZeroDivisionError):
        async with child("perjoule.bench.engine", "--port", "0") as engine:
            url = engine["url"]
            assert await health() == 200
            1 / 0  # noqa: B018
    with pytest.raises(aiohttp.ClientConnectionError):
        await health()
