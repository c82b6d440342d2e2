"""The alarm rings once, never before its instant, and at the instant it was last set to."""

import asyncio
import time

import pytest

from perjoule.bench.load.alarm import Alarm

MS = 1_000_000


@pytest.fixture(params=["linux", "elsewhere"])
def platform(request, monkeypatch):
    monkeypatch.setattr("sys.platform", request.param)
    return request.param


@pytest.mark.parametrize("in_ns", [-10**12, 0, 300_000, 20 * MS])
async def test_it_rings_once_and_not_early(in_ns, platform):
    """Also for an instant that has passed."""
    rung = []
    alarm = Alarm(lambda: rung.append(time.monotonic_ns()))
    at_ns = time.monotonic_ns() + in_ns
    alarm.set(at_ns)
    await asyncio.sleep(0.06)
    alarm.close()
    assert len(rung) == 1
    assert rung[0] >= at_ns - (MS if platform == "elsewhere" else 0)


async def test_it_can_be_set_anew(platform):
    """Later, and earlier."""
    rung = []
    alarm = Alarm(lambda: rung.append(time.monotonic_ns()))
    now_ns = time.monotonic_ns()
    alarm.set(now_ns + 5 * MS)
    alarm.set(now_ns + 30 * MS)
    await asyncio.sleep(0.06)
    assert len(rung) == 1
    assert rung[0] >= now_ns + 29 * MS
    alarm.set(time.monotonic_ns() + 3600 * 10**9)
    alarm.set(time.monotonic_ns() + MS)
    await asyncio.sleep(0.03)
    assert len(rung) == 2
    alarm.close()


async def test_closed_it_is_silent(platform):
    """And may be closed twice."""
    rung = []
    alarm = Alarm(lambda: rung.append(1))
    alarm.set(time.monotonic_ns() + 5 * MS)
    alarm.close()
    alarm.close()
    await asyncio.sleep(0.02)
    assert not rung
