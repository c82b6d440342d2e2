"""Results that look like those of real runs, made from a little physics: a device that reads weights and caches, step after step."""

import random
from typing import Any, NamedTuple

HEX = 16


class Model(NamedTuple):
    """A model and where it runs; parameters in billions."""

    model_id: str
    total: float
    active: float
    precision: str
    num_gpus: int
    output_tokens: int


class Gpu(NamedTuple):
    """What a GPU can do: bytes a second (TB), watts idle and at most."""

    name: str
    tb_per_s: float
    idle_w: float
    most_w: float


MODELS = (
    Model("meta-llama/Llama-3.1-8B-Instruct", 8, 8, "bfloat16", 1, 395),
    Model("Qwen/Qwen3-8B", 8.2, 8.2, "bfloat16", 1, 645),
    Model("Qwen/Qwen3-14B", 14.8, 14.8, "bfloat16", 1, 640),
    Model("Qwen/Qwen3-32B", 32.8, 32.8, "bfloat16", 2, 634),
    Model("Qwen/Qwen3-30B-A3B", 30.5, 3.3, "bfloat16", 1, 610),
    Model("openai/gpt-oss-20b", 21, 3.6, "mxfp4", 1, 720),
    Model("openai/gpt-oss-120b", 117, 5.1, "mxfp4", 2, 690),
    Model("meta-llama/Llama-3.1-70B-Instruct", 70.6, 70.6, "bfloat16", 4, 350),
    Model("mistralai/Mistral-Small-24B", 23.6, 23.6, "bfloat16", 1, 410),
    Model("google/gemma-3-27b-it", 27.4, 27.4, "bfloat16", 2, 520),
    Model("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", 8, 8, "bfloat16", 1, 1150),
    Model("meta-llama/Llama-3.1-405B-Instruct-FP8", 405, 405, "fp8", 8, 365),
)
GPUS = (Gpu("NVIDIA H100 80GB HBM3", 3.35, 95, 700), Gpu("NVIDIA H200", 4.8, 100, 700), Gpu("NVIDIA B200", 8.0, 140, 1000))
FORMULAS = {
    "energy_per_output_token/1": "energy of the steady window ÷ output tokens in it",
    "energy_per_response/1": "mean over completed requests of the joules that the sidecar attributed to each",
    "tokens_per_joule/1": "output tokens in the steady window ÷ its energy",
    "goodput_per_watt/1": "requests a second that met every objective ÷ average power",
    "wasted/1": "joules of requests that failed or were cancelled",
    "idle/1": "energy of windows in which nothing ran",
    "ttft/1": "first chunk with content − sent", "icl/1": "gaps between chunks with content, pooled over requests",
    "tpot/1": "(last chunk − first chunk) ÷ (output tokens − 1)",
    "output_tokens/1": "tokens by the engine's own count",
}


