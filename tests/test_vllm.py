"""The part of the plugin that knows no vLLM: what it makes of an engine's statistics, and that it waits for nobody."""

import json
import socket
import subprocess
import sys
import time
from contextlib import closing
from types import SimpleNamespace

import pytest

from perjoule.vllm.telling import KEPT, Telling


def scheduler(running=1, **more):
    return SimpleNamespace(num_running_reqs=running, num_waiting_reqs=0, **more)


def details(tokens, **more):
    return SimpleNamespace(num_ctx_tokens=tokens, elapsed_ms=12.5, **more)


def iteration(output=1, since_s=(), total=0, cached=0):
    return SimpleNamespace(iteration_timestamp=time.time_ns() / 1e9, num_generation_tokens=output, num_preempted_reqs=0,
                           time_to_first_tokens_iter=list(since_s),
                           prompt_token_stats=SimpleNamespace(total=total, cached_tokens=cached))


@pytest.fixture
def sidecar(tmp_path):
    """A socket that is listened on, and who tells it."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(path)
        listening.setblocking(False)
        with closing(Telling(f"unix:{path}")) as telling:
            yield listening, telling


def read(listening):
    """All steps that wait."""
    steps = []
    while True:
        try:
            steps += json.loads(listening.recv(1 << 18))["steps"]
        except BlockingIOError:
            return steps


def test_steps_are_told_with_what_they_computed(sidecar):
    """The end of the step, when those whose prompts were done had arrived, and their tokens."""
    listening, telling = sidecar
    before_ns = time.monotonic_ns()
    telling.tell(3, scheduler(iteration_details=details(50)), iteration(2, [0.5], 60, 10), has_details=True)
    (step,) = read(listening)
    assert (step["n"], step["rank"], step["running"], step["prefill"], step["took_ns"]) == (1, 3, 1, 50, 12_500_000)
    assert (step["output"], step["prompts"], step["cached"]) == (2, 60, 10)
    assert before_ns - 50_000_000 <= step["end_ns"] <= time.monotonic_ns()
    assert step["end_ns"] - step["firsts"][0] == 500_000_000


@pytest.mark.parametrize(("stats", "outputs", "has_details", "number"), [
    (scheduler(0), None, False, None),  # the engine only cleans up
    (scheduler(2), None, False, 1),  # a part of a long prompt
    (scheduler(0), iteration(), False, 1),  # the last token of the last one
    (None, iteration(), False, 0),  # outputs, of whose step another process tells
    (scheduler(2, iteration_details=None), None, True, None),  # nothing was scheduled
    (scheduler(0, iteration_details=details(0, is_dummy=True)), None, True, None),  # a rank that keeps others company
    (scheduler(2, iteration_details=details(9, is_dummy=False)), None, True, 1),
])
def test_what_is_a_step_and_what_is_none(sidecar, stats, outputs, has_details, number):
    """By details where there are any, else by what came out and who runs."""
    listening, telling = sidecar
    telling.tell(0, stats, outputs, has_details=has_details)
    assert [step["n"] for step in read(listening)] == ([] if number is None else [number])


def test_a_sidecar_that_does_not_read_is_told_later(sidecar):
    """Nothing waits, and what the kernel does not take goes along with the next; the oldest are left out beyond a limit."""
    listening, telling = sidecar
    told = 0
    while not telling._kept:
        telling.tell(0, scheduler(), None, has_details=False)
        told += 1
    taken = told - 1
    for _ in range(KEPT + 10):
        telling.tell(0, scheduler(), None, has_details=False)
        told += 1
    assert [step["n"] for step in read(listening)] == list(range(1, taken + 1))
    telling.tell(0, scheduler(), None, has_details=False)
    assert [step["n"] for step in read(listening)] == list(range(told + 2 - KEPT, told + 2))


def test_nobody_there_is_no_trouble(tmp_path):
    """No sidecar, then one: it hears of the steps from then on."""
    path = tmp_path / "s"
    with closing(Telling(f"unix:{path}")) as telling, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        for _ in range(3):
            telling.tell(0, scheduler(), None, has_details=False)
        assert telling.trouble == "No such file or directory"
        listening.bind(str(path))
        listening.setblocking(False)
        telling.tell(0, scheduler(), None, has_details=False)
        assert [step["n"] for step in read(listening)] == [4]


def test_an_engine_loads_next_to_nothing_for_it():
    """In vLLM's process there is already enough: the sender brings none of the sidecar's libraries."""
    code = "import sys; before = set(sys.modules); import perjoule.vllm.telling; print(*set(sys.modules) - before)"
    brought = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.split()
    outside = {name.partition(".")[0] for name in brought} - set(sys.stdlib_module_names)
    assert {name for name in outside if not name.startswith("_")} <= {"perjoule"}
    assert not [name for name in brought if name.startswith(("perjoule.sidecar", "perjoule.adapters"))]
