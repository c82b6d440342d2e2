"""Requests are made before they are due, so many and no more."""

import asyncio

import pytest

from perjoule.bench.load import ahead
from perjoule.bench.load.ahead import Ahead
from perjoule.bench.load.job import Task
from perjoule.bench.load.schedule import Row
from perjoule.bench.workloads.workload import Turn


def tasks(count, start=0):
    return [Task(Row(index, 0, index, 0), Turn()) for index in range(start, start + count)]


class Made:
    """How many were made, and which came late."""

    def __init__(self, size=10):
        self.made, self.late, self._size = [], [], size

    async def make(self, batch):
        await asyncio.sleep(0)
        self.made += [task.row.index for task in batch]
        return [b"x" * self._size for _ in batch]

    def came(self, task, request):
        self.late.append(task.row.index)


@pytest.mark.parametrize(("size", "most"), [(10, ahead.MOST), (ahead.MOST_BYTES // 4, ahead.BATCH)])
async def test_no_more_than_the_bound_is_made(size, most):
    """In number, and in bytes to within a batch; what is taken makes place."""
    seen, work = Made(size), tasks(2 * ahead.MOST)
    making = Ahead(seen.make, work, seen.came)
    await making.fill()
    assert seen.made == list(range(most))
    for task in work[:most]:
        assert making.take(task) is not None
    await making.fill()
    assert len(seen.made) == 2 * most
    assert not seen.late


async def test_what_is_due_before_it_is_made_comes_as_soon_as_it_is():
    """Also from far behind the bound."""
    seen, work = Made(), tasks(3 * ahead.MOST)
    making = Ahead(seen.make, work, seen.came)
    await making.fill()
    assert making.take(work[-1]) is None
    keeping = asyncio.create_task(making.keep())
    async with asyncio.timeout(20):
        while not seen.late:
            await asyncio.sleep(0.001)
    keeping.cancel()
    assert seen.late == [3 * ahead.MOST - 1]


async def test_the_next_turn_of_a_session_goes_first():
    """Though the bound is reached."""
    seen, work = Made(), tasks(2 * ahead.MOST)
    making = Ahead(seen.make, work, seen.came)
    await making.fill()
    (follower,) = tasks(1, start=9999)
    making.soon(follower)
    await making.fill()
    assert making.take(follower) is not None
    assert seen.made[-1] == 9999
