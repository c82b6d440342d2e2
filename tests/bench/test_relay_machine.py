"""Relay, engine and load of the bench do not share a core where there are enough."""

import asyncio
import os
import sys

import pytest

from perjoule.bench.child import program
from perjoule.bench.relay_machine import divided, machine, on_cores, whole_cores

PRINT = "import os; print(*sorted(os.sched_getaffinity(0)))"


@pytest.mark.parametrize(("cpus", "for_relay", "expected"), [
    ([0, 1], 1, ([1], [0], [0])),
    ([0, 1, 2], 1, ([2], [0, 1], [0, 1])),
    ([4, 5, 6, 7], 1, ([7], [4], [5, 6])),
    (list(range(8)), 2, ([6, 7], [0, 1, 2], [3, 4, 5])),
])
def test_the_relay_has_its_cores_to_itself(cpus, for_relay, expected):
    """Engine and load share what is left, or halve it."""
    assert divided(cpus, for_relay) == expected


def test_one_core_is_not_enough():
    """A relay that shares its core with its load measures neither."""
    with pytest.raises(ValueError, match="got 1 cores, expected more than the 1"):
        divided([0])


def test_the_cores_are_some_that_we_may_use():
    """No core twice, none that is not ours."""
    cores = whole_cores()
    assert len(set(cores)) == len(cores) > 0
    assert set(cores) <= os.sched_getaffinity(0)


async def test_what_is_started_on_cores_stays_there():
    """A process inherits the cores of the block in which it was started; ours are what they were."""
    before = os.sched_getaffinity(0)
    core = max(before)
    with on_cores([core]):
        async with program(sys.executable, "-c", PRINT, stdout=asyncio.subprocess.PIPE) as (process, _):
            assert await asyncio.wait_for(process.stdout.readline(), 60) == b"%d\n" % core
            assert await asyncio.wait_for(process.stdout.read(), 60) == b""
    assert os.sched_getaffinity(0) == before


def test_the_machine_says_how_busy_it_is():
    """A reader must be able to doubt the numbers."""
    said = machine()
    assert len(said["load_average"]) == 3
    assert said["cpu"]
    assert said["cpus"] == os.cpu_count()
