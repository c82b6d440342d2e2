"""How large the engine's batch may be: what it says of that itself, and how many it runs and keeps waiting at the moment.

SGLang and llama.cpp name their limit. vLLM does not: there, `running` at its plateau while somebody waits is the limit, and
`perjoule.sidecar.steady_state.Plateau` tells when that can be believed.
"""

from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 2.0
LIMITS = (("/get_server_info", "max_running_requests"), ("/props", "total_slots"))  # SGLang; llama.cpp
QUEUES = (("vllm:num_requests_running", "vllm:num_requests_waiting"), ("sglang:num_running_reqs", "sglang:num_queue_reqs"),
          ("tgi_batch_current_size", "tgi_queue_size"), ("llamacpp:requests_processing", "llamacpp:requests_deferred"))
GAUGES = tuple(gauge for both in QUEUES for gauge in both)


@dataclass(frozen=True, slots=True)
class Queue:
    """Requests in the engine's batch and before it, over all its ranks."""

    running: int
    waiting: int


async def largest_batch(url: str) -> int | None:
    """The limit that the engine names, None if it names none or does not answer."""
    for path, key in LIMITS:
        limit = _object(await _get(url, path)).get(key)
        if isinstance(limit, int) and limit > 0:
            return limit
    return None


async def queue(url: str) -> Queue | None:
    """How many run and wait now by the engine's own metrics; None if it has none that we know, or does not answer."""
    return read_queue((await _get(url, "/metrics")).decode(errors="replace"))


def read_queue(text: str) -> Queue | None:
    """The same from the text of a metrics page; None for what is none."""
    sums: dict[str, float] = {}
    told = "".join(line + "\n" for line in text.splitlines() if line.startswith(GAUGES))  # of hundreds: reading all takes 10 ms
    try:
        for family in text_string_to_metric_families(told):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        known = [Queue(int(sums[running]), int(sums[waiting])) for running, waiting in QUEUES if running in sums and waiting in sums]
        return known[0] if known else None
    except (ValueError, OverflowError):  # no such page, or no such number
        return None


async def _get(url: str, path: str) -> bytes:
    """The body of an answer that is one, else nothing."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session,
                    session.get(url.rstrip("/") + path, allow_redirects=False) as answer):
            return await answer.read() if answer.status == 200 else b""
    except (aiohttp.ClientError, TimeoutError, OSError):
        return b""


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
