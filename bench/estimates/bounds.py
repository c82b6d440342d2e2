"""What needs no measurement and no simulation: the least that FLOPs allow, the most that TDP does, and how much memory holds."""

from collections.abc import Sequence
from dataclasses import replace

from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.batching import Limits
from perjoule.bench.estimates.boards import Boards
from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.estimates.shapes import ModelShape

MEMORY_FOR_MODEL = 0.9  # of a GPU's memory, as vLLM takes it


def idealized_j(asked: Sequence[Asked], shape: ModelShape, boards: Boards) -> float:
    """FLOPs / peak FLOP/s × TDP, the idealized baseline of "Energy Considerations" (arXiv 2504.17674, section 4.2), of lengths as they
    are, and of dense FLOP/s (the paper's are those with sparsity). Peak and TDP of several boards cancel."""
    return sum(shape.flop(one.prompt, one.output, one.cached) for one in asked) / boards.flop_s * boards.tdp_w


def tdp_j(duration_s: float, boards: Boards) -> float:
    """TDP × time: what is often taken where nothing is measured."""
    return boards.tdp_w * boards.count * duration_s


def limits_of(shape: ModelShape | None, boards: Boards, limits: Limits) -> Limits:
    """The limits with what memory adds to them: keys and values have what the weights leave. Without a shape memory is endless.

    Raises EstimateError where not even the weights fit."""
    if shape is None or not shape.kv_bytes:
        return limits
    memory, weights = MEMORY_FOR_MODEL * boards.memory_bytes * boards.count, shape.parameters * shape.weight_bytes
    if weights >= memory:
        raise EstimateError(f"got {weights / 1e9:.0f} GB of weights ({shape.name}), expected less than the {memory / 1e9:.0f} GB that "
                            f"{boards.count} × {boards.name} have for them: --gpus N, or --weight-bytes for a smaller precision")
    return replace(limits, kv_tokens=(memory - weights) / shape.kv_bytes)