def result(model: Model = MODELS[0], gpu: Gpu = GPUS[0], concurrency: int = 64, *, seed: int = 1, workload: str = "lm-arena-chat",
           **changed: Any) -> dict[str, Any]:
    """One result, as `perjoule replay` would write it; `changed` replaces its top level."""
    rng = random.Random(f"{model.model_id} {gpu.name} {concurrency} {seed} {workload}")
    per_weight = {"bfloat16": 2.0, "fp8": 1.0, "mxfp4": 0.55}[model.precision]
    reached = min(1.0, (model.active / model.total) * (1 + concurrency / 12))  # of a mixture's experts, by some token of the step
    bandwidth = gpu.tb_per_s * 1e12 * model.num_gpus * 0.62
    itl_ms = 3.2 + 1e3 * (model.total * reached * 1e9 * per_weight + concurrency * 0.11e9 * (model.active / 8) ** 0.6) / bandwidth
    itl_ms *= rng.uniform(0.985, 1.015)
    tokens_per_s = concurrency * 1e3 / itl_ms * 0.97
    busy = 0.5 + 0.47 * (1 - 2.7 ** (-concurrency / 90))
    power_w = model.num_gpus * (gpu.idle_w + (gpu.most_w - gpu.idle_w) * busy) * rng.uniform(0.98, 1.02)
    per_token = power_w / tokens_per_s
    ttft_ms = 22 + itl_ms * 1.8 + 1e3 * 480 * model.active * 2e9 / (gpu.tb_per_s * 1.2e14 * model.num_gpus) * (1 + concurrency / 60)
    lengths = [max(4, int(rng.lognormvariate(0, 0.75) * model.output_tokens * 0.75)) for _ in range(min(400, 40 + concurrency))]
    per_response = [per_token * 0.93 * n + per_token * rng.uniform(12, 60) for n in lengths]
    ttfts = [ttft_ms * rng.lognormvariate(-0.1, 0.45) for _ in lengths]
    gaps = [itl_ms * rng.lognormvariate(0, 0.09) * (3.4 if rng.random() < 0.012 else 1) for _ in range(2000)]
    steady_s, ramp_s, drain_s = max(34.0, 60 - concurrency / 20), 4 + itl_ms / 6, 9.0
    energy_j = power_w * steady_s
    mean_response = sum(per_response) / len(per_response)
    answered, whole_j = len(lengths), energy_j * 1.13
    width = 0.004 + 0.03 / concurrency ** 0.5
    records_uj, idle_uj = int(whole_j * 0.957e6), int(whole_j * 0.041e6)
    counter_uj = records_uj + idle_uj + int(whole_j * 0.002e6)
    run_id = f"{rng.getrandbits(128):032x}"

    def metric(key: str, value: float, unit: str, spread: float | None = None, formula: str | None = None) -> dict[str, Any]:
        return {"value": value, "unit": unit, "formula": formula or f"{key}/1", "n": answered,
                "low": value * (1 - spread * 0.95) if spread else None, "high": value * (1 + spread * 1.05) if spread else None}

    return {
        "schema_version": 1, "kind": "replay", "run_id": run_id, "name": f"sweep-{seed}",
        "date": f"2026-11-{10 + seed % 18:02d}T12:00:00+00:00",
        "perjoule": "0.1.0", "partial": False, "valid": True, "reasons": [], "warnings": [],
        "setting": {"model_id": model.model_id, "model_revision": None, "weight_precision": model.precision, "engine": "vllm",
                    "engine_version": "0.25.1", "engine_flags": {"tensor-parallel-size": model.num_gpus, "max-num-seqs": 1024},
                    "gpu_model": gpu.name,
                    "num_gpus": model.num_gpus, "driver_version": "580.159.04", "power_limit_w": gpu.most_w, "max_num_seqs": 1024,
                    "energy_source": "nvml", "energy_status": "measured", "energy_method": "step-model", "boundary": "gpu-board",
                    "calibration_id": f"c-{model.total:g}", "workload": workload, "workload_sha256": "ab" * 32,
                    "workload_filters": ["max-context 8192"],
                    "schedule_sha256": f"{rng.getrandbits(64):016x}", "prompts": "token_ids",
                    "endpoint": "/v1/completions", "client_hosts": 1,
                    "client_processes": 2, "perjoule": "0.1.0"},
        "load": {"mode": "closed", "arrivals": None, "request_rate": None, "burstiness": None, "concurrency": concurrency,
                 "seed": seed, "time_scale": 1.0},
        "workload": {"name": workload, "source": "lmarena-ai/arena-human-preference-100k", "sha256": "ab" * 32,
                     "read": 1024, "kept": 1011,
                     "dropped": {"longer than 8192 tokens": 13}, "notes": ["Answers end by themselves, after 4096 tokens at most."]},
        "model_id": model.model_id, "gpu_model": gpu.name, "num_gpus": model.num_gpus, "max_num_seqs": 1024, "seed": seed,
        "num_prompts": answered, "request_rate": "inf", "max_concurrency": concurrency, "duration": ramp_s + steady_s + drain_s,
        "completed": answered,
        "total_input_tokens": answered * 480, "total_output_tokens": sum(lengths), "request_throughput": tokens_per_s / model.output_tokens,
        "output_throughput": tokens_per_s * 0.93, "total_token_throughput": tokens_per_s * 1.9,
        "steady_state_duration": steady_s, "steady_state_energy": energy_j, "steady_state_energy_per_token": per_token,
        **_flat("itl", gaps), **_flat("ttft", ttfts),
        "windows": {
            "whole": _window(0, ramp_s + steady_s + drain_s, whole_j, tokens_per_s * 0.93, concurrency * 0.9, "whole/1"),
            "steady": _window(ramp_s, ramp_s + steady_s, energy_j, tokens_per_s, concurrency * 0.985, "steady/full-batch/1"),
            "mlenergy": _window(ramp_s + 0.4, ramp_s + steady_s - 0.6, energy_j * 0.981, tokens_per_s, concurrency * 0.985, "mlenergy/1")},
        "metrics": {
            "energy_per_output_token": metric("energy_per_output_token", per_token, "J", width),
            "energy_per_response": metric("energy_per_response", mean_response, "J", width * 3.4),
            "tokens_per_joule": metric("tokens_per_joule", 1 / per_token, "tokens/J", width),
            "goodput_per_watt": metric("goodput_per_watt", tokens_per_s / model.output_tokens / power_w, "req/s/W"),
            "wasted_j": metric("wasted", 0.0, "J"), "idle_j": metric("idle", idle_uj / 1e6, "J")},
        "distributions": {
            "ttft": _distribution(ttfts, "ms", "ttft/1"), "icl": _distribution(gaps, "ms", "icl/1"),
            "tpot": _distribution([gap * 1.01 for gap in gaps], "ms", "tpot/1"),
            "energy_per_response": _distribution(per_response, "J", "energy_per_response/1"),
            "output_tokens": _distribution([float(n) for n in lengths], "tokens", "output_tokens/1")},
        "formulas": dict(FORMULAS),
        "outcomes": {"completed": answered, "errored": 0, "cancelled": 0, "unfinished": 0, "errors": {}},
        "closure": {"records_j": records_uj / 1e6, "counter_j": counter_uj / 1e6, "idle_j": idle_uj / 1e6,
                    "unattributed_j": (counter_uj - records_uj - idle_uj) / 1e6, "difference_uj": 0, "exact": True, "records": answered,
                    "requests": answered, "missing": 0},
        "client": {"send_lag_p99_ms": 0.41, "loop_lag_max_ms": 2.2, "near_zero_gap_share": 0.001, "token_mismatches": 0,
                   "processes": 2, "hosts": 1},
        "timeline": _timeline(rng, ramp_s, steady_s, drain_s, power_w, gpu.idle_w * model.num_gpus, concurrency),
        "histograms": {"energy_per_response_j": _histogram(per_response), "output_tokens": _histogram([float(n) for n in lengths]),
                       "ttft_ms": _histogram(ttfts), "icl_ms": _histogram(gaps)},
        "requests": {"index": list(range(answered)), "intended_s": [0.0] * answered, "sent_s": [0.0] * answered, "ttft_ms": ttfts,
                     "e2e_ms": [t + n * itl_ms for t, n in zip(ttfts, lengths, strict=True)], "input_tokens": [480] * answered,
                     "output_tokens": lengths, "energy_j": per_response, "prefill_j": [e * 0.08 for e in per_response],
                     "decode_j": [e * 0.92 for e in per_response], "uncertainty_j": [e * 0.02 for e in per_response],
                     "outcome": ["completed"] * answered},
        **changed,
    }


