"""Runs whose every number is known, because they are made here: a closed loop on a board whose power is a formula."""

from random import Random

from perjoule.bench.load.sample import Observation, Sample
from perjoule.bench.measures.run import run_of

MS, S = 1_000_000, 1_000_000_000
STEP_NS = 20 * MS  # a token of each request in the batch
IDLE_W, BUSY_W, EACH_W = 100, 300, 10  # nothing runs; something does; each request more
LOOK_NS = 500 * MS
UUID = "GPU-1"

SETTING = {
    "model_id": "org/model", "model_revision": "abc", "weight_precision": "bfloat16", "engine": "vllm", "engine_version": "0.25.1",
    "engine_flags": {"max_num_seqs": 8}, "gpu_model": "H200", "num_gpus": 1, "driver_version": "580.1", "power_limit_w": 700.0,
    "max_num_seqs": 8, "energy_source": "nvml", "energy_status": "measured", "energy_method": "step-model", "boundary": "gpu-board",
    "calibration_id": None, "workload": "fixed", "workload_sha256": "", "workload_filters": [], "schedule_sha256": "s1",
    "prompts": "token_ids", "endpoint": "/v1/completions", "client_hosts": 1, "client_processes": 2, "perjoule": "0.1.0"}
LOAD = {"mode": "closed", "arrivals": None, "request_rate": None, "burstiness": None, "concurrency": 8, "seed": 1, "time_scale": 1.0}


def asked(**more):
    """run.json of a run that lacks nothing."""
    return {"run_id": "0190", "name": "made", "date": "2026-11-21T12:00:00+00:00", "perjoule": "0.1.0", "partial": False,
            "exact_lengths": True, "objectives": "ttft:100ms e2e:10s", "setting": SETTING, "load": LOAD,
            "workload": {"name": "fixed", "source": "fixed:64,50", "sha256": "", "read": 1, "kept": 1, "dropped": {}, "notes": []}} | more


def closed_loop(places=8, rounds=20, *, seed=1, lead_s=1.0, microjoules=None):
    """(samples, records, observations): each place sends its next request when its last one has ended. A request's record is its share of
    each step by equal parts; power is `BUSY_W` and `EACH_W` a request, and `microjoules` may change each step's (t_ns, µJ)."""
    random, samples = Random(seed), []
    for place in range(places):
        t_ns = round(lead_s * S)
        for turn in range(rounds):
            n = random.randrange(20, 60)
            chunks = [t_ns + STEP_NS * (i + 1) for i in range(n)]
            samples.append(Sample(turn * places + place, t_ns, t_ns, chunks[0], chunks[0], chunks[-1], chunks[-1], chunks, 64, n,
                                  wanted_input_tokens=64, wanted_output_tokens=n, http_status=200, outcome="completed",
                                  request_id=f"run-{turn * places + place}", record_id=f"r{turn * places + place}", client=place % 2))
            t_ns = chunks[-1]
    samples.sort(key=lambda sample: sample.index)
    last_ns = max(sample.end_ns for sample in samples) + S
    charged, counter, idle_uj = dict.fromkeys(range(len(samples)), 0), [(0, 0, 0, 0)], 0
    running = {}
    for sample in samples:
        for t_ns in range(sample.sent_ns, sample.end_ns, STEP_NS):
            running.setdefault(t_ns, []).append(sample.index)
    for t_ns in range(0, last_ns, STEP_NS):
        here = running.get(t_ns, [])
        uj = (BUSY_W + EACH_W * len(here) if here else IDLE_W) * STEP_NS // 1000
        uj = microjoules(t_ns, uj) if microjoules else uj
        for nth, index in enumerate(here):
            charged[index] += uj // len(here) + (nth < uj % len(here))
        idle_uj += 0 if here else uj
        measured, requests, *_ = counter[-1]
        counter.append((measured + uj, requests + uj if here else requests, idle_uj, 0))
    keys = ("measured_uj", "requests_uj", "idle_uj", "unattributed_uj")
    observations = [
        Observation(t_ns, t_ns + 7, dict(zip(keys, counter[t_ns // STEP_NS], strict=True)) | {"status": "measured"},
                    [{"uuid": UUID, "name": "H200", "power_w": 400.0, "temperature_c": 60.0, "held_back_by": []}],
                    loop_lag_ns=[MS, 2 * MS]) for t_ns in range(0, last_ns + 1, LOOK_NS)]
    end_ns = observations[-1].t_ns
    observations.append(Observation(last_ns // STEP_NS * STEP_NS, 7, dict(zip(keys, counter[-1], strict=True)))
                        if end_ns < last_ns else observations.pop())
    records = [record(index, uj) for index, uj in charged.items()]
    return samples, records, observations


def record(index, energy_uj, **more):
    """A record of the sidecar's, as far as the measures look."""
    return {"schema_version": 1, "record_id": f"r{index}", "request_id": f"run-{index}", "settled": True, "outcome": "completed",
            "status": "measured", "energy_uj": energy_uj, "prefill_uj": energy_uj // 10, "decode_uj": energy_uj - energy_uj // 10,
            "uncertainty_uj": energy_uj // 50, **more}


def made_run(rounds=50, **more):
    """A run of 40 s and more that is valid."""
    samples, records, observations = closed_loop(rounds=rounds)
    return run_of(asked(**more), samples, records, observations)
