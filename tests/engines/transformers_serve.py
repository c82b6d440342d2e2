"""Starts the real `transformers serve` on the CPU with the tiny model, or with a tiny Whisper."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from tests.engines.process import Engine, python_with, running, tiny_model
from tests.engines.vllm_cpu import START_S

BATCHING = ("--continuous-batching", "--cb-block-size=32", "--cb-num-blocks=512", "--cb-max-batch-tokens=512")


@contextmanager
def running_transformers(folder: Path, *flags: str) -> Iterator[Engine]:
    """A server without keys that does one request after the other, or several at a time with the flags `BATCHING`."""
    python = python_with("transformers", "accelerate", "fastapi")
    model = tiny_model(python, folder / "model", "safetensors")

    def command(port: int) -> list[str]:
        return [str(Path(python).with_name("transformers")), "serve", str(model), "--host=127.0.0.1", f"--port={port}",
                "--device=cpu", "--dtype=bfloat16", "--log-level=info", *flags]

    with running(command, str(model), folder, {"HF_HUB_OFFLINE": "1"}) as engine:
        yield engine


@contextmanager
def running_whisper(folder: Path) -> Iterator[Engine]:
    """A server that has loaded its model."""
    python, model = python_with("transformers", "accelerate", "fastapi", "librosa"), folder / "model"
    subprocess.run([python, Path(__file__).with_name("tiny_whisper.py"), model], check=True, timeout=START_S)

    def command(port: int) -> list[str]:
        return [str(Path(python).with_name("transformers")), "serve", "--host=127.0.0.1", f"--port={port}", "--device=cpu",
                "--log-level=info"]

    with running(command, str(model), folder, {"HF_HUB_OFFLINE": "1"}) as engine:
        load = Request(f"{engine.url}/load_model", json.dumps({"model": engine.model}).encode(), {"content-type": "application/json"})
        with urlopen(load, timeout=START_S) as answer:
            said = answer.read()
        assert b'"ready"' in said, said
        yield engine
