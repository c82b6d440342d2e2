"""The plugin in a real vLLM: what it tells of each step is what the engine itself counts, and the sidecar does better by it."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.engines.serving import Sidecar, eventually, start
from tests.engines.vllm_cpu import API_KEY, MODEL, Vllm
from tests.engines.wire import exchange

pytestmark = pytest.mark.vllm

AUTHORIZATION = {"authorization": f"Bearer {API_KEY}"}
SHORT, LONG = 40, 1800  # prompt tokens


class StepsTap:
    """Listens where vLLM's plugin tells, keeps what it tells, and hands each datagram on to a sidecar's socket."""

    def __init__(self, vllm: Vllm, onward: Path) -> None:
        self.steps: list[dict[str, Any]] = []
        self.onward = onward
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._listening.bind(str(vllm.steps))
        self._listening.settimeout(0.1)
        self._closing = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def tell(self, datagram: bytes) -> None:
        """The sidecar, if it is there."""
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(datagram, str(self.onward))

    def close(self) -> None:
        """Listen no more."""
        self._closing = True
        self._thread.join()
        name = self._listening.getsockname()
        self._listening.close()
        Path(name).unlink()

    def _run(self) -> None:
        while not self._closing:
            with suppress(TimeoutError):
                datagram = self._listening.recv(1 << 18)
                self.steps += json.loads(datagram)["steps"]
                self.tell(datagram)


@pytest.fixture(scope="module")
def steps_tap(vllm: Vllm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StepsTap]:
    """What the plugin tells."""
    there = StepsTap(vllm, tmp_path_factory.mktemp("steps") / "sidecar.sock")
    yield there
    there.close()


@pytest.fixture(scope="module")
def inferring(start_sidecar: Callable[..., Sidecar], vllm: Vllm) -> Sidecar:
    """A sidecar in front of the engine that sees what clients see."""
    return start_sidecar(vllm.url, "--energy=simulated")


@pytest.fixture(scope="module")
def told(start_sidecar: Callable[..., Sidecar], inferring: Sidecar, steps_tap: StepsTap) -> Sidecar:
    """A sidecar in front of that one, so that both meter the same requests, to which the engine tells its steps."""
    return start_sidecar(inferring.listen, "--energy=simulated", "--engine=vllm", f"--steps=unix:{steps_tap.onward}")


def counted(url: str, name: str) -> float:
    """The sum of a metric."""
    found = re.findall(rb"^" + name.encode() + rb"(?:\{.*\})? (\S+)$", exchange(url, "/metrics").body, re.MULTILINE)
    assert found, name
    return sum(map(float, found))


def ask(url: str, prompt: int, tokens: int, *, stream: bool = False) -> str:
    """One completion of a prompt that nobody has sent before; answers its request id."""
    name = f"steps-{uuid4().hex}"
    words = [int(digit, 16) + 100 for digit in uuid4().hex[:16]]
    body = {"model": MODEL, "prompt": (words + [7] * prompt)[:prompt], "max_tokens": tokens, "ignore_eos": True, "stream": stream}
    got = exchange(url, "/v1/completions", body, AUTHORIZATION | {"x-request-id": name})
    assert got.status == 200, got
    return name


def at_once(url: str, *asked: tuple[int, int, bool]) -> list[str]:
    """Several, all at once: prompt tokens, output tokens, streamed or not."""
    with ThreadPoolExecutor(len(asked)) as clients:
        return [each.result() for each in [clients.submit(ask, url, prompt, tokens, stream=stream) for prompt, tokens, stream in asked]]


def at_rest(vllm: Vllm) -> bool:
    """Whether the engine runs nothing."""
    return counted(vllm.url, "vllm:num_requests_running") + counted(vllm.url, "vllm:num_requests_waiting") == 0


@pytest.mark.feature("vllm", "tokens-exact", "real")
@pytest.mark.feature("vllm", "cached-known", "real")
def test_what_is_told_is_what_the_engine_counts(vllm: Vllm, steps_tap: StepsTap) -> None:
    """Steps, prompt tokens, cached tokens and output tokens, to the last one, over prompts that take several steps and run side by side."""
    names = {"output": "vllm:generation_tokens_total", "prompts": "vllm:prompt_tokens_total", "cached": "vllm:prompt_tokens_cached_total",
             "steps": "vllm:iteration_tokens_total_count"}
    eventually(lambda: at_rest(vllm), "the engine to rest")
    before = {what: counted(vllm.url, name) for what, name in names.items()}
    began = len(steps_tap.steps)
    at_once(vllm.url, *[(LONG, 12, False)] * 3, *[(SHORT, 30, True)] * 3)
    ask(vllm.url, LONG, 1)
    same = {"model": MODEL, "prompt": [9] * LONG, "max_tokens": 2}
    for _ in range(2):
        exchange(vllm.url, "/v1/completions", same, AUTHORIZATION)
    change = {what: counted(vllm.url, name) - before[what] for what, name in names.items()}
    eventually(lambda: sum(step["output"] for step in steps_tap.steps[began:]) >= change["output"], "all steps to be told")
    steps = steps_tap.steps[began:]
    assert change["cached"] > 0
    for what in ("output", "prompts", "cached"):
        assert sum(step[what] or 0 for step in steps) == change[what], what
    assert sum(step["prefill"] for step in steps) == change["prompts"] - change["cached"]
    assert sum(step["output"] > 0 for step in steps) == change["steps"]
    assert sum(len(step["firsts"]) for step in steps) == 9
    assert [step["n"] for step in steps] == list(range(steps[0]["n"], steps[0]["n"] + len(steps)))
    assert any(step["prefill"] and not step["prompts"] for step in steps) or max(step["prefill"] for step in steps) < 3 * LONG
    assert all(0 <= step["end_ns"] - first_ns < 60 * 10**9 for step in steps for first_ns in step["firsts"])


@pytest.mark.feature("vllm", "stream", "real")
def test_of_streams_both_say_the_same(told: Sidecar, inferring: Sidecar, steps_tap: StepsTap) -> None:
    """Where everything is seen, the sidecar that only sees agrees with the one that is told: on a quiet machine to a tenth, on one so busy
    that a step takes a second to a third."""
    names = at_once(told.listen, *[(SHORT, 40, True)] * 4, *[(LONG, 8, True)] * 2)
    assert shares_apart(told, inferring, names) < 0.7
    assert counted(told.admin, "perjoule_engine_steps_told_total") > 0
    assert counted(told.admin, "perjoule_engine_steps_believed") == 1


@pytest.mark.feature("vllm", "non-stream", "real")
def test_of_hidden_answers_the_told_one_knows_whose_prompt_it_was(told: Sidecar, inferring: Sidecar, steps_tap: StepsTap) -> None:
    """Nobody streams: beside three short requests that decode, one comes for one token with a long prompt. Told of each step, nearly all
    that it costs is its prompt's, and next to nothing of what the others do, whichever comes first, its answer or the news of its step."""
    for _ in range(4):
        names = long_beside_three(told, steps_tap)
        one, *others = [told.record(name) for name in names]
        if {record["evidence"] for record in (one, *others)} == {"steps"}:
            break  # else the machine was so busy that news of a step took longer than it is waited for
    assert {record["evidence"] for record in (one, *others)} == {"steps"}
    assert one["prefill_uj"] > 0.8 * one["energy_uj"]
    assert all(record["prefill_uj"] < record["energy_uj"] / 2 for record in others)
    assert shares_apart(told, inferring, names) < 1.5
    balance = told.ask("/energy/balance")
    assert balance["measured_uj"] == balance["requests_uj"] + balance["idle_uj"] + balance["unattributed_uj"]


