"""An estimate as a picture: the parts between the idealized bound and TDP × time, and what requests of each length cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perjoule.bench.estimates.errors import EstimateError
from perjoule.bench.estimates.estimate import PARTS_IN_WORDS

PICTURES = (".png", ".svg")
COLOURS = ("#0072b2", "#d55e00", "#e69f00", "#56b4e9", "#999999", "#cccccc")  # Okabe-Ito and greys


def plot(told: Mapping[str, Any], path: Path) -> None:
    """Draw what `report.as_json` says. Raises EstimateError without matplotlib."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EstimateError(f"--plot: got no matplotlib ({error}), expected it: pip install 'perjoule[plot]'") from error
    with mpl.rc_context({"svg.hashsalt": "perjoule", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        _whole(left, told)
        _lengths(right, told)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=130)


def _whole(axes: Any, told: Mapping[str, Any]) -> None:
    bottom = 0.0
    for (name, joules), colour in zip(told["parts"].items(), COLOURS, strict=False):
        axes.bar("estimated", joules, bottom=bottom, color=colour, label=PARTS_IN_WORDS[name])
        bottom += joules
    low, high = told["energy_j"]["low"], told["energy_j"]["high"]
    axes.errorbar(["estimated"], [bottom], yerr=[[bottom - low], [high - bottom]], color="black", capsize=4, linewidth=1)
    for name, key in (("idealized", "idealized_j"), ("TDP × time", "tdp_time_j")):
        if told[key] is not None:
            axes.bar(name, told[key], color="none", edgecolor="black", linestyle="dashed")
    axes.set_ylabel("J")
    axes.set_title("all requests (estimated)", loc="left")
    axes.legend(fontsize=7, frameon=False)


def _lengths(axes: Any, told: Mapping[str, Any]) -> None:
    known = [row for row in told["bins"] if row["input_tokens"] and row["output_tokens"]]
    for i, output in enumerate(sorted({row["output_tokens"] for row in known})):
        rows = [row for row in known if row["output_tokens"] == output]
        axes.plot([row["input_tokens"] for row in rows], [row["energy_per_request_j"] for row in rows], "o-", color=f"C{i}", markersize=3,
                  label=f"≤ {output} output tokens")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("prompt tokens, at most")
    axes.set_ylabel("J a request")
    axes.set_title("by length (estimated)", loc="left")
    axes.legend(fontsize=7, frameon=False)
