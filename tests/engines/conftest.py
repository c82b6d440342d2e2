"""A real engine, the real command in front of it, and clients for both."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.engines.vllm_cpu import API_KEY, Vllm, end_group, running_vllm, tail
from tests.engines.wire import Tap, exchange

READY_S = 30
SETTLED_S = 10  # a record settles a quarter of a second after its request; a busy machine may take its time


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A running `perjoule serve`: where clients connect, and where its operator does."""

    listen: str
    admin: str
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, path: str) -> Any:
        """What the operator's port answers, as JSON."""
        answer = exchange(self.admin, path)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def records(self) -> list[dict[str, Any]]:
        """The latest records, one for each request."""
        records: list[dict[str, Any]] = self.ask("/energy?limit=1000")["records"]
        return records

    def record(self, request_id: str) -> dict[str, Any]:
        """The settled record of the request that was sent with this X-Request-Id; the only one."""
        def found() -> list[dict[str, Any]]:
            return [r for r in self.records() if r["request_id"] == request_id and r["settled"]]
        (record,) = eventually(found, f"a settled record of {request_id}")
        return dict(record)


def eventually(look: Callable[[], Any], what: str, patience_s: float = SETTLED_S) -> Any:
    """The first true value of `look`, which is asked again and again. Raises AssertionError."""
    deadline = time.monotonic() + patience_s
    while not (value := look()):
        assert time.monotonic() < deadline, f"waited {patience_s} s in vain for {what}"
        time.sleep(0.05)
    return value


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    """One vLLM for all tests."""
    python = os.environ.get("PERJOULE_VLLM_PYTHON")
    if not python:
        pytest.skip("PERJOULE_VLLM_PYTHON does not name the Python of an environment with vLLM; tests/run makes one")
    with running_vllm(str(Path(python).absolute()), tmp_path_factory.mktemp("vllm")) as engine:
        yield engine


@pytest.fixture(scope="session")
def tap(vllm: Vllm) -> Iterator[Tap]:
    """The same vLLM, with what it sends kept."""
    with Tap(vllm.url) as wire:
        yield wire


@pytest.fixture(scope="session")
def start_sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Sidecar]]:
    """Starts `perjoule serve` in front of an upstream; each must end well when it is told to."""
    running: list[Sidecar] = []

    def start(upstream: str, *flags: str) -> Sidecar:
        log = tmp_path_factory.mktemp("sidecar") / "serve.log"
        command = [str(Path(sys.executable).with_name("perjoule")), "serve", f"--upstream={upstream}",
                   "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", f"--ledger={log.with_name('ledger.sqlite3')}", *flags]
        with log.open("wb") as errors:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                                       start_new_session=True)
        assert process.stdout is not None
        with process.stdout as said:
            readable, _, _ = select.select([said], [], [], READY_S)
            line = said.readline() if readable else b""
        if not line:
            end_group(process)
            raise RuntimeError(f"perjoule serve did not come up (exit code {process.returncode}):\n{tail(log)}")
        ready = json.loads(line)
        running.append(Sidecar(ready["listen"], ready["admin"], process, log))
        return running[-1]

    yield start
    ends = [(end_group(sidecar.process), tail(sidecar.log)) for sidecar in running]
    assert all(code == 0 for code, _ in ends), ends


@pytest.fixture(scope="session")
def sidecar(start_sidecar: Callable[..., Sidecar], tap: Tap) -> Sidecar:
    """A sidecar as an operator starts it, its engine tapped."""
    return start_sidecar(tap.url, "--energy=simulated")


@pytest.fixture(scope="session")
def authorization() -> dict[str, str]:
    """What the engine wants to see in every request."""
    return {"authorization": f"Bearer {API_KEY}"}
