"""Which engine answers at an address, from what it says of itself at its version, model and metrics endpoints."""

import re
from typing import Any

import aiohttp
import orjson

from perjoule.sidecar.ports import Engine

TIMEOUT_S = 2.0
OWNERS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "openai"}
MODEL_OF_METRICS = re.compile(rb'^vllm:.*model_name="([^"]+)"', re.MULTILINE)


async def recognise(url: str) -> Engine | None:
    """The engine, named as in `--engine`: vllm, sglang, tgi, or openai for whatever else speaks HTTP; None if nobody answers.

    Asks only what needs no key: vLLM guards `/v1` with one, but not `/version` and `/metrics` (proxies.md, section 4).
    """
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session:
            first = _first(_json(await _get(session, url, "/v1/models")))
            owner, model = OWNERS.get(str(first.get("owned_by"))), _text(first.get("root")) or _text(first.get("id"))
            metrics = b"" if owner else await _get(session, url, "/metrics")
            if owner == "vllm" or b"vllm:" in metrics:
                said = MODEL_OF_METRICS.search(metrics)
                version = _json(await _get(session, url, "/version")).get("version")
                return Engine("vllm", _text(version), model or (said[1].decode() if said else None))
            if owner == "sglang":
                info = _json(await _get(session, url, "/get_server_info"))
                return Engine("sglang", _text(info.get("version")), model, _text(info.get("quantization")) or _text(info.get("dtype")))
            info = {} if owner else _json(await _get(session, url, "/info"))
            if "max_concurrent_requests" in info:
                return Engine("tgi", _text(info.get("version")), _text(info.get("model_id")) or model, _text(info.get("model_dtype")))
            return Engine("openai", None, model)
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None


def _first(models: dict[str, Any]) -> dict[str, Any]:
    """The model that the engine names first: the one it was started with, before adapters of it."""
    data = models.get("data")
    first = data[0] if isinstance(data, list) and data else None
    return first if isinstance(first, dict) else {}


async def _get(session: aiohttp.ClientSession, url: str, path: str) -> bytes:
    async with session.get(url.rstrip("/") + path, allow_redirects=False) as answer:
        return await answer.read() if answer.status == 200 else b""


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
