"""vLLM: its Python server and its Rust front end, from version 0.20 on.

Only `/v1/models`, `/version` and `/metrics` are asked, which both have; `/v1` alone is guarded by a key in the first. It does not name
its largest batch, nor (`/load`) how many it runs unless told to, but its metrics do, for each data-parallel rank. Versions name them
differently: the first that is there counts. The estimates of computing are there with `--enable-mfu-metrics`.
"""

import re

from perjoule.adapters.engines.adapter import Adapter, told_in_metrics
from perjoule.adapters.engines.pages import Pages, text
from perjoule.adapters.engines.samples import Names
from perjoule.sidecar.ports import Engine

MODEL_OF_METRICS = re.compile(rb'^vllm:.*model_name="([^"]+)"', re.MULTILINE)
NAMES = Names(
    "vllm:num_requests_running", "vllm:num_requests_waiting", rank="engine",
    kv_use=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"), preemptions=("vllm:num_preemptions_total",),
    prompt_tokens=("vllm:prompt_tokens_total",), output_tokens=("vllm:generation_tokens_total",),
    cached_tokens=("vllm:prompt_tokens_cached_total", "vllm:prefix_cache_hits_total"),
    flops=("vllm:estimated_flops_per_gpu_total",), read_bytes=("vllm:estimated_read_bytes_per_gpu_total",),
    written_bytes=("vllm:estimated_write_bytes_per_gpu_total",))


async def recognise(pages: Pages) -> Engine | None:
    """By who owns the model, or, if a key is needed to see that, by its metrics."""
    card = await pages.model()
    model = text(card.get("root")) or text(card.get("id"))
    if card.get("owned_by") != "vllm":
        metrics = b"" if card.get("owned_by") else await pages.body("/metrics")
        if b"vllm:" not in metrics:
            return None
        said = MODEL_OF_METRICS.search(metrics)
        model = model or (said[1].decode(errors="replace") if said else None)
    return Engine("vllm", text((await pages.object("/version")).get("version")), text(model))


ADAPTER = Adapter("vllm", recognise, told_in_metrics(NAMES))
