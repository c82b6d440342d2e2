"""Which settings of two results differ: some must be equal for a comparison to mean anything, others may be what is compared."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

# The yardstick: who changes one of these measures something else.
WORK = ("workload", "workload_sha256", "workload_filters", "prompts", "endpoint")
MUST = ("model_id", "gpu_model", "num_gpus", "energy_source", "energy_status", "boundary", *WORK)
LOAD = ("mode", "arrivals", "request_rate", "request_rate_end", "ramp_s", "burstiness", "concurrency", "time_scale", "cancel_share",
        "cancel_after_s")
# What may be the very reason for comparing, and is said beside the numbers.
MAY = ("model_revision", "weight_precision", "engine", "engine_version", "engine_flags", "driver_version", "power_limit_w", "max_num_seqs",
       "energy_method", "calibration_id", "schedule_sha256", "client_hosts", "client_processes", "perjoule")
FREE = ("schedule_sha256", "perjoule", "calibration_id", "load.seed")  # in what repeats of one configuration may differ


class Difference(NamedTuple):
    """A setting that is not the same; `forbids` says whether that ends the comparison."""

    key: str
    a: Any
    b: Any
    forbids: bool

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.a)} and {_shown(self.b)}"


def differences(a: Mapping[str, Any], b: Mapping[str, Any], allowed: Collection[str] = ()) -> list[Difference]:
    """Settings and loads of two results that are not equal, those that forbid a comparison first. `allowed` are what may differ, too. What
    neither knows is equal; what one knows and the other does not, is not. The load's seed may differ, as in repeats."""
    pairs = [(key, a["setting"].get(key), b["setting"].get(key)) for key in (*MUST, *MAY)]
    pairs += [(f"load.{key}", a["load"].get(key), b["load"].get(key)) for key in LOAD]
    pairs.append(("load.seed", a["load"].get("seed"), b["load"].get("seed")))
    found = [Difference(key, x, y, forbids=key not in MAY and key != "load.seed" and key not in allowed) for key, x, y in pairs if x != y]
    return sorted(found, key=lambda each: not each.forbids)


def same_work(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two results are of one workload that is known, under one load, whatever the seed."""
    return bool(a["setting"].get("workload")) and _values(a, WORK) == _values(b, WORK)


def alike(results: Collection[Mapping[str, Any]]) -> list[Difference]:
    """What repeats of one run must not differ in: anything but the seed and its schedule, and the client's own version."""
    first, *others = results
    return [each for other in others for each in differences(first, other) if each.key not in FREE]


def configuration(result: Mapping[str, Any]) -> str | None:
    """What a result has in common with repeats of it, and with no other, as text; None if its workload is not known."""
    known = result["setting"].get("workload")
    return json.dumps(_values(result, [key for key in (*MUST, *MAY) if key not in FREE]), sort_keys=True) if known else None


def _values(result: Mapping[str, Any], settings: Iterable[str]) -> list[Any]:
    """What a result says of these settings, and of its load."""
    return [*(result["setting"].get(key) for key in settings), *(result["load"].get(key) for key in LOAD)]


def _shown(value: Any) -> str:
    return "unknown" if value is None else str(value)
