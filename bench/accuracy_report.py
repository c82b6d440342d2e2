"""What `perjoule accuracy` found, as tables for a terminal and as a picture."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from rich.table import Table

from perjoule.sidecar.units import joules

PLOTS = (".svg", ".png")
Z90 = 1.645  # standard errors on either side hold 90 % of a normal distribution
HELD = "step-model, held"  # it learns from the traffic among the recordings, and not from what it is judged on
PRIOR = "step-model, prior"  # it never learns anything
SERVED = "as served"  # what a sidecar in front of the engine said while the recording was made
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # of the sidecar's rules (Okabe-Ito)
CAPTION = ("noise floor: what a perfect rule would show, from repeated coalitions. covered: truths within the record's 90 % interval. "
           "all: the same over every coalition, each as a game of its own. "
           "error: of a second's joules as the step model predicts them. The last three are rules of others, for comparison.")
GREYS = ("#555555", "#888888", "#bbbbbb")  # of rules of others


@dataclass(frozen=True, slots=True)
class Point:
    """One request of a coalition, above the loaded idle; `error_uj` is one standard error, None where none was said."""

    recording: str
    rule: str
    cls: str
    truth_uj: float
    charged_uj: float
    error_uj: float | None

    @property
    def covered(self) -> bool | None:
        """Whether the truth lies within the charge's 90 % interval."""
        return None if self.error_uj is None else abs(self.charged_uj - self.truth_uj) <= Z90 * self.error_uj


def distances(said: Mapping[str, Any]) -> dict[str, float | None]:
    """Of one recording, every rule of the sidecar with its distance."""
    others = {rule: said[key] for rule, key in ((HELD, "step_model_held"), (PRIOR, "step_model_prior"), (SERVED, "as_served"))
              if said.get(key) is not None}
    return {**said["l1"], **others}


def tables(found: Mapping[str, Mapping[str, Any]]) -> Iterator[Table]:
    """One with the distances, if there are coalitions, and one with what was played."""
    games = {name: said for name, said in found.items() if said["players"]}
    if games:
        yield _distances(games)
    table = Table(title="What was played", title_justify="left")
    for column in ("recording", "conserved", "J / output token", "window error", "step-model begins as"):
        table.add_column(column, justify="right" if column in ("J / output token", "window error") else "left", overflow="fold")
    for name, said in found.items():
        table.add_row(name, "exact" if said["conserved"] else "[bold red]NO[/]", _number(said["joules_per_output_token"]),
                      _percent(said["window_error"]), said["calibration"])
    yield table


def _distances(games: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title="Distance from the measured Shapley value (normalized L1, 0 is exact)",
                  title_justify="left", caption=CAPTION, caption_justify="left")
    for column in ("recording", "rule", "L1", "covered", "all L1", "covered", "error"):
        table.add_column(column, justify="left" if column in ("recording", "rule") else "right", no_wrap=True,
                         min_width=len("100.0%"))
    for name, said in games.items():
        borrowed = "" if said["repeats"] in (None, "own") else " *"
        floor = "noise floor not known" if said["noise_floor"] is None else f"noise floor {said['noise_floor']:.4f}{borrowed}"
        margin = iter([f"[bold]{name}[/]", f"among {said['players']}", floor])
        best = min((l1 for l1 in said["l1"].values() if l1 is not None), default=None)
        for rule, l1 in distances(said).items():
            number = _number(l1)
            every = said["all_coalitions"].get(rule, {})
            table.add_row(next(margin, ""), rule, f"[bold]{number}[/]" if l1 is not None and l1 == best else number,
                          _percent(said["coverage_90"].get(rule)), _number(every.get("l1")), _percent(every.get("coverage_90")),
                          _percent(said["window_errors"].get(rule)))
        for rule, l1 in said["baselines"].items():
            table.add_row(next(margin, ""), f"[dim]{rule}[/]", f"[dim]{_number(l1)}[/]", "", "", "", "")
        table.add_section()
    if any(said["repeats"] not in (None, "own") for said in games.values()):
        table.caption = f"{table.caption} *: nothing was repeated here; by the repeats of the other recordings."
    return table


