"""An engine and its board as a formula, calibrations that learned from it, and results of runs on it."""

from random import Random

from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.batching import Limits, batched
from perjoule.sidecar.metering.calibration import Calibration, Key
from perjoule.sidecar.metering.terms import Terms
from tests.fakes.traffic import SPAN_NS, TRUTH, drawn, poisson

IDLE_W = 126.0
SECONDS = Terms(3e-5, 0.005, 3e-5, 3e-8)


def calibration(noise=0.01, **key):
    """One that a minute of traffic has fitted to `TRUTH`."""
    random, made = Random(1), Calibration(Key(**{"gpu": "NVIDIA H200", "model": "meta-llama/Llama-3.1-8B", "engine": "vllm"} | key))
    for amounts, t_ns in poisson(random, 600):
        made.learn(amounts, drawn(random, amounts, TRUTH, noise), t_ns, SPAN_NS)
    assert made.state == "fitted"
    return made


def result(concurrency, *, model="org/Model-8B", gpu="NVIDIA H200", prompt=500, output=200, costs=TRUTH, run_id=None, setting=None, **more):
    """The result of a closed loop on the engine above, whose joules are what the amounts cost."""
    count = 4 * concurrency + 20
    found = batched([Asked(prompt, output)] * count, SECONDS, Limits(concurrency=concurrency))
    amounts = [share.amounts for share in found.shares]
    energy_j = sum(costs.dot(each) for each in amounts) + IDLE_W * found.busy_s
    prefill_j = costs.prefill * prompt * count
    window = {"energy_j": energy_j, "output_tokens": output * count, "input_tokens": prompt * count, "duration_s": found.busy_s,
              "avg_batch_size": found.batch}
    return {"schema_version": 1, "kind": "replay", "run_id": run_id or f"{model}{gpu}{concurrency}{prompt}{output}", "valid": True,
            "partial": False, "date": "2026-11-21", "completed": count, "total_input_tokens": prompt * count,
            "total_output_tokens": output * count, "load": {"concurrency": concurrency},
            "setting": {"model_id": model, "gpu_model": gpu, "num_gpus": 1, "weight_precision": "bfloat16", "engine": "vllm",
                        "power_limit_w": 700.0, "energy_status": "measured"} | (setting or {}),
            "windows": {"whole": window, "steady": None, "mlenergy": None},
            "metrics": {"prefill_j": {"value": prefill_j}, "decode_j": {"value": energy_j - prefill_j}}} | more
