"""What the engine says of itself where it is asked beside the traffic: who it is, how large its batch may be, how many it runs.

Without its key only what needs none is told: vLLM guards `/v1` with one, but not `/version` and `/metrics`. SGLang and llama.cpp name
the limit of their batch. vLLM does not: there, `running` at its plateau while somebody waits is the limit, and
`perjoule.sidecar.metering.steady_state.Plateau` tells when that can be believed.
"""

import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families

from perjoule.sidecar.http.addresses import Unix, read_origin
from perjoule.sidecar.ports import Engine

TIMEOUT_S = 2.0
OWNERS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "openai"}
MODEL_OF_METRICS = re.compile(rb'^vllm:.*model_name="([^"]+)"', re.MULTILINE)
LIMITS = (("/get_server_info", "max_running_requests"), ("/props", "total_slots"))  # SGLang; llama.cpp
QUEUES = (("vllm:num_requests_running", "vllm:num_requests_waiting"), ("sglang:num_running_reqs", "sglang:num_queue_reqs"),
          ("tgi_batch_current_size", "tgi_queue_size"), ("llamacpp:requests_processing", "llamacpp:requests_deferred"))
NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError)
GAUGES = tuple(gauge for both in QUEUES for gauge in both)

Get = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Queue:
    """Requests in the engine's batch and before it, over all its ranks."""

    running: int
    waiting: int


async def recognise(url: str, tls: ssl.SSLContext | None = None, key: str | None = None) -> Engine | None:
    """The engine, named as in `--engine`: vllm, sglang, tgi, or openai for whatever else speaks HTTP; None if nobody answers."""
    with suppress(*NO_ANSWER):
        async with _asking(url, tls, key) as get:
            first = _first(_object(await get("/v1/models")))
            owner, model = OWNERS.get(str(first.get("owned_by"))), _text(first.get("root")) or _text(first.get("id"))
            metrics = b"" if owner else await get("/metrics")
            if owner == "vllm" or b"vllm:" in metrics:
                said = MODEL_OF_METRICS.search(metrics)
                version = _object(await get("/version")).get("version")
                return Engine("vllm", _text(version), model or (said[1].decode() if said else None))
            if owner == "sglang":
                info = _object(await get("/get_server_info"))
                return Engine("sglang", _text(info.get("version")), model, _text(info.get("quantization")) or _text(info.get("dtype")))
            info = {} if owner else _object(await get("/info"))
            if "max_concurrent_requests" in info:
                return Engine("tgi", _text(info.get("version")), _text(info.get("model_id")) or model, _text(info.get("model_dtype")))
            return Engine("openai", None, model)
    return None


async def largest_batch(url: str, tls: ssl.SSLContext | None = None, key: str | None = None) -> int | None:
    """The limit that the engine names, None if it names none or does not answer."""
    with suppress(*NO_ANSWER):
        async with _asking(url, tls, key) as get:
            for path, field in LIMITS:
                limit = _object(await get(path)).get(field)
                if isinstance(limit, int) and limit > 0:
                    return limit
    return None


async def queue(url: str, tls: ssl.SSLContext | None = None, key: str | None = None) -> Queue | None:
    """How many run and wait now by the engine's own metrics; None if it has none that we know, or does not answer."""
    with suppress(*NO_ANSWER):
        async with _asking(url, tls, key) as get:
            return read_queue((await get("/metrics")).decode(errors="replace"))
    return None


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


@asynccontextmanager
async def _asking(url: str, tls: ssl.SSLContext | None, key: str | None) -> AsyncIterator[Get]:
    """Asks for paths of the engine at `url`: an answer's body, empty for one that is not 200. Raises what aiohttp raises."""
    address, base = read_origin(url).address, url.rstrip("/")
    connector: aiohttp.BaseConnector = aiohttp.TCPConnector(ssl=tls if tls is not None else True)
    if isinstance(address, Unix):
        connector, base = aiohttp.UnixConnector(address.path), "http://localhost"
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    shown = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=shown, cookie_jar=aiohttp.DummyCookieJar(),
                                     trust_env=False) as session:
        async def get(path: str) -> bytes:
            async with session.get(base + path, allow_redirects=False) as answer:
                return await answer.read() if answer.status == 200 else b""

        yield get


def _first(models: dict[str, Any]) -> dict[str, Any]:
    """The model that the engine names first: the one it was started with, before adapters of it."""
    data = models.get("data")
    first = data[0] if isinstance(data, list) and data else None
    return first if isinstance(first, dict) else {}


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
