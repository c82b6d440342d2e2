"""The result of a run, made of nothing but its folder: every number with its formula, the verdict, and the closure of its joules."""

from collections import Counter
from typing import Any

from perjoule.bench.measures.distribution import distribution
from perjoule.bench.measures.formulas import definitions
from perjoule.bench.measures.limits import NEAR_ZERO_MS
from perjoule.bench.measures.measured import Measured, measure
from perjoule.bench.measures.metrics import metrics
from perjoule.bench.measures.mlenergy import ml_energys
from perjoule.bench.measures.per_request import columns, distributions, histograms
from perjoule.bench.measures.run import Run
from perjoule.bench.measures.timeline import timeline
from perjoule.bench.measures.verdict import loop_lag_ms, verdict
from perjoule.bench.measures.windows import RULES
from perjoule.sidecar.units import NS_PER_MS, UJ_PER_J

SCHEMA_VERSION = 1
SETTING = ("model_id", "model_revision", "weight_precision", "engine", "engine_version", "engine_flags", "gpu_model", "num_gpus",
           "driver_version", "power_limit_w", "max_num_seqs", "energy_source", "energy_status", "energy_method", "boundary",
           "calibration_id", "workload", "workload_sha256", "workload_filters", "schedule_sha256", "prompts", "endpoint", "client_hosts",
           "client_processes", "perjoule")
OUTCOMES = ("completed", "errored", "cancelled", "unfinished")


def result_of(run: Run) -> dict[str, Any]:
    """result.json (docs/results.md). Raises ValueError for a run without a request, or with objectives that cannot be read."""
    seen, asked = measure(run), run.asked
    result: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION, "kind": "replay", "run_id": asked.get("run_id", ""), "name": asked.get("name", ""),
        "date": asked.get("date"), "perjoule": asked.get("perjoule"), "partial": bool(asked.get("partial")),
        "valid": False, "reasons": [], "warnings": [],
        "setting": {key: seen.setting.get(key) for key in SETTING}, "load": dict(seen.load), "workload": dict(asked.get("workload", {})),
        "objectives": asked.get("objectives") or None,
        **ml_energys(seen),
        "windows": dict(seen.windows), "metrics": metrics(seen), "distributions": distributions(seen), "outcomes": outcomes(seen.run),
        "closure": closure(seen), "client": client(seen), "timeline": timeline(seen), "histograms": histograms(seen),
        "requests": columns(seen),
    }
    result["formulas"] = _used(result)
    reasons, result["warnings"] = verdict(seen, result)
    return result | {"valid": not reasons, "reasons": reasons}


def closure(seen: Measured) -> dict[str, Any]:
    """Whether the records, what was idle and what is nobody's are all that the counter advanced, from the first look to the last."""
    run, drawn = seen.run, seen.counter.drawn if seen.counter else None
    records = [*run.records.values(), *run.others]
    records_uj, others_uj = (sum(each["energy_uj"] or 0 for each in some) for some in (run.records.values(), run.others))
    sent = [sample for sample in run.samples if sample.outcome != "unfinished"]
    difference_uj = None if drawn is None else drawn.measured_uj - records_uj - others_uj - drawn.idle_uj - drawn.unattributed_uj
    return {"records_j": records_uj / UJ_PER_J, "others_j": others_uj / UJ_PER_J,
            "counter_j": drawn.measured_uj / UJ_PER_J if drawn else None,
            "idle_j": drawn.idle_uj / UJ_PER_J if drawn else None, "unattributed_j": drawn.unattributed_uj / UJ_PER_J if drawn else None,
            "difference_uj": difference_uj, "exact": difference_uj == 0, "records": len(run.records), "others": len(run.others),
            "unsettled": sum(not each["settled"] for each in records), "requests": len(sent),
            "missing": sum(sample.index not in run.records for sample in sent)}


def outcomes(run: Run) -> dict[str, Any]:
    """How the requests ended, and what went wrong how often."""
    counts = Counter(sample.outcome for sample in run.samples)
    errors = Counter(sample.error or "unknown" for sample in run.samples if sample.outcome == "errored")
    return {**{outcome: counts[outcome] for outcome in OUTCOMES}, "errors": dict(errors.most_common())}


def client(seen: Measured) -> dict[str, Any]:
    """How well the client itself kept up."""
    lags = distribution(request.send_lag for request in seen.requests)
    longest = max((lag for look in seen.run.observations for lag in look.loop_lag_ns), default=None)
    near, every = sum(count for gap, count in seen.icl.items() if gap < NEAR_ZERO_MS), sum(seen.icl.values())
    return {"send_lag_p99_ms": lags["p99"] if lags else None, "loop_lag_p99_ms": loop_lag_ms(seen.run.observations),
            "loop_lag_max_ms": longest / NS_PER_MS if longest is not None else None, "near_zero_gap_share": near / every if every else None,
            "token_mismatches": _mismatches(seen) if seen.asked.get("exact_lengths") else None,
            "processes": seen.setting.get("client_processes"), "hosts": seen.setting.get("client_hosts")}


def _mismatches(seen: Measured) -> int:
    told = [(s.output_tokens, s.wanted_output_tokens) for s in (request.sample for request in seen.completed)]
    return sum(got != wanted for got, wanted in told if got is not None and wanted is not None)


def _used(result: dict[str, Any]) -> dict[str, str]:
    """The words of every formula id that is shown, and the rules of the windows."""
    used = {each["formula"] for part in ("metrics", "distributions") for each in result[part].values()}
    known = definitions()
    return {key: known[key] for key in known if key in used or "mlenergy" in key} | RULES
