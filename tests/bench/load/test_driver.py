"""Several client processes keep one schedule: each request is sent once, none before its time, and a run may be broken off and go on."""

import asyncio
import sys
import urllib.request
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import orjson
import pytest

from perjoule.bench.child import FailedError, child
from perjoule.bench.load.driver import drive, processes_for
from perjoule.bench.load.job import AsGiven
from perjoule.bench.load.schedule import Plan, schedule
from perjoule.bench.workloads.workload import Turn, Workload

S = 1_000_000_000


def work(*turns, **script):
    turns = turns or (Turn(body={"prompt": "x", "golden": {"tokens": 3, "gap_ms": 1, **script}}),)
    return Workload("hand", "hand", turns, len(turns))


@asynccontextmanager
async def golden():
    """A URL, and a way to look at what the server saw, by request id."""
    async with child("perjoule.bench.load.golden") as server:
        def log():
            with urllib.request.urlopen(server["url"] + "/golden/log", timeout=20) as said:
                return {one["request_id"]: one for one in orjson.loads(said.read())}
        yield server["url"], log


def going(url, plan, workload=None, **more):
    workload = workload or work()
    return drive(schedule(workload, plan), workload, url, AsGiven(), "run", **more)


@pytest.mark.parametrize("processes", [1, 3])
async def test_an_open_loop_sends_each_request_once_and_none_early(processes):
    """From each process its part, and what the server saw is what the samples say."""
    async with golden() as (url, log):
        run = going(url, Plan("open", arrivals="poisson", request_rate=100.0, requests=60, seed=4), processes=processes)
        samples = [sample async for sample in run]
        there = log()
    assert sorted(sample.index for sample in samples) == list(range(60))
    assert {sample.outcome for sample in samples} == {"completed"}
    assert {sample.client for sample in samples} == set(range(processes))
    assert there.keys() == {f"run-{index}" for index in range(60)}
    for sample in samples:
        assert sample.intended_ns == run.schedule.rows[sample.index].intended_ns
        assert sample.sent_ns >= sample.intended_ns
        assert there[sample.request_id]["arrived_ns"] >= run.start_ns + sample.sent_ns
        assert sample.output_tokens == len(sample.chunk_ns) == 3
    assert run.in_flight == 0


@pytest.mark.parametrize(("concurrency", "processes"), [(1, 2), (4, 1), (5, 2)])
async def test_a_closed_loop_has_so_many_under_way_and_no_more(concurrency, processes):
    """Counted on the server's clock; a place that is free is taken at once."""
    async with golden() as (url, log):
        plan = Plan("closed", concurrency=concurrency, requests=30)
        samples = [sample async for sample in going(url, plan, work(gap_ms=10), processes=processes)]
        there = log()
    assert len(samples) == 30
    ends = [(one["sent_ns"][-1], -1) for one in there.values()]
    most = running = 0
    for _, step in sorted(ends + [(one["arrived_ns"], 1) for one in there.values()]):
        running += step
        most = max(most, running)
    assert most == concurrency
    free = sorted(sample.end_ns for sample in samples)
    assert {sample.intended_ns for sample in samples} <= {0, *free}


