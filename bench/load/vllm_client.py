"""vLLM's own load generator, `vllm bench serve`, as it is installed: driven step by step, to be compared with ours."""

import asyncio
import json
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

from perjoule.bench.child import FailedError, program
from perjoule.sidecar.units import NS_PER_S

# what `vllm bench serve` does with its arguments, again and again: to import vLLM takes a quarter of a minute
_SERVE = """
import argparse, json, sys
from vllm.benchmarks.serve import add_cli_args, main
parser = argparse.ArgumentParser()
add_cli_args(parser)
print("@ready", flush=True)
for line in open(sys.argv[1]):
    main(parser.parse_args(json.loads(line)))
    print("@done", flush=True)
"""
START_S, STEP_S = 120.0, 120.0


class VllmClient:
    """It, ready to be run. Its times are of `perf_counter`, which on Linux is the monotonic clock."""

    def __init__(self, process: Process, jobs_fd: int, tokenizer: str, folder: Path) -> None:
        self._process, self._jobs_fd, self._tokenizer, self._result = process, jobs_fd, tokenizer, folder / "step.json"

    async def run(self, url: str, requests: int, tokens: int, flags: Sequence[str]) -> Mapping[str, tuple[int, list[int]]]:
        """For each request by its id: when it was sent, and when each chunk came, in ns. Raises FailedError."""
        argv = ["--backend", "openai", "--base-url", url, "--endpoint", "/v1/completions", "--model", "golden",
                "--tokenizer", self._tokenizer, "--dataset-name", "random", "--random-input-len", "16", "--random-output-len", str(tokens),
                "--num-prompts", str(requests),
                "--disable-tqdm", "--ready-check-timeout-sec", "0", "--request-id-prefix", "vllm-", "--save-result", "--save-detailed",
                "--result-dir", str(self._result.parent), "--result-filename", self._result.name, *flags]
        os.write(self._jobs_fd, json.dumps(argv).encode() + b"\n")
        await told(self._process, b"@done\n", STEP_S)
        return seen(json.loads(await asyncio.to_thread(self._result.read_text)))


def seen(result: Mapping[str, Any]) -> Mapping[str, tuple[int, list[int]]]:
    """What its detailed result says of each request."""
    times = zip(result["start_times"], result["ttfts"], result["itls"], strict=True)
    return {f"vllm-{index}": (_ns(start), [_ns(at) for at in accumulate(gaps, initial=start + first)])
            for index, (start, first, gaps) in enumerate(times)}


def _ns(seconds: float) -> int:
    return round(seconds * NS_PER_S)


async def told(process: Process, word: bytes, patience_s: float) -> None:
    """Wait until it says this. Raises FailedError."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(patience_s):
            while (line := await process.stdout.readline()) != word:
                if not line:
                    raise FailedError("vllm bench serve ended")
    except TimeoutError:
        raise FailedError(f"vllm bench serve did not say {word.decode().strip()} within {patience_s:g} s") from None


@asynccontextmanager
async def vllm_client(python: str, tokenizer: str, folder: Path) -> AsyncIterator[VllmClient]:
    """vLLM's client, in a process of that Python. Raises FailedError with what it said, and OSError."""
    await asyncio.to_thread((folder / "serve.py").write_text, _SERVE)
    jobs = folder / "jobs"
    os.mkfifo(jobs)
    fd = os.open(jobs, os.O_RDWR)  # so that it does not wait for who reads
    try:
        async with program(python, str(folder / "serve.py"), str(jobs), stdout=PIPE) as (process, last_words):
            try:
                await told(process, b"@ready\n", START_S)
                yield VllmClient(process, fd, tokenizer, folder)
            except FailedError as error:
                raise FailedError(f"{error}: {last_words()}") from None
    finally:
        os.close(fd)
