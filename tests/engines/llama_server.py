"""Starts the real server of llama.cpp on the CPU with the tiny model, where PERJOULE_LLAMA_SERVER names its binary.

No package index carries the binary, and building it takes ten minutes: CONTRIBUTING.md says how.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engines.process import Engine, python_with, running, tiny_model

MODEL = "tiny"
SLOTS = 16


@contextmanager
def running_llama(folder: Path, *flags: str) -> Iterator[Engine]:
    """A server without keys that runs as many requests at once as it has slots."""
    binary = os.environ.get("PERJOULE_LLAMA_SERVER")
    if not binary:
        pytest.skip("PERJOULE_LLAMA_SERVER does not name a llama-server; CONTRIBUTING.md says how to build one")
    model = tiny_model(python_with("gguf", "tokenizers"), folder, "gguf") / "model.gguf"

    def command(port: int) -> list[str]:
        settings = {"model": model, "alias": MODEL, "host": "127.0.0.1", "port": port, "parallel": SLOTS, "ctx-size": SLOTS * 1024,
                    "threads": 2}  # it takes no `--name=value`
        told = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        return [str(Path(binary).absolute()), *told, "--no-webui", *flags]

    with running(command, MODEL, folder) as engine:
        yield engine
