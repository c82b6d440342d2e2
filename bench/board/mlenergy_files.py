"""The two files of one run in ML.ENERGY's layout: results.json with every request, and prometheus.json with the batch that ran."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from perjoule.bench.board.rows import number
from perjoule.bench.board.store import Result

SAMPLES = "samples.jsonl"
SAME = ("date", "model_id", "seed", "num_prompts", "gpu_model", "num_gpus", "max_num_seqs", "request_rate", "max_concurrency", "duration",
        "completed", "total_input_tokens", "total_output_tokens", "request_throughput", "output_throughput", "total_token_throughput",
        *(f"{of}_{what}_ms" for what in ("ttft", "tpot", "itl", "e2el") for of in ("mean", "median", "std", "p50", "p90", "p95", "p99")))
NS_PER_S = 1e9


class NotTheirsError(ValueError):
    """A result that their layout has no place for; the message says what is missing."""


def results_json(result: Result, samples: Path) -> dict[str, Any]:
    """Their results.json. The steady state is their definition's where it was found, else ours; `steady_state_rule` says which."""
    windows, timeline = result["windows"], result.get("timeline") or {}
    steady = windows.get("mlenergy") or windows.get("steady")
    if not steady or not number(steady.get("energy_j")) or not number(steady.get("output_tokens")):
        raise NotTheirsError("no steady state, expected one with energy and tokens")
    per_token = steady["energy_j"] / steady["output_tokens"]
    start = datetime.fromisoformat(str(result.get("date"))).timestamp()
    found = {key: result[key] for key in SAME if key in result}
    power, heat = ([[start + t, value] for t, value in zip(timeline.get("t_s") or (), timeline.get(key) or (), strict=False)
                    if number(value) is not None] for key in ("power_w", "temperature_c"))
    found |= {
        "endpoint_type": result["setting"].get("endpoint"), "num_request_repeats": 1, "burstiness": result["load"].get("burstiness"),
        "steady_state_duration": steady["duration_s"], "steady_state_energy": steady["energy_j"],
        "steady_state_energy_per_token": per_token, "steady_state_rule": steady.get("rule"),
        "steady_state_measurement": {"time": steady["duration_s"], "gpu_energy": {"0": steady["energy_j"]}},  # all GPUs together
        "timeline": {"benchmark_start_time": start, "benchmark_end_time": start + float(result.get("duration") or 0),
                     "steady_state_start_time": start + steady["t0_s"], "steady_state_end_time": start + steady["t1_s"],
                     "power": {"device_instant": {"0": power}}, "temperature": {"0": heat}},
        "results": _requests(result, samples, per_token)}
    if whole := windows.get("whole"):
        found["entire_benchmark_measurement"] = {"time": whole["duration_s"], "gpu_energy": {"0": whole["energy_j"]}}
    return found


def _requests(result: Result, samples: Path, per_token: float) -> list[dict[str, Any]]:
    """Their rows of requests, without texts. `energy` is theirs, the rate × the length; `energy_measured_j` is what the request cost."""
    columns = result.get("requests") or {}
    measured = dict(zip(columns.get("index") or (), columns.get("energy_j") or (), strict=True))
    try:
        lines = [json.loads(line) for line in samples.read_text().splitlines() if line]
    except (OSError, ValueError) as error:
        raise NotTheirsError(f"no gaps between tokens: {error}, expected {SAMPLES} beside the result") from error
    rows = []
    for sample in lines:
        sent, first, last = sample["sent_ns"], sample.get("first_token_ns"), sample.get("last_token_ns")
        length = sample.get("output_tokens")
        rows.append({
            "input_len": sample.get("input_tokens"), "output_len": length, "success": sample.get("outcome") == "completed",
            "error": sample.get("error") or "", "ttft": (first - sent) / NS_PER_S if first else 0.0,
            "latency": ((last or sample.get("end_ns") or sent) - sent) / NS_PER_S,
            "itl": gaps_s(sample.get("chunk_ns") or (), length),
            "energy": per_token * length if length else None, "energy_measured_j": measured.get(sample.get("index"))})
    if not any(row["success"] and row["itl"] for row in rows):
        raise NotTheirsError(f"no gaps between tokens: got none in {samples}, expected streams that were completed")
    return rows


def gaps_s(chunk_ns: Sequence[int], tokens: int | None) -> list[float]:
    """Seconds before each chunk but the first, each followed by a zero for every further token in it: their way to say that tokens came
    together. How many came with which chunk is not known: they are spread evenly."""
    chunks, gaps = len(chunk_ns), list[float]()
    for at, (sooner, later) in enumerate(pairwise(chunk_ns), 1):
        many = (tokens or chunks) * (at + 1) // chunks - (tokens or chunks) * at // chunks
        gaps += [(later - sooner) / NS_PER_S, *[0.0] * (many - 1)]
    return gaps


def prometheus_json(result: Result, timeline: Mapping[str, Any]) -> dict[str, Any]:
    """Their prometheus.json; requests running are those in flight by our client's count, not by the engine's."""
    steady = result["windows"].get("mlenergy") or result["windows"]["steady"]
    batch = number(steady.get("avg_batch_size"))
    return {"collection_interval": None, "steady_state_start_time": timeline["steady_state_start_time"],
            "steady_state_end_time": timeline["steady_state_end_time"],
            "steady_state_stats": {} if batch is None else {"vllm:num_requests_running": batch}, "timeline": []}
