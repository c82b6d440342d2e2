"""SGLang, which names its largest batch; with `--enable-metrics` it tells its load, too.

Its gauges are written once in 40 decode steps, so they may be some seconds old.
"""

from typing import Any

from perjoule.adapters.engines.adapter import Adapter, told_in_metrics
from perjoule.adapters.engines.pages import Pages, count, text
from perjoule.adapters.engines.samples import Names
from perjoule.sidecar.ports import Engine

OWNER = "sglang"
NAMES = Names("sglang:num_running_reqs", "sglang:num_queue_reqs", rank="dp_rank", lag_s=5.0, kv_use=("sglang:token_usage",),
              preemptions=("sglang:num_retracted_requests_total",), prompt_tokens=("sglang:prompt_tokens_total",),
              cached_tokens=("sglang:cached_tokens_total",), output_tokens=("sglang:generation_tokens_total",))


async def recognise(pages: Pages) -> Engine | None:
    """By who owns the model; its server for images says so, too, but with a task."""
    card = await pages.model()
    if card.get("owned_by") != OWNER or "task_type" in card:
        return None
    info = await _info(pages)
    return Engine("sglang", text(info.get("version")), text(card.get("root")) or text(card.get("id")),
                  text(info.get("quantization")) or text(info.get("dtype")))


async def largest_batch(pages: Pages) -> int | None:
    """What its schedulers go by, over all ranks; earlier versions tell only what they were started with."""
    info = await _info(pages)
    states = info.get("internal_states")
    limits = [count(state.get("effective_max_running_requests_per_dp")) if isinstance(state, dict) else None
              for state in states] if isinstance(states, list) else []
    if limits and None not in limits:
        return sum(filter(None, limits))
    told = count(info.get("max_running_requests"))
    return told and told * (1 if info.get("enable_dp_attention") else count(info.get("dp_size")) or 1)


async def _info(pages: Pages) -> dict[str, Any]:
    """The page; earlier versions have it under its second name alone."""
    return await pages.object("/server_info") or await pages.object("/get_server_info")


ADAPTER = Adapter("sglang", recognise, told_in_metrics(NAMES), largest_batch)
