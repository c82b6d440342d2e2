"""Starts a real vLLM on the CPU, serving the tiny model, and stops all of its processes again."""

import os
import signal
import socket
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

MODEL = "tiny"
API_KEY = "sk-perjoule-tests"
MAX_NUM_SEQS = 32
START_S = 300  # a busy machine of two cores needs a hundred seconds, an idle one forty
FLAGS = [
    "--dtype=bfloat16", "--load-format=dummy", "--enforce-eager", "--max-model-len=2048",
    f"--max-num-seqs={MAX_NUM_SEQS}", "--enable-per-request-metrics", "--enable-prompt-tokens-details",
    "--enable-auto-tool-choice", "--tool-call-parser=hermes", "--enable-logging-iteration-details",
]
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_BSP_SCHEDULE_DELAY": "100",
    "VLLM_ENABLE_RESPONSES_API_STORE": "1",  # responses in the background
    "VLLM_SERVER_DEV_MODE": "1",  # the routes of developers, which an operator may have left on
    "TORCHDYNAMO_DISABLE": "1",  # else the first request with logprobs waits 25 s for a compiler
}


@dataclass(frozen=True, slots=True)
class Vllm:
    """A vLLM that answers at `url` to clients who know `API_KEY`, and writes to `log`. With our plugin in it, which tells of its steps at
    the unix socket `steps`, if somebody listens there."""

    url: str
    log: Path
    steps: Path


def tail(log: Path, lines: int = 30) -> str:
    """The last lines of a log, for a person who looks at a failure."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def end_group(process: subprocess.Popen[bytes], patience_s: float = 15) -> int | None:
    """SIGTERM to the leader of a group, then SIGKILL to all of the group; its exit code, None if it had to be killed.

    vLLM ignores SIGTERM while it starts, and its workers outlive it when it is killed: hence the group.
    """
    code = None
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        process.terminate()
        code = process.wait(patience_s)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return code


@contextmanager
def running_vllm(python: str, folder: Path, spans: str) -> Iterator[Vllm]:
    """A vLLM from the environment of `python`, which writes into `folder` and sends its spans to the OTLP/HTTP receiver at `spans`.
    Raises RuntimeError with its log."""
    model = folder / "model"
    subprocess.run([python, Path(__file__).with_name("tiny_model.py"), model], check=True, timeout=START_S)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # as a module: the `vllm` command of this build fails on its own version lookup
    command = [python, "-m", "vllm.entrypoints.openai.api_server", f"--model={model}", f"--served-model-name={MODEL}",
               "--host=127.0.0.1", f"--port={port}", f"--api-key={API_KEY}", f"--otlp-traces-endpoint={spans}/v1/traces", *FLAGS]
    vllm = Vllm(f"http://127.0.0.1:{port}", folder / "vllm.log", folder / "steps.sock")
    with vllm.log.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                                   env=os.environ | ENVIRONMENT | with_plugin(folder / "plugin", vllm.steps), start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while not _answers(vllm.url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"vLLM did not come up (exit code {process.poll()}):\n{tail(vllm.log)}")
            time.sleep(0.5)
        yield vllm
    finally:
        end_group(process)


def with_plugin(folder: Path, steps: Path) -> dict[str, str]:
    """The environment in which a Python has this checkout as an installed package, with the entry points that it declares, though its own
    environment is left as it is."""
    facts = folder / "perjoule-0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: perjoule\nVersion: 0\n")
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    (facts / "entry_points.txt").write_text("".join(
        f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in points.items()) for group, points in groups.items()))
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'src'}", "PERJOULE_STEPS": f"unix:{steps}"}


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False
