"""What vLLM does beside writing text, for real: embeddings, pooling, scores and ranks, each charged by the tokens that it read.

A second vLLM takes most of a minute to start: these run where PERJOULE_POOLING is set.
"""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import pytest

from tests.engines.process import Engine, python_with, running, tiny_model
from tests.engines.serving import Sidecar
from tests.engines.vllm_cpu import ENVIRONMENT, MODEL
from tests.engines.wire import Answer, Tap, passed_on

pytestmark = pytest.mark.vllm

ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "embeddings": ("/v1/embeddings", {"input": "import os"}),
    "embeddings of several": ("/v1/embeddings", {"input": ["import os", "import sys", "def main():"]}),
    "embeddings as base64": ("/v1/embeddings", {"input": [5, 6, 7, 8], "encoding_format": "base64"}),
    "pooling": ("/pooling", {"input": "import os"}),
    "score": ("/score", {"text_1": "import", "text_2": ["import os", "def main():"]}),
    "rerank": ("/v1/rerank", {"query": "import", "documents": ["import os", "def main():"]}),
}


@pytest.fixture(scope="module")
def pooling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The tiny model, asked for what it makes of a text in place of more text."""
    if not os.environ.get("PERJOULE_POOLING"):
        pytest.skip("set PERJOULE_POOLING to start a second vLLM, for embeddings")
    python, folder = python_with("vllm"), tmp_path_factory.mktemp("pooling")
    model = tiny_model(python, folder / "model")

    def command(port: int) -> list[str]:
        return [python, "-m", "vllm.entrypoints.openai.api_server", f"--model={model}", f"--served-model-name={MODEL}",
                "--host=127.0.0.1", f"--port={port}", "--runner=pooling", "--dtype=bfloat16", "--load-format=dummy",
                "--enforce-eager", "--max-model-len=2048", "--max-num-seqs=16"]

    with running(command, MODEL, folder, ENVIRONMENT) as engine:
        yield engine


@pytest.fixture(scope="module")
def wire(pooling: Engine) -> Iterator[Tap]:
    """The engine, with what it sends kept."""
    with Tap(pooling.url) as tap:
        yield tap


@pytest.fixture(scope="module")
def guard(start_sidecar: Callable[..., Sidecar], wire: Tap) -> Sidecar:
    """A sidecar in front of it."""
    return start_sidecar(wire.url, "--energy=simulated")


def ask(guard: Sidecar, path: str, payload: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    """One request, its answer and its record."""
    return guard.metered(path, {"model": MODEL, **payload})


@pytest.mark.parametrize("what", ASKED)
def test_what_is_all_prompt_is_metered(what: str, wire: Tap, guard: Sidecar) -> None:
    """The engine's bytes and headers, joules beside them, and the tokens that usage counts."""
    got, record = ask(guard, *ASKED[what])
    assert got.status == 200
    assert passed_on(got, wire.answers[-1])
    assert float(got.headers["x-energy-joules"]) > 0
    assert record["input_tokens"] == json.loads(got.body)["usage"]["prompt_tokens"] > 0
    assert (record["input_source"], record["outcome"]) == ("usage", "completed")
    assert not record["output_tokens"]


def test_shares_are_by_work(guard: Sidecar) -> None:
    """Side by side in the engine's batches, again and again: an embedding of a thousand tokens costs about ten times one of a hundred."""
    def one(length: int) -> dict[str, Any]:
        return ask(guard, "/v1/embeddings", {"input": [7 + length % 11] * length})[1]

    with ThreadPoolExecutor(8) as clients:
        records = list(clients.map(one, [1000, 100] * 20))
    # the median: the one that a batch begins with is also charged for the time in which it may have been alone
    long, short = (median(r["energy_uj"] for r in records if r["input_tokens"] == length) for length in (1000, 100))
    assert 4 < long / short < 25
    balance = guard.ask("/energy/balance")
    assert balance["measured_uj"] == balance["requests_uj"] + balance["idle_uj"] + balance["unattributed_uj"]
