"""CPU time and memory of a process and its children are what the kernel counts."""

import asyncio
import os
import sys

import pytest

from perjoule.bench.child import program
from perjoule.bench.process_tree import cpu, memory, pids
from perjoule.sidecar.units import NS_PER_S

BUSY = """
import subprocess, sys, threading, time
def spin():
    until = time.thread_time() + 0.2
    while time.thread_time() < until: pass
parent = sys.argv[1] == "parent"
if parent:
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2], "child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
hold = bytearray(30_000_000)
spin()
other = threading.Thread(target=lambda: (spin(), print(child.stdout.readline() if parent else "", flush=True), time.sleep(60)), daemon=True)
other.start()
sys.stdin.read() if not parent else time.sleep(60)  # the child ends with its parent
"""


async def test_cpu_time_and_memory_of_all_threads_and_children_are_counted():
    """Two processes that each burn 0.2 s in their first thread and 0.2 s in another, and hold 30 MB, show all of it."""
    async with program(sys.executable, "-c", BUSY, "parent", BUSY, stdout=asyncio.subprocess.PIPE) as (process, _):
        assert await asyncio.wait_for(process.stdout.readline(), 60)
        spent, held = cpu(process.pid), memory(process.pid)
        assert len(list(pids(process.pid))) == 2
    assert spent.first_ns > 0.38 * NS_PER_S
    assert 0.38 * NS_PER_S < spent.others_ns < spent.first_ns
    assert spent.ns == spent.first_ns + spent.others_ns
    assert held.rss > 60_000_000
    assert held.pss is None or 60_000_000 < held.pss <= held.rss


def test_what_is_added_lies_between_two_looks():
    """The difference of two looks is what was spent between them, in this thread and in no other."""
    before = cpu(os.getpid())
    while cpu(os.getpid()).first_ns - before.first_ns < NS_PER_S // 20:
        sum(range(10_000))
    assert cpu(os.getpid()).since(before).first_ns >= NS_PER_S // 20


def test_a_process_that_is_gone_has_spent_nothing_more_and_holds_nothing():
    """CPU time of nobody is nothing; memory of nobody is an error, since 0 bytes would be a number."""
    assert cpu(2**22).ns == 0
    with pytest.raises(FileNotFoundError):
        memory(2**22)
