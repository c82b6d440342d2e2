"""What bench/relay.py measured, in numbers for people: each with its spread, its ratio to nginx's of the same round, and as tables."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from perjoule.sidecar.units import NS_PER_S

REFERENCE, DIRECT = "nginx", "direct"
TROUBLE = ("failed", "lost", "stalled")
Row = Mapping[str, Any]  # of `Measured`, with round, load and peer


@dataclass(frozen=True, slots=True)
class Metric:
    """A number that a row says; `added` takes off what the same round's row without a relay says."""

    key: str
    title: str
    of: Callable[[Row], float | None]
    digits: int = 1
    added: bool = False


def each(key: str, unit: str) -> Callable[[Row], float | None]:
    """CPU microseconds for each frame or request."""
    return lambda row: row[key] / row[unit] / 1000 if row[key] is not None and row[unit] else None


def rate(unit: str) -> Callable[[Row], float | None]:
    """How many a second."""
    return lambda row: row[unit] * NS_PER_S / row["wall_ns"]


def time_ms(key: str, place: int) -> Callable[[Row], float | None]:
    """A median (0) or 99th percentile (1)."""
    return lambda row: row[key][place] if row[key] is not None else None


FRAME = Metric("cpu_us_per_frame", "CPU µs a frame", each("cpu_ns", "frames"))
REQUEST = Metric("cpu_us_per_request", "CPU µs a request", each("cpu_ns", "requests"))
OF_A_CORE = Metric("core", "of a core", lambda row: row["cpu_ns"] / row["wall_ns"] if row["cpu_ns"] is not None else None, 2)
ADDED_P50 = Metric("added_p50_ms", "added p50, ms", time_ms("answer_ms", 0), 3, added=True)
ADDED_P99 = Metric("added_p99_ms", "added p99, ms", time_ms("answer_ms", 1), 3, added=True)
METRICS: Mapping[str, Sequence[Metric]] = {
    "paced": (
        FRAME, Metric("loop_us_per_frame", "of it in first threads", each("loop_ns", "frames")), OF_A_CORE,
        Metric("first_p50_ms", "first token, added p50, ms", time_ms("first_ms", 0), 2, added=True),
        Metric("first_p99_ms", "first token, added p99, ms", time_ms("first_ms", 1), 2, added=True),
        Metric("gap_p50_ms", "token to token, p50, ms", time_ms("gap_ms", 0), 2),
        Metric("gap_p99_ms", "token to token, p99, ms", time_ms("gap_ms", 1), 2),
        Metric("way_p50_ms", "a token's way, added p50, ms", time_ms("way_ms", 0), 3, added=True),
        Metric("way_p99_ms", "a token's way, added p99, ms", time_ms("way_ms", 1), 3, added=True)),
    "flooded": (FRAME, Metric("frames_per_s", "frames/s", rate("frames"), 0)),
    "1 KB requests": (REQUEST, Metric("loop_us_per_request", "of it in first threads", each("loop_ns", "requests")),
                      Metric("requests_per_s", "requests/s", rate("requests"), 0)),
    "one at a time": (ADDED_P50, ADDED_P99),
    "1 MB requests": (REQUEST, Metric("requests_per_s", "requests/s", rate("requests"), 0)),
    "1 MB answers": (REQUEST, Metric("requests_per_s", "requests/s", rate("requests"), 0)),
}


def metrics_of(load: str) -> Sequence[Metric]:
    """What is said of a load; `paced 64` is of the kind `paced`."""
    return METRICS.get(load) or METRICS[load.split()[0]]


class Rounds:
    """The rows of a run by load and peer, each metric by round."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows: dict[tuple[str, str], dict[int, Row]] = defaultdict(dict)
        for row in rows:
            self._rows[row["load"], row["peer"]][row["round"]] = row

    @property
    def loads(self) -> list[str]:
        """In the order in which they were run."""
        return list(dict.fromkeys(load for load, _ in self._rows))

    def values(self, metric: Metric, load: str, peer: str) -> dict[int, float]:
        """By round, where it was measured."""
        values = {number: value for number, row in self._rows.get((load, peer), {}).items() if (value := metric.of(row)) is not None}
        if not metric.added or peer == DIRECT:
            return values
        bare = self.values(metric, load, DIRECT)
        return {number: value - bare[number] for number, value in values.items() if number in bare}

    def middle(self, metric: Metric, load: str, peer: str) -> float | None:
        """The median over the rounds; None if it was not measured."""
        values = self.values(metric, load, peer).values()
        return median(values) if values else None

    def ratio(self, metric: Metric, load: str, peer: str, to: str) -> float | None:
        """The median of one peer's over another's, over the rounds in which both are more than nothing (what is added may be less,
        where the noise is larger); None if there is no such round."""
        over, under = self.values(metric, load, peer), self.values(metric, load, to)
        ratios = [value / under[number] for number, value in over.items() if value > 0 and under.get(number, 0) > 0]
        return median(ratios) if ratios else None


def summary(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each load, metric and peer the median over the rounds, the least, the most, and the ratio to nginx."""
    rounds = Rounds(found["rows"])
    return [{"load": load, "metric": metric.key, "peer": peer, "median": median(values), "least": min(values), "most": max(values),
             "to_nginx": rounds.ratio(metric, load, peer, REFERENCE)}
            for load in rounds.loads for metric in metrics_of(load) for peer in found["peers"]
            if (values := rounds.values(metric, load, peer).values())]


