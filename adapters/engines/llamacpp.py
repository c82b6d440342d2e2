"""llama.cpp's server, whose slots are its largest batch; with `--metrics` it tells its load."""

from perjoule.adapters.engines.adapter import Adapter, told_in_metrics
from perjoule.adapters.engines.pages import Pages, count, text
from perjoule.adapters.engines.samples import Names
from perjoule.sidecar.ports import Engine

NAMES = Names("llamacpp:requests_processing", "llamacpp:requests_deferred", prompt_tokens=("llamacpp:prompt_tokens_total",),
              cached_tokens=("llamacpp:prompt_tokens_cached_total",), output_tokens=("llamacpp:tokens_predicted_total",))


async def recognise(pages: Pages) -> Engine | None:
    """By who owns the model."""
    card = await pages.model()
    if card.get("owned_by") != "llamacpp":
        return None
    meta = card.get("meta")
    return Engine("llamacpp", text((await pages.object("/props")).get("build_info")), text(card.get("id")),
                  text(meta.get("ftype")) if isinstance(meta, dict) else None)


async def largest_batch(pages: Pages) -> int | None:
    """Its slots."""
    return count((await pages.object("/props")).get("total_slots"))


ADAPTER = Adapter("llamacpp", recognise, told_in_metrics(NAMES), largest_batch)
