"""Starts the server of an engine on a free port, waits until it answers, and ends all of its processes again."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from tests.engines.vllm_cpu import START_S, end_group, tail

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Engine:
    """A server that answers at `url`, knows its model by the name `model`, and writes to `log`; `pid` leads its group of processes."""

    url: str
    model: str
    log: Path
    pid: int

    def cpu_s(self) -> float:
        """Seconds of CPU that its leading process has used, all threads together: it computes while this grows."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def rests(self, for_s: float = 0.5) -> bool:
        """Whether it computes next to nothing for a while."""
        before = self.cpu_s()
        time.sleep(for_s)
        return self.cpu_s() - before < for_s / 5


def python_with(*modules: str) -> str:
    """The Python of the environment with engines, which must have these modules; without it the test is skipped."""
    python = os.environ.get("PERJOULE_VLLM_PYTHON")
    if not python:
        pytest.skip("PERJOULE_VLLM_PYTHON does not name the Python of an environment with engines; tests/run makes one")
    lacks = "import importlib.util, sys; sys.exit(any(importlib.util.find_spec(name) is None for name in sys.argv[1:]))"
    if subprocess.run([python, "-c", lacks, *modules], timeout=START_S).returncode:
        pytest.skip(f"the environment of {python} lacks one of {', '.join(modules)}; tests/run installs them")
    return str(Path(python).absolute())


def tiny_model(python: str, folder: Path, weights: str = "") -> Path:
    """The tiny model in `folder`, with random weights as `safetensors` or `gguf` for an engine that does not make its own."""
    here = Path(__file__).parent
    subprocess.run([python, here / "tiny_model.py", folder], check=True, timeout=START_S)
    if weights:
        subprocess.run([python, here / "tiny_weights.py", folder, weights], check=True, timeout=START_S)
    return folder


@contextmanager
def running(command: Callable[[int], list[str]], model: str, folder: Path, environment: Mapping[str, str] | None = None,
            ready: str = "/health") -> Iterator[Engine]:
    """The server that `command` starts on a port, once GET `ready` is answered with 200. Raises RuntimeError with its log."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = folder / "engine.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command(port), stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder,
                                   env={**os.environ, **(environment or {})}, start_new_session=True)
    engine = Engine(f"http://127.0.0.1:{port}", model, log, process.pid)
    try:
        deadline = time.monotonic() + START_S
        while not _answers(engine.url + ready):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command(port)[0]} did not come up (exit code {process.poll()}):\n{tail(log)}")
            time.sleep(0.2)
        yield engine
    finally:
        end_group(process)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (HTTPError, URLError, OSError):
        return False
