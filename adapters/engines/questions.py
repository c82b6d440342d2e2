"""What is asked of an engine beside the traffic: who it is, how large its batch may be, how much it has to do.

Without its key only what needs none is told. SGLang and llama.cpp name the limit of their batch, vLLM does not: there, `running` at
its plateau while somebody waits is the limit, and `perjoule.sidecar.metering.steady_state.Plateau` tells when that can be believed.
"""

import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

from perjoule.adapters.engines import comfyui, llamacpp, sglang, sglang_diffusion, tgi, transformers, vllm, vllm_omni
from perjoule.adapters.engines.adapter import Adapter
from perjoule.adapters.engines.pages import NO_ANSWER, Pages, pages_of, text
from perjoule.sidecar.ports import Engine, Load

T = TypeVar("T")
ADAPTERS: tuple[Adapter, ...] = tuple(
    module.ADAPTER for module in (vllm_omni, vllm, sglang_diffusion, sglang, llamacpp, tgi, comfyui, transformers))


async def recognise(url: str, tls: ssl.SSLContext | None = None, key: str | None = None, last: str = "") -> Engine | None:
    """The engine, named as in `--engine`, `openai` for whatever else speaks HTTP; None if nobody answers. Which one it was `last` is
    looked at first: it then costs the engine two short answers."""
    with suppress(*NO_ANSWER):
        async with pages_of(url, tls, key) as pages:
            for adapter in sorted(ADAPTERS, key=lambda adapter: adapter.name != last):
                found = await adapter.recognise(pages)
                if found is not None:
                    return found
            card = await pages.model()
            return Engine("openai", None, text(card.get("root")) or text(card.get("id")))
    return None


async def largest_batch(url: str, tls: ssl.SSLContext | None = None, key: str | None = None, name: str = "") -> int | None:
    """The limit that the engine names, over all its ranks; None if it names none or does not answer. `name` is what it was recognised
    as; of another, everybody's way is tried."""
    return await _first(url, tls, key, [adapter.largest_batch for adapter in _called(name)])


async def load(url: str, tls: ssl.SSLContext | None = None, key: str | None = None, name: str = "") -> Load | None:
    """What it has to do now; None if it has no metrics that we know, or does not answer."""
    return await _first(url, tls, key, [adapter.load for adapter in _called(name)])


def _called(name: str) -> Sequence[Adapter]:
    return [adapter for adapter in ADAPTERS if adapter.name == name] or ADAPTERS


async def _first(url: str, tls: ssl.SSLContext | None, key: str | None, ways: Iterable[Callable[[Pages], Awaitable[T | None]]]) -> T | None:
    """What the first of these finds that finds anything."""
    with suppress(*NO_ANSWER):
        async with pages_of(url, tls, key) as pages:
            for way in ways:
                if (found := await way(pages)) is not None:
                    return found
    return None