def trouble(rows: Sequence[Row]) -> list[str]:
    """What failed, was lost or stalled, over all rounds."""
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    for row in rows:
        for what in TROUBLE:
            counts[row["load"], row["peer"], what] += row[what]
    return [f"{load}, {peer}: {count} {what}" for (load, peer, what), count in counts.items() if count]


def tables(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """The costs, the memory, the budgets, and what else must be said."""
    yield _costs(found)
    yield _memory(found)
    yield budget_table(found["budgets"])
    yield "; ".join(found["peers"].values()) + "."
    yield "Failed, lost or stalled: " + ("; ".join(trouble(found["rows"])) or "nothing.")
    for ours in found["metered"]:
        stored = ", ".join(f"{count:,} in {sink}" for sink, count in ours["stored"].items())
        yield (f"perjoule metered {ours['requests']:,} requests meanwhile: {stored}; {sum(ours['dropped'].values()):,} dropped, "
               f"{ours['spans_received']:,} spans received.")
    yield from (f"{name}: not installed ({how})" for name, how in found["missing"].items())


def short(number: float) -> str:
    """Three digits of it, all of those before the point, and never an exponent that a person would have to read."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _costs(found: Mapping[str, Any]) -> Table:
    said = {(one["load"], one["metric"], one["peer"]): one for one in found["summary"]}
    table = Table(title="Cost of a relay: median of the rounds, times nginx's of the same round, least to most", title_justify="left")
    table.add_column("load")
    table.add_column("")
    for peer in found["peers"]:
        table.add_column(peer, justify="right")
    for load in dict.fromkeys(load for load, _, _ in said):
        for metric in metrics_of(load):
            cells = [_cell(said.get((load, metric.key, peer)), metric.digits) for peer in found["peers"]]
            table.add_row(load if metric is metrics_of(load)[0] else "", metric.title, *cells)
        table.add_section()
    return table


def _cell(one: Mapping[str, Any] | None, digits: int) -> Text:
    if one is None:
        return Text("")
    text = Text(f"{one['median']:,.{digits}f}", style="bold")
    if one["to_nginx"] is not None and one["peer"] not in (REFERENCE, DIRECT):
        text.append(f"  {short(one['to_nginx'])}×", style="not bold cyan")
    return text.append(f"\n{one['least']:,.{digits}f} – {one['most']:,.{digits}f}", style="not bold dim")


def _memory(found: Mapping[str, Any]) -> Table:
    table = Table(title="Memory, resident, MB", title_justify="left")
    for column in ("", "idle", "under 512 streams", "KB a stream", "after all"):
        table.add_column(column, justify="right" if column else "left")
    for peer, held in found["memory"].items():
        mb = [held[f"{when}_rss_bytes"] / 1e6 for when in ("idle", "held", "after")]
        table.add_row(peer, f"{mb[0]:.1f}", f"{mb[1]:.1f}", f"{kb_a_stream(held):.1f}", f"{mb[2]:.1f}")
    return table


def kb_a_stream(held: Mapping[str, Any]) -> float:
    """What each of the streams that do little takes."""
    return float(held["held_rss_bytes"] - held["idle_rss_bytes"]) / float(held["held_streams"]) / 1000


def budget_table(budgets: Sequence[Mapping[str, Any]]) -> Table:
    """What was aimed at, what it is held to, and what was got."""
    table = Table(title="Budgets", title_justify="left")
    for column in ("", "goal", "held to", "got", ""):
        table.add_column(column)
    for budget in budgets:
        got, kept = budget["got"], budget["kept"]
        verdict = "[dim]not measured[/]" if kept is None else "[bold red]missed[/]" if not kept else (
            "[green]goal reached[/]" if budget["reached"] else "kept")
        table.add_row(budget["what"], f"{budget['sense']} {budget['goal']:g}", f"{budget['limit']:g}", "" if got is None else short(got),
                      verdict)
    return table
