"""SGLang's server for images and videos, which is another program than the one for text."""

from perjoule.adapters.engines.adapter import Adapter, told_in_metrics
from perjoule.adapters.engines.pages import Pages, text
from perjoule.adapters.engines.samples import Names
from perjoule.adapters.engines.sglang import OWNER
from perjoule.sidecar.ports import Engine

NAMES = Names("sglang:diffusion_num_running_reqs", "sglang:diffusion_num_queue_reqs", rank="replica", whole=True)


async def recognise(pages: Pages) -> Engine | None:
    """By the task on the card of its model."""
    card = await pages.model()
    if card.get("owned_by") != OWNER or "task_type" not in card:
        return None
    return Engine("sglang-diffusion", None, text(card.get("root")) or text(card.get("id")), text(card.get("dit_precision")))


ADAPTER = Adapter("sglang-diffusion", recognise, told_in_metrics(NAMES))
