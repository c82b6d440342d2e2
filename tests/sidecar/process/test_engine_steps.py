"""What an engine's plugin tells of its steps, over a real unix socket: read, counted, and nothing else believed."""

import asyncio
import json
import socket
import time
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.process.engine_steps import EngineSteps, Reader
from perjoule.vllm.telling import Telling
from tests.fakes.sidecar import post, sidecar
from tests.fakes.upstream import answer, scripted

NOW_NS = 10**15
STEP = {"n": 1, "rank": 0, "end_ns": NOW_NS, "took_ns": None, "running": 2, "waiting": 0, "prefill": 7, "output": 1, "preempted": 0,
        "firsts": [NOW_NS - 5], "prompts": 7, "cached": 3}


def datagram(*steps, **more):
    return json.dumps({"v": 1, "from": "a", "steps": [STEP | step for step in steps]} | more).encode()


class Desk:
    """Takes steps; one of rank 13 cannot be metered."""

    def __init__(self):
        self.steps, self.failures = [], 0

    def step(self, step):
        if step.rank == 13:
            raise ArithmeticError("no luck")
        self.steps.append(step)

    def failed(self):
        self.failures += 1


def test_a_step_is_read_as_it_was_told():
    """All that the meter uses of it."""
    (step,) = Reader().read(datagram({}), NOW_NS)
    assert (step.t_ns, step.steps, step.rank, step.took_ns) == (NOW_NS, 1, 0, None)
    assert (step.prefill_tokens, step.prompts_tokens, step.cached_tokens, step.first_arrivals_ns) == (7, 7, 3, (NOW_NS - 5,))


def test_numbers_say_how_many_were_missed():
    """By process and rank; one that begins anew counts as one, outputs without a step as none."""
    reader = Reader()
    told = [("a", 0, 5), ("a", 0, 6), ("a", 0, 9), ("a", 0, 9), ("a", 1, 3), ("b", 0, 0), ("b", 0, 1), ("a", 0, 1), ("a", 0, 10**9)]
    counted = [next(reader.read(datagram({"rank": rank, "n": n}, **{"from": source}), NOW_NS)).steps for source, rank, n in told]
    assert counted == [1, 1, 3, 0, 1, 0, 1, 1, 1]


@pytest.mark.parametrize("wrong", [
    b"", b"\xff", b"[]", b"null", b"[" * 100_000, datagram({}, v=2), datagram({}, **{"from": "x" * 65}), datagram(*[{}] * 65),
    datagram({"end_ns": NOW_NS - 61 * 10**9}), datagram({"end_ns": NOW_NS + 2 * 10**9}), datagram({"end_ns": True}), datagram({"rank": -1}),
    datagram({"prefill": 10**9}), datagram({"cached": 8}), datagram({"firsts": [NOW_NS + 10**10]}), datagram({"firsts": ["1"]}),
    datagram({"firsts": None}), datagram({"n": None}), datagram({"took_ns": -1}), datagram({"n": float("nan")}), datagram({}, steps=[[]]),
])
def test_what_cannot_be_is_refused(wrong):
    """With what was got and what was expected."""
    with pytest.raises(ValueError):
        list(Reader().read(wrong, NOW_NS))


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from([*STEP, "v", "from", "steps"]), inner)))
def test_any_json_is_a_step_or_refused(told):
    """There is no third way."""
    for text in (json.dumps(told), json.dumps({"v": 1, "from": "a", "steps": [told]})):
        with suppress(ValueError):
            assert all(step.steps >= 0 for step in Reader().read(text.encode(), NOW_NS))


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_the_plugin_sends_arrives_and_garbage_between_does_no_harm(tmp_path):
    """The plugin's own sender and the sidecar's own socket; what is no step is counted, and a step that cannot be metered stops nothing."""
    desk, path = Desk(), tmp_path / "steps.sock"
    listening = EngineSteps(str(path), 0o600, desk)
    listening.open()
    assert path.stat().st_mode & 0o777 == 0o600
    with closing(Telling(f"unix://{path}")) as telling, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        for rank in (0, 13, 0):
            telling.tell(rank, Scheduler(), None, has_details=False)
            stranger.sendto(b"garbage", str(path))
        await until(lambda: len(desk.steps) == 2 and listening.ignored == 3)
    listening.close()
    assert (listening.told, desk.failures) == (3, 1)
    assert all(0 <= time.monotonic_ns() - step.t_ns < 60 * 10**9 for step in desk.steps)
    assert not path.exists()


async def test_a_socket_that_was_left_behind_is_taken_and_one_in_use_is_not(tmp_path):
    """A sidecar that was killed leaves its file; one that runs keeps its own."""
    path = str(tmp_path / "steps.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as killed:
        killed.bind(path)
    first, second = EngineSteps(path, 0o600, Desk()), EngineSteps(path, 0o600, Desk())
    first.open()
    with pytest.raises(OSError, match="--steps: cannot listen on"):
        second.open()
    second.close()
    with closing(Telling(path)) as telling:
        telling.tell(0, Scheduler(), None, has_details=False)
        await until(lambda: first.told == 1)
    first.close()


async def test_nothing_is_listened_on_where_nothing_was_asked_for():
    """No path, no socket."""
    off = EngineSteps("", 0o600, Desk())
    off.open()
    off.close()


async def test_a_running_sidecar_divides_by_steps_while_they_are_told(tmp_path):
    """An answer that is not streamed takes a while: told of steps meanwhile, its record says that it was divided by them, and metrics that
    they were told."""
    path = f"unix:{tmp_path / 's'}"
    whole = answer(b'{"choices":[{"index":0,"text":"a"}],"usage":{"prompt_tokens":9,"completion_tokens":20,"total_tokens":29}}')
    async with scripted([1.0, whole]) as engine, sidecar(engine.url, steps=path) as front:
        with closing(Telling(path)) as telling:
            asking = asyncio.ensure_future(front.send(post("/v1/completions", b'{"model":"m","prompt":"some words"}')))
            while not asking.done():
                telling.tell(0, Scheduler(), None, has_details=False)
                await asyncio.sleep(0.02)
        (record,) = await front.records(1)
        shown, _ = await front.service.render_metrics("")
    assert record.charge.evidence in ("steps", "both")  # the first window may have been divided before the first step
    assert b"perjoule_engine_steps_believed" in shown
    assert b"perjoule_engine_steps_told_total 0" not in shown
    assert not (tmp_path / "s").exists()


class Scheduler:
    """What vLLM's scheduler says: two run."""

    num_running_reqs, num_waiting_reqs, iteration_details = 2, 0, None
