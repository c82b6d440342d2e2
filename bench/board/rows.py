"""A result as one flat row of the leaderboard: what ran, under which load, and its numbers with their units in their names."""

import math
import re
from collections.abc import Mapping
from typing import Any

PERCENTILES = ("p50", "p90", "p95", "p99")
SKU = re.compile(r"\b(?:[A-Z]{1,3}\d{2,4}[A-Z]*|MI\d{3}[A-Z]?)\b")  # H100, B200, GH200, L40S, MI300X
NO_SKU = re.compile(r"\b(NVIDIA|AMD|Intel|GeForce|Tesla|Instinct|Generation|Graphics|\(R\)|\(TM\))", re.IGNORECASE)


def row(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the table shows of a result; None where the result does not say."""
    setting, load, windows = result["setting"], result["load"], result["windows"]
    steady = windows.get("steady") or {}
    whole = windows.get("whole") or {}
    per_token = metric(result, "energy_per_output_token")
    energy, low, high = (number(per_token.get(key)) for key in ("value", "low", "high"))
    return {
        "run_id": result["run_id"],
        "name": result.get("name"),
        "date": result.get("date"),
        "valid": result["valid"],
        "partial": bool(result.get("partial")),
        "model_id": setting.get("model_id"),
        "weight_precision": setting.get("weight_precision"),
        "gpu_model": setting.get("gpu_model"),
        "gpu": gpu_name(setting.get("gpu_model")),
        "num_gpus": setting.get("num_gpus"),
        "workload": setting.get("workload"),
        "load": load_text(load),
        "load_size": _first(load.get("concurrency"), load.get("request_rate"), load.get("time_scale")),
        "max_num_seqs": setting.get("max_num_seqs"),
        "energy_per_output_token_j": energy,
        "energy_per_output_token_low_j": low,
        "energy_per_output_token_high_j": high,
        "uncertainty": (high - low) / 2 / energy if energy and low is not None and high is not None else None,
        "energy_per_response_j": _first(metric(result, "energy_per_response").get("value"),
                                        _distribution(result, "energy_per_response").get("mean")),
        **{f"{p}_itl_ms": _latency(result, p, "itl", "icl") for p in PERCENTILES},
        **{f"{p}_ttft_ms": _latency(result, p, "ttft", "ttft") for p in PERCENTILES},
        "output_tokens_per_s": _rate(steady) or number(result.get("output_throughput")),
        "avg_power_w": _first(steady.get("avg_power_w"), whole.get("avg_power_w")),
        "steady_s": _first(steady.get("duration_s"), result.get("steady_state_duration")),
        "energy_status": setting.get("energy_status"),
    }


def number(found: object) -> float | None:
    """A finite number, else None: JSON has no other."""
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found) else None


def gpu_name(model: str | None) -> str | None:
    """A GPU as people say it: H100 for NVIDIA H100 80GB HBM3."""
    if not model:
        return None
    sku = SKU.search(model)
    return sku[0] if sku else " ".join(NO_SKU.sub(" ", model).split()) or model


def load_text(load: Mapping[str, Any]) -> str:
    """What was asked of the engine, in few words: `64 at once`, `8 req/s poisson`, `trace`."""
    parts: list[str] = []
    if load.get("concurrency"):
        parts.append(f"{load['concurrency']} at once")
    if (rate := number(load.get("request_rate"))) and load.get("mode") != "closed":
        parts.append(f"{rate:g} req/s")
    if (arrivals := load.get("arrivals")) and load.get("mode") == "open":
        parts.append(str(arrivals))
    if load.get("mode") == "trace":
        scale = number(load.get("time_scale")) or 1.0
        parts.insert(0, "trace" if scale == 1 else f"trace, time ×{scale:g}")
    return " ".join(parts) or str(load.get("mode") or "")


def metric(result: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A metric with its interval, as the result has it; empty where it has none."""
    found: Mapping[str, Any] = result["metrics"].get(key) or {}
    return found


def _distribution(result: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (result.get("distributions") or {}).get(key) or {}
    return found


def _latency(result: Mapping[str, Any], percentile: str, name: str, key: str) -> float | None:
    return _first(result.get(f"{percentile}_{name}_ms"), _distribution(result, key).get(percentile))


def _rate(window: Mapping[str, Any]) -> float | None:
    tokens, duration = number(window.get("output_tokens")), number(window.get("duration_s"))
    return tokens / duration if tokens and duration else None


def _first(*found: object) -> float | None:
    return next((value for one in found if (value := number(one)) is not None), None)
