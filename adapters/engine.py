"""Which engine answers at an address, from what it says of itself at its version, model and metrics endpoints."""

from typing import Any

import aiohttp
import orjson

TIMEOUT_S = 2.0
OWNERS = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "openai"}


async def recognise(url: str) -> str | None:
    """The engine's name as in `--engine`: vllm, sglang, tgi, or openai for whatever else speaks HTTP; None if nobody answers.

    Asks only what needs no key: vLLM guards `/v1` with one, but not `/version` and `/metrics` (proxies.md, section 4).
    """
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False) as session:
            models = _json(await _get(session, url, "/v1/models"))
            owner = _owner(models)
            if owner is not None:
                return owner
            if b"vllm:" in await _get(session, url, "/metrics"):
                return "vllm"
            if "max_concurrent_requests" in _json(await _get(session, url, "/info")):
                return "tgi"
            return "openai"
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None


def _owner(models: dict[str, Any]) -> str | None:
    data = models.get("data")
    first = data[0] if isinstance(data, list) and data else None
    return OWNERS.get(str(first.get("owned_by"))) if isinstance(first, dict) else None


async def _get(session: aiohttp.ClientSession, url: str, path: str) -> bytes:
    async with session.get(url.rstrip("/") + path, allow_redirects=False) as answer:
        return await answer.read() if answer.status == 200 else b""


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
