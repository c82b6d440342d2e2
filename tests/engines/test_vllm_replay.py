"""`perjoule replay` against a real vLLM: lengths are kept to the token, every joule of the run is somebody's."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines.serving import Sidecar
from tests.engines.vllm_cpu import API_KEY, MODEL, Vllm

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.mark.vllm
@pytest.mark.slow
def test_a_trace_replayed(vllm: Vllm, start_sidecar: Callable[..., Sidecar], tmp_path: Path) -> None:
    """Five seconds of a trace with a request that the tiny model could not take: scaled to fit, which the result says."""
    sidecar = start_sidecar(vllm.url, "--energy=simulated")
    trace, out = tmp_path / "trace.csv", tmp_path / "run"
    rows = [(200 + 30 * number, 40 + number) for number in range(20)] + [(3000, 60)]
    trace.write_text(HEADER + "".join(f"2023-11-16 18:00:{number * 0.25:010.7f},{given},{wanted}\n"
                                      for number, (given, wanted) in enumerate(rows)))
    command = [sys.executable, "-m", "perjoule.main", "replay", f"--url={sidecar.listen}", f"--admin={sidecar.admin}", f"--model={MODEL}",
               "--api-key-env=PERJOULE_TEST_KEY", f"--trace=azure2023:{trace}", "--steady-min=1", f"--out={out}", "--quiet"]
    done = subprocess.run(command, env={**os.environ, "PERJOULE_TEST_KEY": API_KEY}, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "result.json").read_text())
    assert result["outcomes"]["completed"] == 21
    assert (result["closure"]["exact"], result["closure"]["missing"], result["client"]["token_mismatches"]) == (True, 0, 0)
    assert result["closure"]["records_j"] > 0
    assert any("scaled to fit" in note for note in result["workload"]["notes"])
    assert result["setting"]["engine"] == "vllm"
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert all(sample["input_tokens"] == sample["wanted_input_tokens"] for sample in samples)
    assert (out / "page.html").stat().st_size > 50_000
