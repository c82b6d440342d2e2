"""What a run found, in one table: the numbers people ask for first, with their intervals, and whether they may be believed."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

Result = Mapping[str, Any]
METRICS = (("J per output token", "energy_per_output_token"), ("J per response", "energy_per_response"),
           ("output tokens per J", "tokens_per_joule"), ("goodput, requests/s", "goodput_rps"))
TIMES = (("time to first token, ms", "ttft"), ("token to token, ms", "icl"), ("whole answer, ms", "e2e"), ("sent late by, ms", "send_lag"))


def table(result: Result) -> Table:
    """Of one run."""
    made = Table(title=_title(result), title_justify="left", show_header=False)
    made.add_column("", style="dim")
    made.add_column("")
    for words, key in METRICS:
        if (metric := result["metrics"].get(key)) is not None and metric["value"] is not None:
            made.add_row(words, _with_interval(metric))
    for words, key in TIMES:
        if (times := result["distributions"].get(key)) is not None:
            made.add_row(words, f"p50 {_number(times['p50'])}   p90 {_number(times['p90'])}   p99 {_number(times['p99'])}")
    outcomes = result["outcomes"]
    made.add_row("requests", ", ".join(f"{outcomes[name]} {name}" for name in ("completed", "errored", "cancelled", "unfinished")
                                       if outcomes[name]))
    made.add_row("steady state", _steady(result))
    made.add_row("closure", _closure(result["closure"]))
    for note in result["workload"].get("notes") or ():
        made.add_row("workload", str(note))
    for name in ("reasons", "warnings"):
        for each in result[name]:
            made.add_row("not valid" if name == "reasons" else "warning", f"{each['code']}: {each['text']}")
    return made


def overview(results: Sequence[Result]) -> Table:
    """Of many."""
    made = Table(title="Runs", title_justify="left")
    for column in ("load", "J / output token", "95 %", "J / response", "TTFT p50", "token gap p50", "tokens/s", "W", "valid"):
        made.add_column(column, justify="left" if column in ("load", "valid") else "right")
    for result in results:
        energy = result["metrics"].get("energy_per_output_token") or {}
        window = result["windows"].get("steady") or result["windows"].get("whole") or {}
        times = result["distributions"]
        verdict = "yes" if result["valid"] else ", ".join(each["code"] for each in result["reasons"])
        made.add_row(load(result), _number(energy.get("value")), _interval(energy),
                     _number((result["metrics"].get("energy_per_response") or {}).get("value")),
                     *(_number((times.get(key) or {}).get("p50")) for key in ("ttft", "icl")), _number(result.get("output_throughput")),
                     _number(window.get("avg_power_w")), verdict)
    return made


def load(result: Result) -> str:
    """How the engine was loaded, in a word or two."""
    said = result["load"]
    if said.get("concurrency"):
        return f"{said['concurrency']} in flight"
    return f"{said['request_rate']:g}/s {said['arrivals']}" if said.get("request_rate") else "as in the trace"


def _title(result: Result) -> str:
    verdict = "valid" if result["valid"] else "NOT VALID"
    return f"{result['setting'].get('model_id') or '?'}, {load(result)}: {verdict}{', broken off' if result['partial'] else ''}"


def _steady(result: Result) -> str:
    window = result["windows"].get("steady")
    if window is None:
        return "none"
    tokens = window.get("output_tokens")
    per_token = f", {_number(window['energy_j'] / tokens)} J per output token" if tokens and window.get("energy_j") is not None else ""
    return f"{_number(window['duration_s'])} s, {_number(window.get('avg_power_w'))} W{per_token}"


def _closure(closure: Mapping[str, Any]) -> str:
    if closure.get("counter_j") is None:
        return "not known: the operator's port was not reached"
    records, idle, nobody, counter = (_number(closure[f"{key}_j"]) for key in ("records", "idle", "unattributed", "counter"))
    others = f" + {_number(closure['others_j'])} of others" if closure.get("others_j") else ""
    difference = "exact" if closure["exact"] else f"off by {closure['difference_uj']} µJ"
    return f"{records} J of requests{others} + {idle} idle + {nobody} nobody's = {counter} J of the counter, {difference}"


def _with_interval(metric: Mapping[str, Any]) -> str:
    return f"{_number(metric['value'])} {_interval(metric)}".rstrip()


def _interval(metric: Mapping[str, Any]) -> str:
    low, high = metric.get("low"), metric.get("high")
    return "" if low is None or high is None else f"[{_number(low)}, {_number(high)}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
