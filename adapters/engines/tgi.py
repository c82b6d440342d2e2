"""Text Generation Inference, which says what it serves in `/info`; its `/v1/models` gives each model itself as its owner."""

from perjoule.adapters.engines.adapter import Adapter, told_in_metrics
from perjoule.adapters.engines.pages import Pages, count, text
from perjoule.adapters.engines.samples import Names
from perjoule.sidecar.ports import Engine

NAMES = Names("tgi_batch_current_size", "tgi_queue_size")


async def recognise(pages: Pages) -> Engine | None:
    """By the limits in `/info` that every version has."""
    info = await pages.object("/info")
    if "max_concurrent_requests" not in info:
        return None
    model = text(info.get("model_id")) or text((await pages.model()).get("id"))
    return Engine("tgi", text(info.get("version")), model, text(info.get("model_dtype")))


async def largest_batch(pages: Pages) -> int | None:
    """Version 2 names it where it was started with one (`--max-batch-size`); the memory for tokens is the usual limit."""
    return count((await pages.object("/info")).get("max_batch_size"))


ADAPTER = Adapter("tgi", recognise, told_in_metrics(NAMES), largest_batch)