async def test_places_open_one_after_the_other_in_a_ramp():
    """Four within 0.4 s."""
    async with golden() as (url, _):
        plan = Plan("closed", concurrency=4, ramp_s=0.4, requests=4)
        samples = [sample async for sample in going(url, plan, processes=2)]
    assert sorted(sample.intended_ns for sample in samples) == [0, S // 10, S // 5, 3 * S // 10]
    assert all(sample.sent_ns >= sample.intended_ns for sample in samples)


@pytest.mark.parametrize("plan", [
    Plan("closed", concurrency=2), Plan("open", arrivals="constant", request_rate=100.0)], ids=lambda plan: plan.mode)
async def test_turns_of_a_session_follow_each_other(plan):
    """Each is intended at the end of the one before and its think time."""
    body = {"prompt": "x", "golden": {"tokens": 2, "gap_ms": 1}}
    turns = [Turn(body=body, session=name, think_s=0.05) for _ in range(3) for name in "ab"]
    async with golden() as (url, _):
        samples = sorted([sample async for sample in going(url, plan, work(*turns), processes=2)], key=lambda sample: sample.index)
    for before, after in zip(samples, samples[2:], strict=False):
        assert before.session == after.session
        assert after.intended_ns == before.end_ns + S // 20
        assert after.sent_ns >= after.intended_ns


async def test_a_backlog_is_sent_late_and_not_dropped():
    """A schedule that no client keeps: everything goes out, and each lag is told."""
    async with golden() as (url, log):
        samples = [sample async for sample in going(url, Plan("open", arrivals="constant", request_rate=1e6, requests=500), processes=1)]
        assert len(log()) == 500
    lags = [sample.sent_ns - sample.intended_ns for sample in samples]
    assert {sample.outcome for sample in samples} == {"completed"}
    assert max(lags) > 1_000_000


async def test_a_run_that_is_broken_off_tells_what_is_unfinished_and_goes_on():
    """Each index has ended once, or is sent anew; the schedule's time goes on where it was."""
    plan, long = Plan("open", arrivals="constant", request_rate=40.0, requests=40), work(tokens=20, gap_ms=5)
    async with golden() as (url, log):
        first, seen = going(url, plan, long, processes=2), []
        async for sample in first:
            seen.append(sample)
            if len(seen) == 10:
                first.stop()
        done = {sample.index for sample in seen if sample.outcome == "completed"}
        unfinished = {sample.index for sample in seen if sample.outcome == "unfinished"}
        assert 10 <= len(done) < 40
        assert unfinished
        assert log().keys() == {f"run-{index}" for index in done | unfinished}
        second = going(url, plan, long, processes=2, skip=done)
        rest = [sample async for sample in second]
    assert {sample.index for sample in rest} == set(range(40)) - done
    assert {sample.outcome for sample in rest} == {"completed"}
    assert all(sample.sent_ns >= sample.intended_ns == sample.index * S // 40 for sample in rest)


async def test_breaking_off_reaches_who_is_still_at_work():
    """Also when another client has ended before."""
    turns = [Turn(body={"golden": {"tokens": tokens, "gap_ms": 10}}) for tokens in (1, 100_000)]
    async with golden() as (url, _):
        run = going(url, Plan("closed", concurrency=2), work(*turns), processes=2)
        outcomes = []
        async for sample in run:
            outcomes.append(sample.outcome)
            await asyncio.sleep(0.3)
            run.stop()
    assert outcomes == ["completed", "unfinished"]


async def test_a_session_that_was_broken_off_goes_on_where_it_was():
    """Its next turn is due when the run goes on, and not at the beginning of all."""
    turns = [Turn(body={"golden": {"tokens": 1}}, session="a", at_s=0.0)] * 2 + [Turn(body={"golden": {"tokens": 1}}, at_s=30.0)]
    async with golden() as (url, _):
        samples = [sample async for sample in going(url, Plan("trace"), work(*turns), skip={0})]
    assert {sample.index: sample.intended_ns for sample in samples} == {1: 30 * S, 2: 30 * S}


async def test_leaving_the_iteration_leaves_no_process():
    """Nor a request that goes on."""
    async with golden() as (url, log):
        run = going(url, Plan("open", arrivals="constant", request_rate=50.0, requests=1000), processes=2)
        async with aclosing(aiter(run)) as samples:
            await anext(samples)
        before = len(log())
        await asyncio.sleep(0.2)
        assert before < 1000
        assert log() == {}


async def test_a_prompter_that_fails_ends_the_run():
    """With what it said, also in the middle."""
    turns = [Turn(body={"golden": {"tokens": 1}})] * 600 + [Turn()]
    async with golden() as (url, _):
        with pytest.raises(FailedError, match="ValueError: request 0: got a turn without a body"):
            [sample async for sample in going(url, Plan("closed", concurrency=1), work(Turn()))]
        with pytest.raises(FailedError, match="ValueError: request 600"):
            [sample async for sample in going(url, Plan("closed", concurrency=2), work(*turns))]


async def test_the_loops_lateness_is_told():
    """Of each process, since the last look."""
    async with golden() as (url, _):
        run = going(url, Plan("open", arrivals="constant", request_rate=10.0, requests=15), processes=2)
        _ = [sample async for sample in run]
    lags = run.take_loop_lags()
    assert len(lags) == 2
    assert min(lags) > 0
    assert run.take_loop_lags() == [0, 0]


def test_how_many_processes_a_plan_gets(monkeypatch):
    """By what it will take them, within what the machine has."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    asked = work(Turn(at_s=0.0, output_tokens=245), Turn(at_s=1.0, output_tokens=245))  # 5 ms of a core each

    def got(plan):
        return processes_for(schedule(asked, plan), asked)

    assert got(Plan("open", arrivals="constant", request_rate=1.0)) == 1
    assert got(Plan("open", arrivals="constant", request_rate=149.0)) == 3  # at most a quarter of a core each
    assert got(Plan("open", arrivals="constant", request_rate=1.0, request_rate_end=1e9, ramp_s=1.0)) == 7
    assert got(Plan("trace")) == 1
    assert got(Plan("trace", time_scale=100.0)) == 1
    assert [got(Plan("closed", concurrency=places)) for places in (1, 200, 300, 100_000)] == [1, 1, 2, 7]
    with pytest.raises(ValueError, match="processes: got 0"):
        going("http://x", Plan("trace"), work(Turn(at_s=0.0)), processes=0)


ALONE = """
import asyncio, sys
from perjoule.bench.load.driver import drive
from perjoule.bench.load.job import AsGiven
from perjoule.bench.load.schedule import Plan, schedule
from perjoule.bench.workloads.workload import Turn, Workload

async def main():
    work = Workload("hand", "hand", (Turn(body={"golden": {"tokens": 50}}),), 1)
    plan = schedule(work, Plan("open", arrivals="constant", request_rate=50.0, requests=100_000))
    async for sample in drive(plan, work, sys.argv[1], AsGiven(), "run", processes=2):
        print(sample.index, flush=True)

asyncio.run(main())
"""


async def test_clients_end_with_who_started_them():
    """Also where that one was killed."""
    async with golden() as (url, _):
        parent = await asyncio.create_subprocess_exec(sys.executable, "-c", ALONE, url, stdout=asyncio.subprocess.PIPE)
        assert await parent.stdout.readline()
        family = [pid for child_pid in children(parent.pid) for pid in (child_pid, *children(child_pid))]
        assert len(family) == 4  # two clients, each with who makes its requests
        parent.kill()
        await parent.communicate()
        async with asyncio.timeout(20):
            while any(map(runs, family)):
                await asyncio.sleep(0.05)


def children(pid):
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_closed_loop_that_has_so_long_ends_what_it_has_begun():
    """No place is taken after that, in any process; sessions go on to their end, and nobody waits for what was not sent."""
    turns = [Turn(body={"prompt": "x", "golden": {"tokens": 3, "gap_ms": 10}}, session=str(number // 2)) for number in range(400)]
    async with golden() as (url, log):
        run = going(url, Plan("closed", concurrency=4, duration_s=0.6), work(*turns), processes=2)
        samples = [sample async for sample in run]
        there = log()
    assert 8 <= len(samples) < 400
    assert there.keys() == {f"run-{sample.index}" for sample in samples}
    assert {sample.outcome for sample in samples} == {"completed"}
    firsts = [sample for sample in samples if sample.index % 2 == 0]
    assert max(sample.intended_ns for sample in firsts) < 0.6 * S
    assert {sample.index + 1 for sample in firsts} <= {sample.index for sample in samples}  # the second turn of each
    assert len(run.schedule.rows) == 400
