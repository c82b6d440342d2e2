"""The load of the relay bench measures what it says it measures, on a real engine process without a relay between."""

import asyncio
import json
from dataclasses import asdict

import pytest

from perjoule.bench.child import child
from perjoule.bench.relay_load import Job, closed, middle_and_tail, paced, quiet
from perjoule.bench.relay_peers import port_of
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S


@pytest.fixture
async def engine():
    async with child("perjoule.bench.relay_upstream") as said:
        yield said


def job(engine, **fields):
    """A job whose relay is the engine itself, so that its CPU time is taken as a relay's."""
    pid = engine["pid"]
    return Job(**{"port": port_of(engine["url"]), "pid": pid, "engine_pid": pid, "connections": 4, "seconds": 0.3} | fields)


async def test_a_closed_loop_counts_whole_answers(engine):
    """Requests run for the time that was asked for, each costs CPU time, none is lost, and the answers are timed."""
    found = await closed(job(engine))
    assert found.requests > 4
    assert (found.failed, found.lost, found.stalled, found.frames, found.first_ms) == (0, 0, 0, 0, None)
    assert found.wall_ns > 0.29 * NS_PER_S
    assert found.cpu_ns > 0
    assert found.loop_ns <= found.cpu_ns
    assert 0 < found.answer_ms[0] <= found.answer_ms[1]
    assert found.rss_bytes > 1_000_000


async def test_a_closed_loop_of_streams_counts_frames(engine):
    """Every answer has all its frames."""
    found = await closed(job(engine, frames=50))
    assert found.frames == 50 * found.requests
    assert found.lost == 0
    assert found.way_ms[0] > 0


async def test_paced_streams_are_measured_while_all_of_them_run(engine):
    """Frames are those of the window alone, about as many as the pace gives; the streams then come to their end."""
    found = await paced(job(engine, connections=8, frames=60, gap_ms=20, seconds=0.5))
    assert (found.begun, found.requests, found.failed, found.lost, found.stalled) == (8, 8, 0, 0, 0)
    assert found.wall_ns > 0.49 * NS_PER_S
    expected = 8 * found.wall_ns / (20 * NS_PER_MS)
    assert 0.25 * expected < found.frames < 8 * 60
    assert found.gap_ms[1] > 15


async def test_streams_can_be_hung_up_on(engine):
    """A minute of streams takes a moment if nobody is to hear its end, and nothing of it is called an answer."""
    async with asyncio.timeout(20):
        found = await paced(job(engine, frames=60, gap_ms=1000, to_the_end=False))
    assert (found.begun, found.requests, found.stalled) == (4, 0, 4)


async def test_where_no_process_is_named_no_cpu_time_is_invented(engine):
    """Null, not 0."""
    found = await closed(job(engine, pid=None))
    assert (found.cpu_ns, found.loop_ns, found.rss_bytes, found.pss_bytes) == (None, None, None, None)
    assert found.engine_ns > 0


async def test_quiet_is_when_a_process_rests(engine):
    """An engine that nobody asks is quiet at once."""
    async with asyncio.timeout(5):
        await quiet(engine["pid"])


async def test_jobs_come_and_go_as_lines(engine):
    """The process answers one line of JSON for each, on one connection or on several."""
    async with child("perjoule.bench.relay_load") as load:
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", load["port"])
            writer.write(json.dumps(asdict(job(engine, seconds=0.1))).encode() + b"\n")
            assert json.loads(await asyncio.wait_for(reader.readline(), 30))["requests"] > 0
            writer.close()
            await writer.wait_closed()


def test_percentiles_are_of_what_was_measured():
    """The nearest rank of a hundred; of one, itself; of none, nothing."""
    assert middle_and_tail([n * NS_PER_MS for n in range(1, 101)]) == (50, 100)
    assert middle_and_tail([7 * NS_PER_MS]) == (7, 7)
    assert middle_and_tail([]) is None