def invalid(made: dict[str, Any]) -> dict[str, Any]:
    """The same result of a client that could not keep up."""
    return {**made, "valid": False, "reasons": [
        {"code": "send_lag", "text": "p99 send lag 12 ms, expected at most 5 ms", "value": 12.0, "limit": 5.0}]}


def sweep(models: int = 12, concurrencies: tuple[int, ...] = (8, 32, 128, 512), gpus: int = 2, seeds: int = 1) -> list[dict[str, Any]]:
    """A leaderboard: models × GPUs × concurrencies × seeds, of which every thirteenth is not valid."""
    made = [result(model, gpu, concurrency, seed=seed, workload=workload) for model in MODELS[:models] for gpu in GPUS[:gpus]
            for concurrency in concurrencies for seed in range(1, seeds + 1)
            for workload in (("lm-arena-chat", "azure2023-code")[int(gpu.name.endswith("H200") and "Qwen" in model.model_id)],)]
    return [invalid(one) if at % 13 == 12 else one for at, one in enumerate(made)]


def _window(t0: float, t1: float, energy_j: float, tokens_per_s: float, batch: float, rule: str) -> dict[str, Any]:
    return {"t0_s": t0, "t1_s": t1, "duration_s": t1 - t0, "energy_j": energy_j, "attributed_j": energy_j * 0.96,
            "idle_j": energy_j * 0.038,
            "unattributed_j": energy_j * 0.002, "output_tokens": int(tokens_per_s * (t1 - t0)),
            "input_tokens": int(tokens_per_s * (t1 - t0) * 0.9),
            "requests": 100, "avg_power_w": energy_j / (t1 - t0), "avg_batch_size": batch, "rule": rule}


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _flat(name: str, values: list[float]) -> dict[str, float]:
    found = {f"{key}_{name}_ms": _quantile(values, share) for key, share in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))}
    return {f"mean_{name}_ms": sum(values) / len(values), f"median_{name}_ms": found[f"p50_{name}_ms"], f"std_{name}_ms": 1.0, **found}


def _distribution(values: list[float], unit: str, formula: str) -> dict[str, Any]:
    return {"unit": unit, "formula": formula, "n": len(values), "mean": sum(values) / len(values), "std": 1.0, "min": min(values),
            "p50": _quantile(values, 0.5), "p90": _quantile(values, 0.9), "p95": _quantile(values, 0.95), "p99": _quantile(values, 0.99),
            "max": max(values)}


def _histogram(values: list[float]) -> dict[str, list[float]]:
    low, high = min(values), max(values)
    step = (high - low) / 50 or 1.0
    counts = [0] * 50
    for value in values:
        counts[min(49, int((value - low) / step))] += 1
    return {"edges": [low + step * at for at in range(51)], "counts": [float(many) for many in counts]}


def _timeline(rng: random.Random, ramp_s: float, steady_s: float, drain_s: float, power_w: float, idle_w: float,
              concurrency: int) -> dict[str, Any]:
    many, total = 600, ramp_s + steady_s + drain_s
    t_s = [total * at / (many - 1) for at in range(many)]
    busy = [max(0.0, min(1.0, 0.3 + t / ramp_s, 1 - (t - ramp_s - steady_s) / drain_s)) for t in t_s]
    return {"t_s": t_s, "power_w": [idle_w + (power_w - idle_w) * b ** 0.4 * rng.uniform(0.975, 1.025) for b in busy],
            "in_flight": [round(concurrency * b) for b in busy], "temperature_c": [41 + 22 * min(1.0, t / 40) for t in t_s],
            "steady": [[ramp_s, ramp_s + steady_s]]}
