"""An estimate as tables for people and as JSON; either says that nothing was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from perjoule.bench.estimates.estimate import PARTS_IN_WORDS, Estimate, percentiles

SCHEMA_VERSION = 1
MOST_BINS = 12  # of the table; JSON has all
AT = (0.5, 0.9, 0.99)


def as_json(found: Estimate, *, idealized: float | None, tdp: float | None, bins: Sequence[Mapping[str, Any]], offline: float | None,
            warnings: Sequence[str]) -> dict[str, Any]:
    """All numbers. `status` is `estimated` wherever a joule is."""
    low, high = found.interval_j
    count, scale = len(found.requests_j), 1 / found.energy_j
    p50, p90, p99 = percentiles(found.requests_j, AT)
    mean = found.energy_j / count
    return {
        "status": "estimated", "method": found.method, "requests": count,
        "input_tokens": sum(one.prompt for one in found.asked), "cached_tokens": sum(one.cached for one in found.asked),
        "output_tokens": found.output_tokens,
        "energy_j": {"value": found.energy_j, "low": low, "high": high}, "energy_kwh": found.energy_kwh, "relative_sd": found.relative_sd,
        "energy_per_request_j": {"value": mean, "low": low / count, "high": high / count, "p50": p50, "p90": p90, "p99": p99},
        "energy_per_output_token_j": {"value": found.energy_j / found.output_tokens, "low": low / found.output_tokens,
                                      "high": high / found.output_tokens},
        "avg_power_w": found.avg_power_w, "duration_s": found.duration_s, "avg_batch_size": found.batch,
        "parts": dict(found.parts), "errors": [doubt._asdict() for doubt in found.doubts],
        "idealized_j": idealized, "idealized_ratio": None if idealized is None else idealized * scale,
        "tdp_time_j": tdp, "tdp_time_ratio": None if tdp is None else tdp * scale,
        "offline_j": offline, "bins": list(bins), "warnings": list(warnings),
    }


def tables(told: Mapping[str, Any]) -> list[Table]:
    """The whole, its parts, its error, and its bins."""
    return [_whole(told), _parts(told), _errors(told), *([_bins(told)] if told["bins"] else [])]


def _whole(told: Mapping[str, Any]) -> Table:
    table = _table(f"What it would cost (estimated, {told['method']})", "", "expected>", "95 %>", "")
    for name, key, unit in (("energy", "energy_j", "J"), ("a request", "energy_per_request_j", "J"),
                            ("an output token", "energy_per_output_token_j", "J")):
        value = told[key]
        more = " ".join(f"p{round(100 * at)} {short(value[f'p{round(100 * at)}'])} J" for at in AT) if "p50" in value else ""
        if key == "energy_j":
            more = f"{short(told['energy_kwh'])} kWh"
        table.add_row(name, f"{short(value['value'])} {unit}", f"{short(value['low'])} … {short(value['high'])}", more)
    table.add_row("power, on average", f"{told['avg_power_w']:.0f} W", "", "of all boards together")
    table.add_row("duration", f"{short(told['duration_s'])} s", "", f"{told['avg_batch_size']:.1f} requests share a step")
    if told["offline_j"] is not None:
        table.add_row("offline", f"{short(told['offline_j'])} J", "", "in full batches of one length bin each")
    if told["idealized_j"] is not None:
        table.add_row("idealized", f"{short(told['idealized_j'])} J", "", f"FLOPs at peak and TDP: {told['idealized_ratio']:.2f} of it")
    if told["tdp_time_j"] is not None:
        table.add_row("TDP × time", f"{short(told['tdp_time_j'])} J", "", f"{told['tdp_time_ratio']:.2f} times as much")
    return table


def _parts(told: Mapping[str, Any]) -> Table:
    table = _table("What for", "", "J>", "share>")
    whole = told["energy_j"]["value"]
    for name, joules in told["parts"].items():
        table.add_row(PARTS_IN_WORDS[name], short(joules), f"{joules / whole:.1%}")
    return table


def _errors(told: Mapping[str, Any]) -> Table:
    table = _table("Where the error comes from", "", "±>", "")
    for doubt in told["errors"]:
        table.add_row(doubt["source"], f"{doubt['relative_sd']:.1%}", doubt["text"])
    table.add_row("together", f"{told['relative_sd']:.1%}", "one standard deviation; the interval is twice that, in logarithms")
    return table


def _bins(told: Mapping[str, Any]) -> Table:
    rows = sorted(told["bins"], key=lambda row: -row["energy_j"])[:MOST_BINS]
    title = "By length" + (f", the {MOST_BINS} bins of {len(told['bins'])} that take most" if len(told["bins"]) > MOST_BINS else "")
    table = _table(title, "prompt ≤>", "answer ≤>", "requests>", "share>", "J a request>", "offline>", "idealized>")
    for row in rows:
        lengths = ["longer" if row[key] is None else str(row[key]) for key in ("input_tokens", "output_tokens")]
        each = ["" if row[key] is None else short(row[key]) for key in
                ("energy_per_request_j", "offline_per_request_j", "idealized_per_request_j")]
        table.add_row(*lengths, str(row["requests"]), f"{row['energy_j'] / told['energy_j']['value']:.1%}", *each)
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column.removesuffix(">"), justify="right" if column.endswith(">") else "left")
    return table


def short(value: float) -> str:
    """Three digits or so, thousands apart: 0.0123, 1.23, 1,234,000."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
