"""What is asked beside the traffic: an engine's batch limit, its queue, and who else computes on the boards."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass

import pytest

from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.metering.pools import read_pools
from perjoule.sidecar.metering.steady_state import FEWEST
from perjoule.sidecar.ports import Device
from perjoule.sidecar.process import lookout
from perjoule.sidecar.process.lookout import Lookout, Questions

URL = "http://engine"
TWO = [Device("GPU-0", "a board"), Device("GPU-1", "a board")]


@dataclass
class Engine:
    """What an engine answers; an exception is raised."""

    limit: object = None
    queues: object = None  # of (running, waiting)
    asked: int = 0

    async def largest_batch(self, url):
        assert url == URL
        return answered(self.limit)

    async def queue(self, url):
        assert url == URL
        self.asked += 1
        return answered(next(self.queues) if self.queues else None)


@dataclass
class Queue:
    running: int
    waiting: int


def answered(what):
    if isinstance(what, Exception):
        raise what
    return what


def looking(engine, *, gpus="all", told=0, computing=None):
    pools = read_pools(gpus)
    meter = Meter(TWO, pools=pools, max_num_seqs=told)
    return Lookout(meter, Questions(engine.largest_batch, engine.queue, computing), URL, told, pools.ranks)


def limits(it):
    return [division.group.steady.max_num_seqs for division in it.meter.divisions]


async def run(endless, until):
    """Let something that never ends run until a condition holds."""
    task = asyncio.ensure_future(endless)
    async with asyncio.timeout(10):
        while not until():
            assert not task.done(), "it ended"
            await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(("limit", "told", "expected"), [(48, 0, 48), (None, 0, 0), (48, 32, 32), (OSError("gone"), 0, 0)])
async def test_the_limit_that_an_engine_names_is_every_pool_s(limit, told, expected):
    """Unless people have told another; an engine that fails to answer names none."""
    it = looking(Engine(limit), gpus="0=GPU-0;1=GPU-1", told=told)
    await it.engine_is_news()
    assert limits(it) == [expected, expected]


@pytest.mark.parametrize(("gpus", "expected"), [("all", [16]), ("0=GPU-0;1=GPU-1", [8, 8]), ("prefill=GPU-0;decode=GPU-1", [16, 16])])
async def test_a_queue_shows_the_limit(monkeypatch, gpus, expected):
    """Sixteen run while others wait and come in: sixteen is the batch, of which each rank has its part."""
    monkeypatch.setattr(lookout, "LOOK_EVERY_S", 0)

    def queues():
        for _ in range(FEWEST + 5):
            it.meter.begin(f"r{it.meter.begun}", it.meter.begun)
            yield Queue(16, 3)
        while True:
            yield None

    engine = Engine(queues=queues())
    it = looking(engine, gpus=gpus)
    it.meter.begin("first", 0)
    await run(it.watch_queue(), lambda: engine.asked > FEWEST + 10)
    assert limits(it) == expected


async def test_a_queue_that_cannot_be_read_is_harmless(monkeypatch):
    """It is asked again."""
    monkeypatch.setattr(lookout, "LOOK_EVERY_S", 0)
    engine = Engine(queues=iter([OSError("gone"), None, ValueError("what?"), *[Queue(1, 0)] * 9]))
    it = looking(engine)
    it.meter.begin("r", 0)
    await run(it.watch_queue(), lambda: engine.asked > 5)
    assert limits(it) == [0]


async def test_an_idle_engine_is_not_asked(monkeypatch):
    """Nor one that has named its limit."""
    monkeypatch.setattr(lookout, "LOOK_EVERY_S", 0)
    engine, turns = Engine(), iter(range(50))
    it = looking(engine)
    await run(it.watch_queue(), lambda: next(turns, None) is None)
    assert engine.asked == 0


async def test_other_processes_are_said_once(monkeypatch, caplog):
    """A warning for each board where more compute than the engine; what is counted now can be asked for."""
    monkeypatch.setattr(lookout, "COUNT_EVERY_S", 0)
    answers = iter([{"GPU-0": 1, "GPU-1": 3}, OSError("gone"), {"GPU-0": 1, "GPU-1": 2}, {"GPU-0": 1, "GPU-1": 2}])
    said = []

    def computing():
        said.append(next(answers, {"GPU-0": 1, "GPU-1": 2}))
        return answered(said[-1])

    it = looking(Engine(), computing=computing)
    with caplog.at_level(logging.WARNING):
        await run(it.watch_boards(), lambda: len(said) > 4)
    assert [record.getMessage()[:30] for record in caplog.records] == ["3 processes compute on GPU-1, "]
    assert it.shared == {"GPU-1": 2}


async def test_a_source_that_knows_no_processes_is_not_asked():
    """Nothing is said of neighbours."""
    it = looking(Engine())
    await it.watch_boards()
    assert (dict(it.computing), it.shared) == ({}, {})
