"""What is asked beside the traffic: an engine's batch limit, its queue, and who else computes on the boards."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass

import pytest

from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.metering.pools import read_pools
from perjoule.sidecar.metering.steady_state import FEWEST
from perjoule.sidecar.ports import Device, Load
from perjoule.sidecar.process import lookout
from perjoule.sidecar.process.lookout import Lookout, Questions
from perjoule.sidecar.record import Outcome, RequestFacts

URL = "http://engine"
TWO = [Device("GPU-0", "a board"), Device("GPU-1", "a board")]


@dataclass
class Engine:
    """What an engine answers; an exception is raised."""

    limit: object = None
    loads: object = None
    asked: int = 0

    async def largest_batch(self, url):
        assert url == URL
        return answered(self.limit)

    async def load(self, url):
        assert url == URL
        self.asked += 1
        return answered(next(self.loads, None) if self.loads else None)


def answered(what):
    if isinstance(what, Exception):
        raise what
    return what


def looking(engine, *, gpus="all", told=0, computing=None):
    pools = read_pools(gpus)
    meter = Meter(TWO, pools=pools, max_num_seqs=told)
    return Lookout(meter, Questions(engine.largest_batch, engine.load, computing), URL, told, pools.ranks)


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
    it = looking(Engine(limit), gpus="prefill=GPU-0;decode=GPU-1", told=told)
    await it.engine_is_news()
    assert limits(it) == [expected, expected]


async def test_a_limit_over_all_ranks_is_divided_among_them():
    """Each pool has one rank's part of it."""
    it = looking(Engine(96), gpus="0=GPU-0;1=GPU-1")
    await it.engine_is_news()
    assert limits(it) == [48, 48]


@pytest.mark.parametrize(("gpus", "expected"), [("all", [16]), ("0=GPU-0;1=GPU-1", [8, 8]), ("prefill=GPU-0;decode=GPU-1", [16, 16])])
async def test_a_queue_shows_the_limit(monkeypatch, gpus, expected):
    """Sixteen run while others wait and come in: sixteen is the batch, of which each rank has its part."""
    monkeypatch.setattr(lookout, "LOOK_EVERY_S", 0)

    def loads():
        for _ in range(FEWEST + 5):
            it.meter.begin(f"r{it.meter.begun}", it.meter.begun)
            yield Load(16, 3)
        while True:
            yield None

    engine = Engine(loads=loads())
    it = looking(engine, gpus=gpus)
    it.meter.begin("first", 0)
    await run(it.watch_load(), lambda: engine.asked > FEWEST + 10)
    assert limits(it) == expected


async def test_a_queue_that_cannot_be_read_is_harmless(monkeypatch):
    """It is asked again."""
    monkeypatch.setattr(lookout, "LOOK_EVERY_S", 0)
    engine = Engine(loads=iter([OSError("gone"), None, ValueError("what?"), *[Load(1, 0)] * 9]))
    it = looking(engine)
    it.meter.begin("r", 0)
    await run(it.watch_load(), lambda: engine.asked > 5)
    assert limits(it) == [0]


async def test_an_idle_engine_is_not_asked(monkeypatch):
    """It stays as it was."""
    monkeypatch.setattr(lookout, "LOOK_EVERY_S", 0)
    engine, turns = Engine(), iter(range(50))
    it = looking(engine)
    await run(it.watch_load(), lambda: next(turns, None) is None)
    assert engine.asked == 0


def seen(it):
    return it.strangers.seen


async def test_who_goes_around_the_sidecar_is_seen_and_said_once(monkeypatch, caplog):
    """Three run, one of them ours: seen after a second look, warned of once, and forgotten with the last of ours."""
    monkeypatch.setattr(lookout, "LOOK_EVERY_S", 0)
    engine = Engine(loads=iter([Load(1, 0), Load(2, 1), *[Load(3, 1)] * 50]))
    it = looking(engine)
    it.meter.begin("ours", 0)
    with caplog.at_level(logging.WARNING):
        await run(it.watch_load(), lambda: engine.asked >= 3)
        assert seen(it) in (0, 2)
        await run(it.watch_load(), lambda: engine.asked >= 20)
    assert seen(it) == 3
    assert it.shown()["unknown_requests"] == 3
    assert [record.getMessage()[:42] for record in caplog.records] == ["the engine runs at least 2 requests that d"]
    it.meter.end("ours", 1, RequestFacts("ours", "ours", 0, 1, Outcome.COMPLETED, "completions", "vllm", False))
    await run(it.watch_load(), lambda: it.load is None)
    assert (seen(it), it.shown()) == (None, None)


async def test_prompts_that_are_computed_again_are_said_once(monkeypatch, caplog):
    """What happened before we came is not ours to say."""
    monkeypatch.setattr(lookout, "LOOK_EVERY_S", 0)
    engine = Engine(loads=iter([*[Load(1, 0, preemptions=7)] * 5, *[Load(1, 0, preemptions=number) for number in range(7, 20)]]))
    it = looking(engine)
    it.meter.begin("ours", 0)
    with caplog.at_level(logging.WARNING):
        await run(it.watch_load(), lambda: engine.asked >= 4)
        assert not caplog.records
        await run(it.watch_load(), lambda: engine.asked >= 15)
    assert [record.getMessage()[:58] for record in caplog.records] == ["the engine throws requests out of its batch for want of me"]


async def test_what_the_engine_computes_is_shown(monkeypatch):
    """Its counters by the second, between two looks; of one that began again, nothing."""
    monkeypatch.setattr(lookout, "LOOK_EVERY_S", 0)
    ranks = {"0": (2, 0), "1": (1, 4)}
    engine = Engine(loads=iter([Load(3, 4, ranks=ranks, output_tokens=0), Load(3, 4, ranks=ranks, output_tokens=900, kv_use=0.5)]))
    it = looking(engine)
    it.meter.begin("ours", 0)
    await run(it.watch_load(), lambda: engine.asked == 2 and it.load and it.load.kv_use)
    shown = it.shown()
    assert shown.pop("output_tokens_per_second") > 0
    assert shown == {"running": 3, "waiting": 4, "kv_use": 0.5, "ranks": {"0": [2, 0], "1": [1, 4]}, "unknown_requests": 6}
    engine.loads = iter([Load(1, 0, output_tokens=5), Load(1, 0, output_tokens=1, prompt_tokens=3)])
    engine.asked = 0
    await run(it.watch_load(), lambda: engine.asked == 2 and it.load and it.load.prompt_tokens)
    assert set(it.shown()) == {"running", "waiting", "unknown_requests"}


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
