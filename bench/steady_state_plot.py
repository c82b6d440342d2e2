"""Power and running requests over time, each window shaded by its phase."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from perjoule.sidecar.metering.steady_state import Activity, Phase
from perjoule.sidecar.metering.timeline import Window
from perjoule.sidecar.units import power_w, seconds

PLOTS = (".svg", ".png")
SHADES = {Phase.STEADY: "#b7e4c7", Phase.RAMP: "#ffe8a3", Phase.DRAIN: "#cfe2f3", Phase.IDLE: "#eeeeee"}


@dataclass(frozen=True, slots=True)
class Span:
    """One window of the counter, what went on in it, and which phase the detector called it."""

    window: Window
    activity: Activity
    phase: Phase


def plot(path: Path, streams: Mapping[str, Sequence[Span]]) -> None:
    """Draw one panel for each stream. Raises ImportError without matplotlib."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError as error:
        raise ImportError(f"--plot: got no matplotlib ({error}), expected it: pip install 'perjoule[plot]'") from error
    figure = Figure(figsize=(11, 2.6 * len(streams)), layout="constrained")
    for axes, (name, spans) in zip(figure.subplots(len(streams), squeeze=False)[:, 0], streams.items(), strict=True):
        origin_ns = spans[0].window.t0_ns
        ends = [seconds(span.window.t1_ns - origin_ns) for span in spans]
        for phase, group in groupby(spans, key=lambda span: span.phase):
            members = list(group)
            axes.axvspan(seconds(members[0].window.t0_ns - origin_ns), seconds(members[-1].window.t1_ns - origin_ns),
                         color=SHADES[phase], linewidth=0)
        axes.step(ends, [power_w(s.window.energy_uj, s.window.t1_ns - s.window.t0_ns) for s in spans], color="#444444", linewidth=0.8)
        axes.set(ylabel="power (W)", xlim=(0, ends[-1]), ylim=(0, None))
        axes.set_title(name, loc="left", fontsize=10)
        count = axes.twinx()
        count.step(ends, [span.activity.decoding + span.activity.waiting for span in spans], color="#1f4e9c", linewidth=1.2)
        count.set_ylabel("running", color="#1f4e9c")
        count.set_ylim(0, None)
    axes.set_xlabel("seconds")
    figure.legend(handles=[Patch(color=shade, label=phase.value) for phase, shade in SHADES.items()], loc="outside upper right", ncols=4)
    figure.savefig(path, dpi=110)
