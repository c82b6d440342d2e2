"""Results of replay as rows of a regression across models: what is known of a model and its GPUs, what was measured, what physics says."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from perjoule.bench.board.store import Result
from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.batching import Limits
from perjoule.bench.estimates.boards import Boards, boards_of
from perjoule.bench.estimates.bounds import limits_of
from perjoule.bench.estimates.costs import by_physics
from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.estimates.estimate import Estimate, estimated
from perjoule.bench.estimates.points import point_of
from perjoule.bench.estimates.shapes import ModelShape, shape_of

LOOPS = 3  # requests that follow each other in each place of a closed loop
FEATURES = ("parameters", "active parameters", "bytes of a weight", "prompt tokens", "output tokens", "batch", "bytes/s", "FLOP/s", "TDP")


class Row(NamedTuple):
    """One result: logarithms of `FEATURES`, of joules a response, and of what physics says of these."""

    model: str
    features: tuple[float, ...]
    energy: float
    physics: float


def features_of(shape: ModelShape, boards: Boards, prompt: float, output: float, batch: float) -> tuple[float, ...]:
    """Logarithms of `FEATURES`; of a group of boards their sum."""
    return tuple(map(math.log, (shape.parameters, shape.active_parameters, shape.weight_bytes, max(prompt, 1.0), max(output, 1.0),
                                max(batch, 1.0), boards.bytes_s * boards.count, boards.flop_s * boards.count, boards.tdp_w * boards.count)))


def rows_of(results: Sequence[Result]) -> tuple[list[Row], list[str]]:
    """A row for each valid result whose model and GPU are known by name, and why others have none."""
    rows, problems = [], []
    for result in results:
        setting = result["setting"]
        if not result["valid"] or result.get("partial"):
            problems.append(f"{result['run_id']}: not valid, or broken off")
            continue
        point = point_of(result)
        if point is None:
            problems.append(f"{result['run_id']}: no energy, tokens or batch")
            continue
        try:
            shape = shape_of(str(setting.get("model_id") or ""), setting.get("weight_precision"))
            boards = boards_of(str(setting.get("gpu_model") or ""), int(setting.get("num_gpus") or 1))
            response_j = point.prompt * point.prompt_token_j + point.output * point.output_token_j
            rows.append(row_of(str(setting.get("model_id")), shape, boards, (point.prompt, point.output), point.concurrency, response_j))
        except EstimateError as error:
            problems.append(f"{result['run_id']}: {error}")
            continue
    return rows, problems


def row_of(model: str, shape: ModelShape, boards: Boards, lengths: tuple[float, float], batch: float, response_j: float) -> Row:
    """A row of mean lengths, prompt and output. Raises EstimateError for a model that does not fit."""
    physics = in_a_loop(shape, boards, lengths, batch)
    return Row(model, features_of(shape, boards, *lengths, batch), math.log(response_j), math.log(physics.energy_j / len(physics.asked)))


def in_a_loop(shape: ModelShape, boards: Boards, lengths: tuple[float, float], batch: float) -> Estimate:
    """By physics, requests of equal lengths in a closed loop, long enough that its beginning and end matter little."""
    places, (prompt, output) = max(1, round(batch)), (max(1, round(length)) for length in lengths)
    limits = limits_of(shape, boards, Limits(places, concurrency=places))
    return estimated([Asked(prompt, output)] * (LOOPS * places), by_physics(shape, boards), limits, shape)
