"""Starts the server over a real diffusers pipeline (`diffusers_server.py`) with the tiny one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engines.process import Engine, python_with, running

SERVER = Path(__file__).with_name("diffusers_server.py")


@contextmanager
def running_diffusers(folder: Path) -> Iterator[Engine]:
    """A server of images and videos, one at a time. Skips the test where diffusers is not installed."""
    python = python_with("diffusers", "accelerate", "PIL", "fastapi", "uvicorn")

    def command(port: int) -> list[str]:
        return [python, str(SERVER), f"--port={port}"]

    with running(command, "tiny", folder, {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}) as engine:
        yield engine
