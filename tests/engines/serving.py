"""Starts the real command `perjoule serve`, and asks it what requests cost."""

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.engines.vllm_cpu import end_group, tail
from tests.engines.wire import Answer, exchange

READY_S = 30
SETTLED_S = 30  # a record settles a quarter of a second after its request; a busy machine may take its time


def eventually(look: Callable[[], Any], what: str) -> Any:
    """The first true value of `look`, which is asked again and again. Raises AssertionError."""
    deadline = time.monotonic() + SETTLED_S
    while not (value := look()):
        assert time.monotonic() < deadline, f"waited {SETTLED_S} s in vain for {what}"
        time.sleep(0.05)
    return value


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A running `perjoule serve`: where clients connect, where its operator does, and what it says."""

    listen: str
    admin: str
    process: subprocess.Popen[bytes]
    log: Path

    def ask(self, path: str) -> Any:
        """What the operator's port answers, as JSON."""
        answer = exchange(self.admin, path)
        assert answer.status == 200, answer
        return json.loads(answer.body)

    def told(self, answer: Answer) -> dict[str, Any]:
        """The record that an answer's own header names, once it is there."""
        def found() -> dict[str, Any] | None:
            got = exchange(self.listen, answer.headers["x-energy-record"])
            return dict(json.loads(got.body)) if got.status == 200 else None
        return dict(eventually(found, "the record that X-Energy-Record names"))

    def metered(self, path: str, payload: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
        """One request with a name of its own: its answer and its record."""
        name = uuid4().hex
        return exchange(self.listen, path, payload, {"x-request-id": name}), self.record(name)

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


def start(upstream: str, folder: Path, *flags: str) -> Sidecar:
    """A sidecar in front of `upstream`, ready, its ledger and log in `folder`. Raises RuntimeError with its log."""
    log = folder / "serve.log"
    command = [str(Path(sys.executable).with_name("perjoule")), "serve", f"--upstream={upstream}",
               "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", f"--ledger={folder / 'ledger.sqlite3'}",
               f"--calibrations={folder / 'calibrations'}", *flags]
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
    sidecar = Sidecar(ready["listen"], ready["admin"], process, log)
    if ready["energy"] == "simulated":
        eventually(lambda: _has_joules(sidecar), "the counter to change: who asks before that is told of no joules")
    return sidecar


def _has_joules(sidecar: Sidecar) -> bool:
    """Whether it has seen its counter change, as far as the operator's port tells without a token."""
    answer = exchange(sidecar.admin, "/energy/balance")
    return answer.status != 200 or json.loads(answer.body)["measured_uj"] > 0