def plot(found: Mapping[str, Mapping[str, Any]], points: Sequence[Point], path: Path) -> None:
    """Bars of the distances with the noise floor, and charged against measured joules with 90 % intervals, a panel a recording.
    Raises ValueError if there is nothing to draw, ImportError without matplotlib."""
    games = {name: said for name, said in found.items() if said["players"]}
    if not games:
        raise ValueError(f"--plot: got {', '.join(found)}, expected a recording with coalitions among them")
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"--plot: got no matplotlib ({error}), expected it: pip install 'perjoule[plot]'") from error
    panels = [name for name, said in games.items() if said["players"] == "requests"]
    rules = dict.fromkeys(rule for said in games.values() for rule in distances(said))
    others = dict.fromkeys(rule for said in games.values() for rule in said["baselines"])
    colours = dict(zip(rules, PALETTE, strict=False)) | dict(zip(others, GREYS, strict=True))
    columns = min(3, max(1, len(panels)))
    rows = ceil(len(panels) / columns)
    with mpl.rc_context({"svg.hashsalt": "perjoule", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(max(9.0, 4.2 * columns), 4.2 + 3.9 * rows), layout="constrained")
        grid = figure.add_gridspec(1 + rows, columns)
        _bars(figure.add_subplot(grid[0, :]), games, colours)
        for i, name in enumerate(panels):
            _scatter(figure.add_subplot(grid[1 + i // columns, i % columns]), name, [p for p in points if p.recording == name], colours)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=130)


def _bars(axes: Any, games: Mapping[str, Mapping[str, Any]], colours: Mapping[str, str]) -> None:
    width = 0.86 / len(colours)
    for k, (rule, colour) in enumerate(colours.items()):
        heights = [(x, (distances(said) | said["baselines"]).get(rule)) for x, said in enumerate(games.values())]
        shown = [(x - 0.43 + (k + 0.5) * width, height) for x, height in heights if height is not None]
        axes.bar([x for x, _ in shown], [height for _, height in shown], width * 0.9, color=colour, label=rule)
        for x, height in shown:
            axes.annotate(f"{height:.3f}" if height < 0.1 else f"{height:.2f}", (x, height), ha="center", va="bottom", fontsize=6,
                          xytext=(0, 1), textcoords="offset points")
    for x, said in enumerate(games.values()):
        if said["noise_floor"] is not None:
            axes.hlines(said["noise_floor"], x - 0.42, x + 0.42, color="black", linestyle="--", linewidth=1,
                        label="noise floor" if x == 0 else None)
    axes.set_yscale("log")
    axes.set_xticks(range(len(games)), [f"{name}\n({said['players']})" for name, said in games.items()])
    axes.set_ylabel("normalized L1, log scale")
    axes.set_title("Distance from the measured Shapley value (lower is better; grey: rules of others)", loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _scatter(axes: Any, name: str, points: Sequence[Point], colours: Mapping[str, str]) -> None:
    shown = [point for point in points if point.rule not in (HELD, PRIOR)]
    rules = list(dict.fromkeys(point.rule for point in shown))
    most = 1.1 * max((joules(round(max(p.truth_uj, p.charged_uj))) for p in shown), default=1.0)
    for k, rule in enumerate(rules):
        beside = (k - (len(rules) - 1) / 2) * most * 0.012  # so that intervals do not hide each other
        mine = [point for point in shown if point.rule == rule]
        axes.errorbar([joules(round(p.truth_uj)) + beside for p in mine], [joules(round(p.charged_uj)) for p in mine],
                      yerr=[Z90 * joules(round(p.error_uj or 0)) for p in mine], fmt="o", markersize=3, linewidth=0.7, capsize=1.5,
                      color=colours[rule], alpha=0.8, label=rule)
    axes.plot((0, most), (0, most), color="black", linewidth=0.8, linestyle="--")
    axes.set(xlim=(0, most), ylim=(0, most), xlabel="measured J above idle (Shapley)", ylabel="charged J above idle, 90 %")
    axes.set_title(f"{name}: each request, all in flight", loc="left")
    axes.set_aspect("equal")
    axes.legend(loc="upper left", frameon=False, fontsize=7.5)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
