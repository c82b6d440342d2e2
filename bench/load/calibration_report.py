"""A calibration of clients as tables and as a picture."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import RenderableType
from rich.table import Table

PICTURES = (".png", ".svg")
COLOURS = ("#d55e00", "#e69f00", "#0072b2", "#009e73", "#56b4e9")  # Okabe-Ito


def tables(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Errors by rate, the streams, and each client's limit."""
    yield _rates(found)
    yield _streams(found)
    limit_ms = found["limit_ms"]
    for name, rate in found["limits"].items():
        yield f"{name}: " + (f"keeps p99 of arrival errors within {limit_ms:g} ms at up to {rate:,.0f} requests/s" if rate else
                             f"does not keep p99 of arrival errors within {limit_ms:g} ms at any rate that was tried")


def _rates(found: Mapping[str, Any]) -> Table:
    table = Table(title="At a constant rate: each number of its best round, ms", title_justify="left")
    for column in ("requests/s", "client", "achieved", "arrival error p50", "p99", "send lag p50", "p99", "stamp error p50", "p99"):
        table.add_column(column, justify="left" if column == "client" else "right")
    for rate in sorted({one["rate"] for one in found["steps"]}):
        of_rate = [one for one in found["steps"] if one["rate"] == rate]
        for name in dict.fromkeys(one["client"] for one in of_rate):
            rounds = [one for one in of_rate if one["client"] == name]
            errors = [_best(rounds, metric, which) for metric in ("arrival_error_ms", "send_lag_ms", "stamp_error_ms")
                      for which in ("p50", "p99")]
            table.add_row(f"{rate:,.0f}" if name == of_rate[0]["client"] else "", name,
                          f"{median(one['achieved_rate'] for one in rounds):,.1f}", *errors)
        table.add_section()
    return table


def _streams(found: Mapping[str, Any]) -> Table:
    concurrency = found["streams"][0]["concurrency"] if found["streams"] else 0
    table = Table(title=f"{concurrency} streams at a time: client's stamps against the server's, each number of its best round, ms",
                  title_justify="left")
    for column in ("client", "stamp error p50", "p99", "gap error p50", "p99", "max"):
        table.add_column(column, justify="left" if column == "client" else "right")
    for name in dict.fromkeys(one["client"] for one in found["streams"]):
        rounds = [one for one in found["streams"] if one["client"] == name]
        table.add_row(name, *[_best(rounds, "stamp_error_ms", which) for which in ("p50", "p99")],
                      *[_best(rounds, "gap_error_ms", which) for which in ("p50", "p99", "max")])
    return table


def _best(rounds: Sequence[Mapping[str, Any]], metric: str, which: str) -> str:
    told = [one[metric][which] for one in rounds if one[metric] is not None]
    return f"{min(told):,.2f}" if told else ""


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Draw the errors by rate into a file. Raises ImportError without matplotlib."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"--plot: got no matplotlib ({error}), expected it: pip install 'perjoule[plot]'") from error
    with mpl.rc_context({"svg.hashsalt": "perjoule", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        panels = (("arrival_error_ms", "p99 of a request's arrival error, ms"), ("stamp_error_ms", "p99 of a chunk stamp's error, ms"))
        for axes, (metric, title) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for colour, name in zip(COLOURS, found["limits"], strict=False):
                of_client = [one for one in found["steps"] if one["client"] == name]
                rates = sorted({one["rate"] for one in of_client})
                best = [min(one[metric]["p99"] for one in of_client if one["rate"] == rate) for rate in rates]
                axes.plot(rates, best, marker=".", color=colour, label=name)
            axes.axhline(found["limit_ms"], color="#999999", linewidth=0.8, linestyle="--")
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel("requests/s")
            axes.set_title(title, loc="left")
            axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=130)
