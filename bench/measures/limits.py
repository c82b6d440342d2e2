"""How far each thing that can go wrong with a run may go, in one table, before its numbers are not to be believed."""

from typing import NamedTuple

STEADY_MIN_S = 30.0  # ML.ENERGY's validator
MEAN_GAP_SHARE = 0.01  # of the mean gap between intended sends, the send lag may be where that is more than its limit
LATE_MS = 20  # of an event loop: until then its stamps are off by less than a token takes
NEAR_ZERO_MS = 0.1  # a gap below it is two chunks of one read
HELD_BACK = frozenset({"hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake_slowdown"})
CAPPED = frozenset({"sw_power_cap"})  # as NVML names what holds clocks back
NEEDED = ("model_id", "model_revision", "weight_precision", "engine", "engine_version", "engine_flags", "gpu_model", "num_gpus",
          "driver_version", "power_limit_w", "max_num_seqs", "energy_source", "boundary")
CONDITIONS = ("temperature_c", "held_back_by")  # of a board, as looks tell them


class Limit(NamedTuple):
    """How far a number may go; beyond it the run is not valid, or, where it only `warns`, should be read with care."""

    limit: float
    unit: str
    words: str
    at_least: bool = False
    warns: bool = False


LIMITS: dict[str, Limit] = {
    "send_lag": Limit(5.0, "ms", "p99 send lag (or 1 % of the mean gap between sends, where that is more)"),
    "achieved_rate": Limit(0.95, "of the planned rate", "achieved request rate", at_least=True),
    "loop_lag": Limit(0.01, "of the time", f"a client process's event loop was late by {LATE_MS} ms or more: chunks that came then have "
                                           "later times"),
    "near_zero_gaps": Limit(0.10, "of the gaps", f"gaps between chunks below {NEAR_ZERO_MS} ms: read at once, the times are the client's"),
    "token_mismatch": Limit(0.01, "of the completed requests", "output tokens that differ from the exact length that was asked for"),
    "missing_usage": Limit(0.01, "of the completed requests", "no usage, so tokens are counted by chunks"),
    "missing_records": Limit(0.01, "of the requests sent", "no record of the sidecar's"),
    "sampling_gap": Limit(2.0, "s", "longest time without a look at the counter, or without a microjoule more"),
    "short_steady": Limit(STEADY_MIN_S, "s", "steady window", at_least=True),
    "thermal_drift": Limit(5.0, "°C", "change of a board's temperature over the steady window, by its trend"),
    "counter_reset": Limit(0, "times", "the energy counter began anew"),
    "throttling": Limit(0.01, "of the looks", "a board was held back (thermal or hardware slowdown, power brake)"),
    "gpu_count": Limit(0, "boards", "boards that were seen and not named, or the reverse"),
    "not_closed": Limit(0, "µJ", "records, idle and unattributed joules do not add up to the counter's"),
    "other_traffic": Limit(0.01, "of the counter's joules", "requests of others ran on the same boards"),
    "unattributed": Limit(0.01, "of the counter's joules", "joules of nobody: windows that were missed"),
    "failures": Limit(0.01, "of the requests", "failed"),
    "nothing_completed": Limit(1, "requests", "completed", at_least=True),
    "partial": Limit(0, "requests", "not done: the run was broken off"),
    "energy_unavailable": Limit(0, "", "no joules: the sidecar told no balance, or no record has any"),
    "short_steady_asked": Limit(STEADY_MIN_S, "s", "steady window, as short as was asked for", at_least=True, warns=True),
    "simulated_energy": Limit(0, "", "the joules are simulated: no sensor stands behind them", warns=True),
    "estimated_energy": Limit(0, "", "the joules are not all measured: part of them is estimated or was not covered", warns=True),
    "power_capped": Limit(0.01, "of the looks", "a board ran at its power limit", warns=True),
    "conditions_unknown": Limit(0, "conditions", "not told of every board, so drift or throttling was not checked", warns=True),
    "settings_unknown": Limit(0, "settings", "not known, so whether runs are comparable cannot be told", warns=True),
}
