"""The process that makes requests makes what was asked for, in that order, and says what went wrong."""

import pickle

import pytest

from perjoule.bench.load.job import AsGiven, Job, Task
from perjoule.bench.load.maker import MakerError, maker
from perjoule.bench.load.request import Requests
from perjoule.bench.load.schedule import Row
from perjoule.bench.workloads.workload import Turn


def job(*bodies):
    tasks = [Task(Row(index, 0, index, 0), Turn(body=body)) for index, body in enumerate(bodies)]
    return Job("http://127.0.0.1:1", "run", 0, tasks, AsGiven("m"))


async def test_requests_are_those_of_the_job():
    """In the order asked for, large ones whole."""
    work = job({"prompt": "a"}, {"prompt": "b" * 9_000_000}, {"prompt": "c"})
    async with maker(pickle.dumps(work)) as make:
        made = await make([work.tasks[2], work.tasks[1], work.tasks[0]])
    assert made == [Requests(work)(work.tasks[index]) for index in (2, 1, 0)]
    assert b'"model":"m"' in made[0]
    assert b"\r\nX-Request-Id: run-2\r\n" in made[0]


async def test_what_a_prompter_raises_is_told_and_the_next_is_made():
    """By its type and its text."""
    work = job(None, {"prompt": "a"})
    async with maker(pickle.dumps(work)) as make:
        with pytest.raises(MakerError, match="ValueError: request 0: got a turn without a body"):
            await make(work.tasks[:1])
        assert len(await make(work.tasks[1:])) == 1


async def test_that_it_has_ended_is_told():
    """Instead of waiting for it."""
    work = job({"prompt": "a"})
    async with maker(pickle.dumps(work)) as make:
        make._process.kill()
        await make._process.wait()
        for _ in range(2):
            with pytest.raises(MakerError, match="ended"):
                await make(work.tasks)
