"""Results of replay as points: what prompt and output tokens cost at the concurrency that was run."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from perjoule.bench.board.store import Result
from perjoule.bench.estimates.errors import EstimateError

SAME = ("model_id", "gpu_model", "num_gpus", "weight_precision", "engine", "power_limit_w")  # of results that make one curve


class Point(NamedTuple):
    """What was measured at one concurrency: that of a closed loop, else the mean number of requests in flight in the window that counts."""

    concurrency: float
    prompt_token_j: float  # 0 where a result does not tell prompts from outputs
    output_token_j: float
    output_tokens_s: float
    power_w: float
    prompt: float  # mean length
    output: float


def chosen(results: Sequence[Result], model: str | None = None, gpu: str | None = None) -> tuple[list[Result], list[str]]:
    """The valid results of one setting, and what is to be said of those left out. `model` and `gpu` are parts of names.

    Raises EstimateError where none is left, or more than one setting is."""
    notes = []
    of_name = [each for each in results if _within(model, each["setting"].get("model_id")) and
               _within(gpu, each["setting"].get("gpu_model"))]
    if not of_name:
        got = sorted({f"{each['setting'].get('model_id')} on {each['setting'].get('gpu_model')}" for each in results})
        raise EstimateError(f"--results: got none of {model or 'any model'} on {gpu or 'any GPU'}, expected one of {'; '.join(got)}")
    good = [each for each in of_name if each["valid"] and not each.get("partial")]
    if len(good) < len(of_name):
        notes.append(f"{len(of_name) - len(good)} results are left out: not valid, or broken off")
    if not good:
        raise EstimateError(f"--results: got {len(of_name)} results, none of them valid and whole, expected at least one")
    settings = sorted({tuple(str(each["setting"].get(key)) for key in SAME) for each in good})
    if len(settings) > 1:
        told = "; ".join(", ".join(f"{key} {value}" for key, value in zip(SAME, each, strict=True) if value != "None") for each in settings)
        raise EstimateError(f"--results: got {len(settings)} settings, expected one (--model, --gpu): {told}")
    if any(each["setting"].get("energy_status") == "simulated" for each in good):
        notes.append("the joules of these results are simulated")
    return good, notes


def point_of(result: Result) -> Point | None:
    """What a result adds; None where it lacks energy or tokens. Its steady window counts, else the whole run."""
    window = result["windows"].get("steady") or result["windows"].get("whole")
    completed = result.get("completed")
    if not window or not window.get("energy_j") or not window.get("output_tokens") or not completed or not window.get("duration_s"):
        return None
    prompts, outputs = result["total_input_tokens"], result["total_output_tokens"]
    output_token_j, prompt_token_j = window["energy_j"] / window["output_tokens"], 0.0
    prefill_j, decode_j = ((result["metrics"].get(key) or {}).get("value") for key in ("prefill_j", "decode_j"))
    if prefill_j and decode_j and prompts and outputs and window.get("input_tokens"):
        shape = prefill_j / prompts * window["input_tokens"] + decode_j / outputs * window["output_tokens"]
        scale = window["energy_j"] / shape  # what the records' parts leave out is spread over them
        prompt_token_j, output_token_j = scale * prefill_j / prompts, scale * decode_j / outputs
    batch = result["load"].get("concurrency") or window.get("avg_batch_size")
    if not batch:
        return None
    return Point(float(batch), prompt_token_j, output_token_j, window["output_tokens"] / window["duration_s"],
                 window["energy_j"] / window["duration_s"], prompts / completed, outputs / completed)


def merged(points: Sequence[Point]) -> list[Point]:
    """By rising concurrency; repeats, which are within a twentieth of each other, as their mean."""
    groups: list[list[Point]] = []
    for point in sorted(points):
        if groups and point.concurrency <= 1.05 * groups[-1][0].concurrency:
            groups[-1].append(point)
        else:
            groups.append([point])
    return [Point(*map(fmean, zip(*group, strict=True))) for group in groups]


def _within(part: str | None, whole: Any) -> bool:
    return not part or part.lower() in str(whole or "").lower()
