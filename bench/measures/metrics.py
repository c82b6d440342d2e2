"""What sums a run up: joules per token and per response, goodput, waste, each with its formula and, where it can be told, its interval."""

from collections.abc import Sequence
from typing import Any

from perjoule.bench.measures import intervals, windows
from perjoule.bench.measures.formulas import FORMULAS, formula_id
from perjoule.bench.measures.intervals import Interval
from perjoule.bench.measures.measured import Measured
from perjoule.bench.measures.objectives import kept, objectives
from perjoule.sidecar.units import NS_PER_S, UJ_PER_J


def metrics(run: Measured) -> dict[str, Any]:
    """By name. Raises ValueError for objectives that cannot be read."""
    return _of_window(run) | _of_records(run) | _of_run(run) | _goodput(run)


def metric(key: str, value: float | None, n: int, interval: Interval | None = None) -> dict[str, Any]:
    """One metric as the result shows it."""
    return {"value": value, "unit": FORMULAS[key].unit, "formula": formula_id(key), "n": n,
            "low": interval.low if interval else None, "high": interval.high if interval else None}


def _of_window(run: Measured) -> dict[str, Any]:
    """Of the headline's window; `window` says which it is."""
    name = run.headline
    window = run.windows[name]
    if window is None:
        return {}
    spans = run.steady if name == "steady" else windows.whole(run.traffic)
    cut = windows.slices(spans, run.counter, run.traffic) if run.counter and window["energy_j"] is not None else []
    joules, output, seconds = ([each[i] for each in cut] for i in (0, 1, 3))
    both = [each.output_tokens + each.input_tokens for each in cut]
    sure: dict[str, Interval | None] = {
        "energy_per_output_token": intervals.of_ratio(joules, output), "energy_per_total_token": intervals.of_ratio(joules, both),
        "tokens_per_joule": intervals.of_ratio(output, joules), "output_throughput": intervals.of_ratio(output, seconds),
        "avg_power_w": intervals.of_ratio(joules, seconds), "avg_batch_size": None}
    return {key: metric(key, window[key], window["requests"], interval) | {"window": name} for key, interval in sure.items()}


def _of_records(run: Measured) -> dict[str, Any]:
    """What the sidecar says of each request, in the order of the schedule."""
    charged = [request for request in run.completed if request.energy_j is not None]
    each_j = [request.energy_j or 0.0 for request in charged]
    delayed = [(request.energy_j or 0.0) * request.e2e / 1e3 for request in charged if request.e2e is not None]
    found = {"energy_per_response": metric("energy_per_response", _mean(each_j), len(each_j), intervals.of_mean(each_j)),
             "energy_delay_product": metric("energy_delay_product", _mean(delayed), len(delayed), intervals.of_mean(delayed))}
    for key, parts in {"prefill_j": [r.prefill_uj for r in run.requests], "decode_j": [r.decode_uj for r in run.requests],
                       "wasted_j": [r.energy_uj for r in run.requests if not r.completed]}.items():
        known = [part for part in parts if part is not None]
        found[key] = metric(key, sum(known) / UJ_PER_J if known or not parts else None, len(known))
    return found


def _of_run(run: Measured) -> dict[str, Any]:
    """Of the whole run."""
    drawn, whole, sent = run.counter and run.counter.drawn, run.windows["whole"], [r.sample.sent_ns for r in run.requests]
    span_s, n = (max(sent) - min(sent)) / NS_PER_S, len(run.completed)
    return {"idle_j": metric("idle_j", drawn.idle_uj / UJ_PER_J if drawn else None, len(sent)),
            "unattributed_j": metric("unattributed_j", drawn.unattributed_uj / UJ_PER_J if drawn else None, len(sent)),
            "input_tokens": metric("input_tokens", sum(r.sample.input_tokens or 0 for r in run.completed), n),
            "output_tokens": metric("output_tokens", sum(r.tokens for r in run.completed), n),
            "request_rate_achieved": metric("request_rate_achieved", (len(sent) - 1) / span_s if span_s else None, len(sent)),
            "request_throughput": metric("request_throughput", n / whole["duration_s"] if whole else None, n)}


def _goodput(run: Measured) -> dict[str, Any]:
    """Nothing, where no objective was named."""
    limits, whole = objectives(run.asked.get("objectives") or ""), run.windows["whole"]
    if not limits or whole is None:
        return {}
    good = [float(request.completed and kept(limits, request.times(), request.sample.output_tokens)) for request in run.requests
            if request.sample.outcome in ("completed", "errored")]
    return {"goodput_share": metric("goodput_share", _mean(good), len(good), intervals.of_mean(good)),
            "goodput_rps": metric("goodput_rps", sum(good) / whole["duration_s"], len(good)),
            "goodput_per_watt": metric("goodput_per_watt", sum(good) / whole["energy_j"] if whole["energy_j"] else None, len(good))}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
