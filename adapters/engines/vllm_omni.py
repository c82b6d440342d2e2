"""vLLM-Omni: vLLM's server for images, videos and speech, which shows itself in its metrics.

Its models are owned by `vllm`, and its stages for text show vLLM's own metrics beside those of the whole.
"""

from perjoule.adapters.engines.adapter import Adapter, told_in_metrics
from perjoule.adapters.engines.pages import Pages, text
from perjoule.adapters.engines.samples import Names
from perjoule.sidecar.ports import Engine

NAMES = Names("vllm_omni:num_requests_running", "vllm_omni:num_requests_waiting", lag_s=2.0, whole=True)  # told once a second


async def recognise(pages: Pages) -> Engine | None:
    """By its metrics."""
    card = await pages.model()
    if card.get("owned_by") not in (None, "vllm", "vllm-omni") or b"vllm_omni:" not in await pages.body("/metrics"):
        return None
    version = text((await pages.object("/version")).get("version"))
    return Engine("vllm-omni", version, text(card.get("root")) or text(card.get("id")))


ADAPTER = Adapter("vllm-omni", recognise, told_in_metrics(NAMES))
