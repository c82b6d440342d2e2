"""What bench/relay.py measured, as a picture: CPU time, latency and memory, a bar a relay."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perjoule.bench.relay_report import short

PICTURES = (".png", ".svg")
COLOURS = {"nginx": "#555555", "aiohttp": "#56b4e9", "litellm": "#e69f00", "perjoule": "#d55e00"}  # Okabe-Ito
PANELS = (
    ("cpu_us_per_frame", "paced", "CPU µs a frame", "log"),
    ("cpu_us_per_request", "1 KB requests", "CPU µs a 1 KB request", "log"),
    ("added_p50_ms", "one at a time", "added to one request at a time, p50 ms", "log"),
    ("held_rss_bytes", "memory", "MB under 512 streams", "linear"),
)


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Draw it into a file. Raises ImportError without matplotlib."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"--plot: got no matplotlib ({error}), expected it: pip install 'perjoule[plot]'") from error
    with mpl.rc_context({"svg.hashsalt": "perjoule", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(13, 3.6), layout="constrained")
        for axes, (metric, kind, title, scale) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            _bars(axes, _heights(found, metric, kind))
            axes.set_yscale(scale)
            axes.set_title(title, loc="left")
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=130)


def _heights(found: Mapping[str, Any], metric: str, kind: str) -> list[tuple[str, float, float, float]]:
    """(peer, median, least, most) of the first load of that kind."""
    if kind == "memory":
        return [(peer, *[held[metric] / 1e6] * 3) for peer, held in found["memory"].items()]
    of_kind = [one for one in found["summary"] if one["metric"] == metric and one["load"].startswith(kind) and one["peer"] in COLOURS]
    return [(one["peer"], one["median"], one["least"], one["most"]) for one in of_kind if one["load"] == of_kind[0]["load"]]


def _bars(axes: Any, heights: list[tuple[str, float, float, float]]) -> None:
    names = [name for name, *_ in heights]
    middle = [value for _, value, _, _ in heights]
    spread = [[value - least for _, value, least, _ in heights], [most - value for _, value, _, most in heights]]
    axes.bar(names, middle, color=[COLOURS[name] for name in names], yerr=spread, capsize=3, error_kw={"linewidth": 0.8})
    for place, value in enumerate(middle):
        axes.annotate(short(value), (place, value), ha="left", va="bottom", fontsize=8, xytext=(3, 1), textcoords="offset points")
