"""ComfyUI, which computes one graph at a time and tells its queue as JSON."""

import asyncio

import orjson

from perjoule.adapters.engines.adapter import Adapter
from perjoule.adapters.engines.pages import Pages, text
from perjoule.sidecar.ports import Engine, Load


async def recognise(pages: Pages) -> Engine | None:
    """By what it says of the machine it runs on."""
    stats = await pages.object("/system_stats")
    system = stats.get("system")
    if not isinstance(system, dict) or not isinstance(stats.get("devices"), list):
        return None
    return Engine("comfyui", text(system.get("comfyui_version")))


async def largest_batch(pages: Pages) -> int | None:
    """One graph."""
    return 1 if await recognise(pages) else None


async def load(pages: Pages) -> Load | None:
    """What runs and what waits; the page holds the graphs themselves, so it may be long."""
    return await asyncio.to_thread(read_queue, await pages.body("/queue"))


def read_queue(page: bytes) -> Load | None:
    """The same from the page, None for what is none."""
    try:
        queue = orjson.loads(page)
    except orjson.JSONDecodeError:
        return None
    running, waiting = (queue.get(name) for name in ("queue_running", "queue_pending")) if isinstance(queue, dict) else (None, None)
    return Load(len(running), len(waiting), whole=True) if isinstance(running, list) and isinstance(waiting, list) else None


ADAPTER = Adapter("comfyui", recognise, load, largest_batch)
