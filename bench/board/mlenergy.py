"""Results in the folders of ML.ENERGY's benchmark, as its own loader (`mlenergy-data`, LLMRuns.from_raw_results) reads them.

    OUT/llm/{gpu}/current/run/{suite}/{task}/results/{org}/{model}/{GPU}/num_gpus+…+max_num_seqs+…/results.json and prometheus.json
    OUT/configs/vllm/{task}/{org}/{model}/model_info.json and {GPU}/monolithic.config.yaml

The loader takes gaps between tokens from each request, which a result has no room for: they come from the samples.jsonl beside it."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perjoule.bench.board.mlenergy_files import SAMPLES, NotTheirsError, prometheus_json, results_json
from perjoule.bench.board.rows import gpu_name, number
from perjoule.bench.board.store import Result, Stored

SUITE = "perjoule"
PARAMETERS = re.compile(r"(?<![\w.])(?:(\d+)x)?(\d+(?:\.\d+)?)B(?:-A(\d+(?:\.\d+)?)B)?(?![\w.])", re.IGNORECASE)  # 8B, 30B-A3B, 8x7B


def export(stored: Stored, out: Path, models: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Write one result into their folders; answers the folder it is in. `models` tells what a model's name does not:
    `{model_id: {"total_parameters_billion": …, "active_parameters_billion": …, "nickname": …, "architecture": …}}`.

    Raises NotTheirsError for a result that is not valid, or has no steady state, no batch limit, no gaps between tokens or no size."""
    result = stored.result
    if not result["valid"]:
        raise NotTheirsError(f"not valid: {', '.join(str(reason.get('code')) for reason in result.get('reasons') or ())}")
    setting = result["setting"]
    org, model = _org_and_model(setting.get("model_id"))
    gpu, task, gpus = _slug(gpu_name(setting.get("gpu_model"))), _slug(setting.get("workload")), int(setting.get("num_gpus") or 1)
    info = model_info(str(setting.get("model_id")), setting.get("weight_precision"), (models or {}).get(setting.get("model_id"), {}))
    batch = _batch(result)
    results = results_json(result, stored.path.with_name(SAMPLES))
    keys = {"num_gpus": gpus, "max_num_seqs": batch, "seed": result["load"].get("seed"), "run": result["run_id"]}
    name = "+".join(f"{key}+{_slug(value)}" for key, value in keys.items() if value is not None)
    folder = out / "llm" / gpu.lower() / "current" / "run" / SUITE / task / "results" / org / model / gpu / name
    config = out / "configs" / "vllm" / task / org / model
    _write(folder / "results.json", results)
    _write(folder / "prometheus.json", prometheus_json(result, results["timeline"]))
    _write(config / "model_info.json", info)
    given = setting.get("engine_flags") or {}
    flags = {"tensor-parallel-size": gpus, **{str(key).lstrip("-").replace("_", "-"): value for key, value in given.items()}}
    _write(config / gpu / "monolithic.config.yaml", flags)  # JSON is YAML
    return folder


def model_info(model_id: str, precision: str | None, told: Mapping[str, Any]) -> dict[str, Any]:
    """Their model_info.json: what is told, else what the name says (8B; 30B-A3B). Raises NotTheirsError if neither tells the size."""
    total = number(told.get("total_parameters_billion"))
    active = number(told.get("active_parameters_billion"))
    if total is None and (size := PARAMETERS.search(model_id.rsplit("/", 1)[-1])):
        total = float(size[2]) if not size[1] else None  # 8x7B shares layers: its total is not 56
        active = float(size[3]) if size[3] else None
    if total is None:
        raise NotTheirsError(f"the name {model_id} does not tell the parameters, expected total_parameters_billion in --model-info")
    architecture = told.get("architecture") or ("MoE" if active and active < total else "Dense")
    named = {"nickname": str(told.get("nickname") or model_id.rsplit("/", 1)[-1]), "total_parameters_billion": total,
             "active_parameters_billion": active or total, "architecture": architecture}
    return {**named, "weight_precision": precision} if precision else named


def _batch(result: Result) -> int:
    """The largest batch that could form: the engine's limit or the client's, whichever is less. Theirs asks all at once, so that is one."""
    told = result["setting"].get("max_num_seqs"), result["load"].get("concurrency")
    limits = [value for one in told if (value := number(one)) and value > 0]
    if not limits:
        raise NotTheirsError("no batch limit, expected max_num_seqs of the engine or a concurrency")
    return math.floor(min(limits))


def _org_and_model(model_id: object) -> tuple[str, str]:
    if not isinstance(model_id, str) or not model_id:
        raise NotTheirsError(f"got model_id {model_id!r}, expected a name")
    org, _, model = model_id.strip("/").rpartition("/")
    return _slug(org or "local"), _slug(model)


def _slug(text: object) -> str:
    """A text as one part of a path that their parser, which divides at + and /, reads back."""
    return re.sub(r"[^\w.-]+", "-", str(text)).strip("-.") or "unknown" if text not in (None, "") else "unknown"


def _write(path: Path, found: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
