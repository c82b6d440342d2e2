"""What a real vLLM says of itself beside the traffic, and that somebody who goes around the sidecar is seen."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from perjoule.adapters.engines.questions import largest_batch, load, recognise
from perjoule.sidecar.process.lookout import LOOK_EVERY_S
from tests.engines.serving import Sidecar
from tests.engines.vllm_cpu import API_KEY, MODEL, Vllm
from tests.engines.wire import exchange

pytestmark = pytest.mark.vllm

LONG = {"model": MODEL, "prompt": "import os", "max_tokens": 400, "ignore_eos": True, "stream": True}  # streamed, so that nobody gives up
KEY = {"authorization": f"Bearer {API_KEY}"}
PATIENCE_S = 20 * LOOK_EVERY_S


def test_it_is_recognised_and_tells_its_load(vllm: Vllm) -> None:
    """Version, model and counters; the counters go up by what was asked for."""
    async def ask() -> tuple[Any, ...]:
        return await recognise(vllm.url), await load(vllm.url, name="vllm"), await largest_batch(vllm.url, name="vllm")

    engine, before, limit = asyncio.run(ask())
    assert (engine.name, engine.version.partition("+")[0].count("."), limit) == ("vllm", 2, None)
    assert engine.model
    exchange(vllm.url, "/v1/completions", LONG | {"max_tokens": 7}, KEY)
    _, after, _ = asyncio.run(ask())
    assert list(after.ranks) == ["0"]
    assert after.output_tokens - before.output_tokens == 7
    assert after.prompt_tokens > before.prompt_tokens
    assert None not in (after.kv_use, after.preemptions, after.cached_tokens)


def test_who_goes_around_the_sidecar_is_seen(vllm: Vllm, start_sidecar: Callable[..., Sidecar]) -> None:
    """Two run past it all the time, one through it."""
    sidecar = start_sidecar(vllm.url, "--energy", "simulated")
    stop = threading.Event()

    def run(url: str) -> None:
        while not stop.is_set():
            exchange(url, "/v1/completions", LONG, KEY)

    threads = [threading.Thread(target=run, args=(url,)) for url in (sidecar.listen, vllm.url, vllm.url)]
    for thread in threads:
        thread.start()
    try:
        deadline, seen = time.monotonic() + PATIENCE_S, None
        while not (seen := (sidecar.ask("/readyz")["load"] or {}).get("unknown_requests")):
            assert time.monotonic() < deadline, f"waited {PATIENCE_S} s in vain for strangers to be seen"
            time.sleep(0.5)
        assert seen <= 2
    finally:
        stop.set()
        for thread in threads:
            thread.join()
