"""An estimate by the length bins of "Energy Considerations of LLM Inference" (arXiv 2504.17674), and its offline estimate beside it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.batching import Limits, batched
from perjoule.bench.estimates.boards import Boards
from perjoule.bench.estimates.bounds import idealized_j
from perjoule.bench.estimates.costs import Costs
from perjoule.bench.estimates.estimate import Estimate, whole_j
from perjoule.bench.estimates.shapes import ModelShape
from perjoule.bench.workloads.bins import INPUT_BINS, OUTPUT_BINS, up


def by_bins(found: Estimate, costs: Costs | None, limits: Limits, shape: ModelShape | None, boards: Boards | None) -> list[dict[str, Any]]:
    """The length bins of "Energy Considerations" (its section 4.1): requests, joules as estimated, and per request beside it offline, in
    a full batch of requests of the bin's lengths, and idealized. What is longer than the last bin has None for that length."""
    bins: dict[tuple[int | None, int | None], list[int]] = {}
    for i, one in enumerate(found.asked):
        bins.setdefault((up(one.prompt, INPUT_BINS), up(one.output, OUTPUT_BINS)), []).append(i)
    rows = []
    for (prompt, output), places in sorted(bins.items(), key=lambda item: [each or math.inf for each in item[0]]):
        energy_j = sum(found.requests_j[i] for i in places)
        asked = [found.asked[i] for i in places]
        ideal = idealized_j(asked, shape, boards) / len(places) if shape and boards else None
        offline = offline_j(prompt, output, costs, limits, shape) if costs and prompt and output else None
        rows.append({"input_tokens": prompt, "output_tokens": output, "requests": len(places), "energy_j": energy_j,
                     "energy_per_request_j": energy_j / len(places), "offline_per_request_j": offline, "idealized_per_request_j": ideal})
    return rows


def offline_j(prompt: int, output: int, costs: Costs, limits: Limits, shape: ModelShape | None) -> float:
    """Joules of one request in a full batch of its like: as many as the engine takes and memory holds."""
    batch = max(1, min(limits.sequences, int(min(limits.kv_tokens, 1e9) // (prompt + output))))
    asked = [Asked(prompt, output)] * batch
    prompts = [shape.prompt_work(prompt)] * batch if shape and costs.attention else None
    return whole_j(batched(asked, costs.seconds, replace(limits, concurrency=batch), prompts), costs) / batch


def offline_total_j(rows: Sequence[dict[str, Any]]) -> float | None:
    """The paper's estimate of all: Σ N(I, O) / B(I, O) · E_batch(I, O); None where a bin has none."""
    each = [(row["requests"], row["offline_per_request_j"]) for row in rows]
    return None if any(joules is None for _, joules in each) else sum(count * joules for count, joules in each)