def long_beside_three(told: Sidecar, steps_tap: StepsTap) -> list[str]:
    """A long prompt for one token, sent once three others are being decoded; its request id, and theirs."""
    began = len(steps_tap.steps)
    with ThreadPoolExecutor(3) as clients:
        asking = [clients.submit(ask, told.listen, SHORT, 60) for _ in range(3)]
        eventually(lambda: sum(len(step["firsts"]) for step in steps_tap.steps[began:]) >= 3 or all(each.done() for each in asking),
                   "three to decode")
        long = ask(told.listen, LONG, 1)
        return [long, *(each.result() for each in asking)]


def shares_apart(told: Sidecar, inferring: Sidecar, names: list[str]) -> float:
    """Normalized L1 between two sidecars' shares of the same requests."""
    parts = [[sidecar.record(name)["energy_uj"] for name in names] for sidecar in (told, inferring)]
    return sum(abs(a / sum(parts[0]) - b / sum(parts[1])) for a, b in zip(*parts, strict=True))


def test_garbage_is_counted_and_changes_nothing(told: Sidecar, steps_tap: StepsTap) -> None:
    """Whoever may write to the socket can write nonsense; the engine is believed all the same."""
    before = counted(told.admin, "perjoule_engine_steps_ignored_total")
    for garbage in (b"", b"\x00" * 100, b'{"v":1}', b'{"v":1,"from":"x","steps":[{"n":1}]}', b"[" * 200_000):
        steps_tap.tell(garbage)
    eventually(lambda: counted(told.admin, "perjoule_engine_steps_ignored_total") >= before + 4, "garbage to be counted")
    name = ask(told.listen, SHORT, 5)
    assert told.record(name)["energy_uj"] > 0
    assert counted(told.admin, "perjoule_engine_steps_believed") == 1


def test_a_sidecar_that_is_killed_and_comes_back_is_told_again(vllm: Vllm, steps_tap: StepsTap,
                                                               tmp_path_factory: pytest.TempPathFactory) -> None:
    """The engine serves on while nobody listens, and the next sidecar takes the socket over that the killed one left."""
    onward, steps_tap.onward = steps_tap.onward, steps_tap.onward.with_name("again.sock")
    try:
        for _ in range(2):
            sidecar = start(vllm.url, tmp_path_factory.mktemp("killed"), "--energy=simulated", f"--steps=unix:{steps_tap.onward}")
            try:
                ask(sidecar.listen, SHORT, 3)
                eventually(lambda at=sidecar.admin: counted(at, "perjoule_engine_steps_told_total") >= 3, "steps to be told")
            finally:
                sidecar.process.kill()
                sidecar.process.wait()
            assert steps_tap.onward.is_socket()
            ask(vllm.url, SHORT, 3)  # nobody listens
    finally:
        steps_tap.onward = onward


def test_the_engine_was_not_harmed(vllm: Vllm, steps_tap: StepsTap) -> None:
    """Its log says that the plugin is there, and when nobody listened, and nothing else of it."""
    first, *others = [line for line in vllm.log.read_text(errors="replace").splitlines() if "perjoule:" in line]
    assert "steps are told to" in first
    assert all("told to nobody" in line for line in others), others
    assert len(others) < 5
    assert "Failed to load plugin perjoule" not in vllm.log.read_text(errors="replace")
    assert steps_tap.steps
