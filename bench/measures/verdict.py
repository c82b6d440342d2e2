"""Whether a run may be believed: a number for each thing that can go wrong, held against the table of limits."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perjoule.bench.load.sample import Observation
from perjoule.bench.measures.distribution import percentile
from perjoule.bench.measures.limits import CAPPED, CONDITIONS, HELD_BACK, LATE_MS, LIMITS, MEAN_GAP_SHARE, NEEDED, STEADY_MIN_S, Limit
from perjoule.bench.measures.measured import Measured
from perjoule.bench.measures.served import Served
from perjoule.bench.measures.windows import Span, trend
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S


def verdict(seen: Measured, result: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The reasons why the run is not valid, and warnings: each with code, text, value and limit."""
    numbers, limits = values(seen, result), _limits(seen)
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = [], []
    for code, limit in limits.items():
        value = numbers.get(code)
        if value is not None and (value < limit.limit if limit.at_least else value > limit.limit):
            found[limit.warns].append({"code": code, "text": _text(limit, value, seen, code), "value": float(value), "limit": limit.limit})
    return found


def values(seen: Measured, result: Mapping[str, Any]) -> dict[str, float | None]:
    """The number behind each code; None where it has no meaning for this run."""
    run, requests, counter, completed = seen.run, seen.requests, seen.counter, seen.completed
    outcomes, closure, client = result["outcomes"], result["closure"], result["client"]
    judged = outcomes["completed"] + outcomes["errored"]
    looks, spans = run.observations, [seen.traffic.span_ns] if seen.load.get("mode") == "trace" else seen.steady
    steady_s = sum(b - a for a, b in spans) / NS_PER_S
    statuses = {seen.setting.get("energy_status"), *(record.get("status") for record in run.records.values())}
    held = [names for look in looks for board in look.boards if isinstance(names := board.get("held_back_by"), Sequence)]
    whole_j = closure["counter_j"]
    short = "short_steady_asked" if steady_s >= seen.asked.get("steady_min_s", STEADY_MIN_S) else "short_steady"
    return {
        "send_lag": client["send_lag_p99_ms"], "loop_lag": late_share(looks), "near_zero_gaps": client["near_zero_gap_share"],
        "achieved_rate": _achieved(requests) if seen.load.get("mode") in ("open", "trace") else None,
        "token_mismatch": _share(client["token_mismatches"], len(completed)),
        "missing_usage": _share(sum(r.sample.output_tokens is None for r in completed), len(completed)) if _generates(requests) else None,
        "missing_records": _share(closure["missing"], closure["requests"]),
        "sampling_gap": sampling_gap_s(seen), short: steady_s if counter else None,
        "thermal_drift": thermal_drift_c(looks, seen.steady), "counter_reset": counter.resets if counter else None,
        "throttling": _share(sum(bool(HELD_BACK.intersection(names)) for names in held), len(held)),
        "power_capped": _share(sum(bool(CAPPED.intersection(names)) for names in held), len(held)),
        "gpu_count": _boards_amiss(seen), "not_closed": abs(closure["difference_uj"]) if closure["difference_uj"] is not None else None,
        "other_traffic": _share(closure["others_j"], whole_j), "unattributed": _share(closure["unattributed_j"], whole_j),
        "failures": _share(outcomes["errored"], judged), "nothing_completed": len(completed),
        "partial": max(seen.planned - len(requests), 0) + outcomes["unfinished"] or bool(result["partial"]),
        "energy_unavailable": not counter or all(request.energy_uj is None for request in requests),
        "simulated_energy": "simulated" in statuses, "estimated_energy": bool(statuses & {"estimated", "mixed", "provisional"}),
        "conditions_unknown": len(untold(looks)), "settings_unknown": len(unknown(seen)),
    }


def unknown(seen: Measured) -> list[str]:
    """Settings that should be known, and are not."""
    return [key for key in NEEDED if seen.setting.get(key) is None]


def untold(looks: Sequence[Observation]) -> list[str]:
    """What no look tells of some board, or of any: a check that needs it was not made."""
    boards = [board for look in looks for board in look.boards]
    everyone = {board.get("uuid") for board in boards}
    told = {key: {board.get("uuid") for board in boards if board.get(key) is not None} for key in CONDITIONS}
    return [key for key in CONDITIONS if not everyone or everyone - told[key]]


