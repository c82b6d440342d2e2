"""What ML.ENERGY's results say, under their names and by their definitions, so that both can be read side by side."""

from typing import Any

from perjoule.bench.measures.distribution import distribution, weighted
from perjoule.bench.measures.measured import Measured
from perjoule.sidecar.units import NS_PER_MS

STATISTICS = ("mean", "median", "std", "p50", "p90", "p95", "p99")


def ml_energys(run: Measured) -> dict[str, Any]:
    """Their flat fields. Where their steady state is empty or has no meaning (any load but a closed loop) ours stands for it, and
    `steady_state_rule` says so. Theirs counts an empty first chunk as the first token, ours does not.

    Source: ml-energy/benchmark at c1d6557, mlenergy/benchmark/llm/benchmark.py."""
    completed, whole, steady = run.completed, run.windows["whole"], run.windows["mlenergy"] or run.windows["steady"]
    duration_s = whole["duration_s"] if whole else 0.0
    tokens_in, tokens_out = sum(r.sample.input_tokens or 0 for r in completed), round(sum(r.tokens for r in completed))
    rate = run.load.get("request_rate")
    per_s = {"request_throughput": len(completed), "output_throughput": tokens_out, "total_token_throughput": tokens_in + tokens_out}
    latencies = {"ttft": distribution(r.ttft for r in completed), "tpot": distribution(r.tpot for r in completed), "itl": weighted(run.itl),
                 "e2el": distribution((s.last_token_ns - s.sent_ns) / NS_PER_MS for s in (r.sample for r in completed)
                                      if s.last_token_ns is not None)}
    return {
        **{key: run.setting.get(key) for key in ("model_id", "gpu_model", "num_gpus", "max_num_seqs")}, "seed": run.load.get("seed"),
        "num_prompts": run.planned, "request_rate": "inf" if rate is None else rate, "max_concurrency": run.load.get("concurrency"),
        "duration": duration_s, "completed": len(completed), "total_input_tokens": tokens_in, "total_output_tokens": tokens_out,
        **{key: amount / duration_s if duration_s else None for key, amount in per_s.items()},
        "steady_state_rule": steady["rule"] if steady else None,
        "steady_state_duration": steady["duration_s"] if steady else None,
        "steady_state_energy": steady["energy_j"] if steady else None,
        "steady_state_energy_per_token": steady["energy_per_output_token"] if steady else None,
        **{f"{statistic}_{name}_ms": each["p50" if statistic == "median" else statistic] if each else None
           for name, each in latencies.items() for statistic in STATISTICS},
    }