def loop_lag_ms(looks: Sequence[Observation]) -> float | None:
    """The 99th percentile over looks and client processes of the longest lag since the look before."""
    lags = sorted(lag for look in looks for lag in look.loop_lag_ns)
    return percentile(lags, 99) / NS_PER_MS if lags else None


def late_share(looks: Sequence[Observation]) -> float | None:
    """For what part of the time the event loop that was late most was so by `LATE_MS` or more, at most: each look tells the longest lag
    since the one before. None where nothing is known of it."""
    if len(looks) < 2 or not any(look.loop_lag_ns for look in looks):
        return None
    longest = (max(look.loop_lag_ns, default=0) for look in looks)
    late_ns = sum(lag_ns for lag_ns in longest if lag_ns >= LATE_MS * NS_PER_MS)
    return late_ns / max(looks[-1].t_ns - looks[0].t_ns, 1)


def sampling_gap_s(seen: Measured) -> float | None:
    """The longest time that was not seen, before the first look and after the last one, too; None where there is no counter to see."""
    if seen.counter is None:
        return None
    (first_ns, last_ns), looks = seen.traffic.span_ns, seen.counter.looks
    return max(seen.counter.still_ns, looks[0].t_ns - first_ns, last_ns - looks[-1].t_ns) / NS_PER_S


def thermal_drift_c(looks: Sequence[Observation], steady: Sequence[Span]) -> float | None:
    """By how much the temperature of the board that changed most rose or fell over the steady window; None if no look says."""
    rows: dict[Any, list[tuple[int, float]]] = {}
    for look in looks:
        if any(t0_ns <= look.t_ns <= t1_ns for t0_ns, t1_ns in steady):
            for board in look.boards:
                if isinstance(celsius := board.get("temperature_c"), int | float):
                    rows.setdefault(board.get("uuid"), []).append((look.t_ns, celsius))
    return max((abs(trend(series)) for series in rows.values()), default=None)


def _limits(seen: Measured) -> dict[str, Limit]:
    """The table, with what this run's own pace and wishes change in it."""
    times = [request.sample.intended_ns for request in seen.requests]
    gap_ms = (max(times) - min(times)) / max(len(times) - 1, 1) / NS_PER_MS
    send_lag, short = LIMITS["send_lag"], LIMITS["short_steady"]
    if seen.load.get("mode") == "trace":
        short = short._replace(words="the run")
    return LIMITS | {"send_lag": send_lag._replace(limit=max(send_lag.limit, MEAN_GAP_SHARE * gap_ms)),
                     "short_steady": short._replace(limit=seen.asked.get("steady_min_s", short.limit))}


def _text(limit: Limit, value: float, seen: Measured, code: str) -> str:
    if code in ("settings_unknown", "conditions_unknown"):
        return f"{limit.words}: {', '.join(unknown(seen) if code == 'settings_unknown' else untold(seen.run.observations))}"
    if not limit.unit:
        return limit.words
    return f"{limit.words}: got {value:.4g} {limit.unit}, expected at {'least' if limit.at_least else 'most'} {limit.limit:.4g}"


def _achieved(requests: Sequence[Served]) -> float | None:
    planned, sent = [request.sample.intended_ns for request in requests], [request.sample.sent_ns for request in requests]
    asked_ns, took_ns = max(planned) - min(planned), max(sent) - min(sent)
    return min(asked_ns / took_ns, 1.0) if asked_ns and took_ns else None


def _generates(requests: Iterable[Served]) -> bool:
    """Whether tokens are what this is about: an image has none."""
    return any(r.sample.chunk_ns or r.sample.output_tokens is not None or r.sample.wanted_output_tokens for r in requests)


def _boards_amiss(seen: Measured) -> float | None:
    named, boards = seen.setting.get("num_gpus"), {board.get("uuid") for look in seen.run.observations for board in look.boards}
    return abs(len(boards) - named) if isinstance(named, int) and boards else None


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole
