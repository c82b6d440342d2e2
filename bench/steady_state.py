"""What of a recording is steady, and what an output token costs there, beside ML.ENERGY's definition of the same.

The counter's windows and what a proxy sees of the requests go through the very detector that serves production. `--paced` adds
streams of evenly spaced requests through the make-believe engine: at a finite rate, ML.ENERGY's client opens its window only when it
has sent its last request, and closes it as a batch less one is left, which is before.

    python bench/steady_state.py RECORDING... [--max-num-seqs N] [--paced RATE...] [--json] [--plot FILE]
"""

import argparse
import json
import sys
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from perjoule.bench.recording import Recording
from perjoule.bench.simulator import Simulator
from perjoule.bench.steady_state_plot import PLOTS, Span, plot
from perjoule.sidecar.metering.steady_state import Activity, Phase, SteadyStateDetector
from perjoule.sidecar.metering.timeline import Timeline, Window
from perjoule.sidecar.ports import Reading
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S, joules, seconds

PERIOD_NS = 100 * NS_PER_MS
PACED = 400, 256, 256  # requests of a paced stream, tokens of each prompt, tokens of each answer
LAST_NS = 3 * PERIOD_NS  # after the last answer


@dataclass(frozen=True, slots=True)
class Request:
    """One request as its client saw it; `chunks` are arrivals, with the tokens in each."""

    begin_ns: int
    end_ns: int
    chunks: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests, and the rows of the counter beside them: (t_ns, microjoules) of each change. `sent_ns` is when a client that paces its
    requests was through with sending; None of one that always has more to send."""

    name: str
    counter: Sequence[tuple[int, int]]
    requests: Sequence[Request]
    sent_ns: int | None = None

    @property
    def in_flight(self) -> int:
        """Most requests running at a time."""
        steps = sorted([(r.begin_ns, 1) for r in self.requests] + [(r.end_ns, -1) for r in self.requests])
        return max(accumulate((step for _, step in steps), initial=0))


def recorded(path: Path) -> Traffic:
    """A recording of a real engine on a real GPU. Raises ValueError for what is none."""
    recording = Recording(path)
    return Traffic(recording.name, [(before, uj) for before, _, uj in recording.counter],
                   [Request(r["t0"], r["end"], list(zip(r["t"], r["n"], strict=True))) for r in recording.requests])


def paced(per_s: float, max_num_seqs: int) -> Traffic:
    """A stream of evenly spaced requests through the simulator."""
    count, input_tokens, output_tokens = PACED
    begins = [NS_PER_S + round(i * NS_PER_S / per_s) for i in range(count)]
    simulator = Simulator(0, max_num_seqs=max_num_seqs)
    places = {simulator.submit(t_ns, input_tokens, output_tokens): i for i, t_ns in enumerate(begins)}
    arrivals: list[list[int]] = [[] for _ in begins]
    counter, t_ns = [(0, 0)], 0
    while simulator.next_ns is not None or t_ns < max(times[-1] for times in arrivals) + LAST_NS:
        t_ns += PERIOD_NS // 20
        for sequence, _ in simulator.advance(t_ns):
            assert sequence.last_token_ns is not None
            arrivals[places[sequence]].append(sequence.last_token_ns)
        shown_uj = simulator.board.read(t_ns)[0]
        if shown_uj != counter[-1][1]:
            counter.append((t_ns, shown_uj))
    requests = [Request(begin_ns, times[-1], [(t_ns, 1) for t_ns in times]) for begin_ns, times in zip(begins, arrivals, strict=True)]
    return Traffic(f"paced {per_s:g}/s", counter, requests, begins[-1])


def spans(traffic: Traffic, max_num_seqs: int) -> list[Span]:
    """Every window of the counter, what went on in it, and its phase."""
    timeline, detector = Timeline(PERIOD_NS), SteadyStateDetector(max_num_seqs)
    windows = [window for t_ns, uj in traffic.counter if (window := timeline.add(Reading(t_ns, t_ns, uj))) is not None]
    return [Span(window, activity, detector.feed(activity)) for window, activity in zip(windows, activities(traffic, windows), strict=True)]


def activities(traffic: Traffic, windows: Iterable[Window]) -> Iterable[Activity]:
    """What a proxy sees of the requests in each window."""
    requests = traffic.requests
    begins, ends = sorted(r.begin_ns for r in requests), sorted(r.end_ns for r in requests)
    firsts = sorted(r.chunks[0][0] for r in requests if r.chunks)
    chunks = sorted(chunk for r in requests for chunk in r.chunks)
    times, tokens = [t for t, _ in chunks], list(accumulate((n for _, n in chunks), initial=0))
    for window in windows:
        t0_ns, t1_ns = window.t0_ns, window.t1_ns
        begun, joined, ended = (bisect_right(moments, t1_ns) for moments in (begins, firsts, ends))
        yield Activity(t0_ns, t1_ns, sum(max(0, min(r.end_ns, t1_ns) - max(r.begin_ns, t0_ns)) for r in requests),
                       tokens[bisect_right(times, t1_ns)] - tokens[bisect_right(times, t0_ns)],
                       joined - bisect_right(firsts, t0_ns), joined - ended, begun - joined)


def steady_per_token(spans: Iterable[Span]) -> float | None:
    """Joules an output token over the steady windows; None if no token fell into one."""
    steady = [span for span in spans if span.phase is Phase.STEADY]
    tokens = sum(span.activity.tokens for span in steady)
    return joules(sum(span.window.energy_uj for span in steady)) / tokens if tokens else None


def ml_energy(traffic: Traffic, batch: int) -> tuple[float, float | None]:
    """Seconds of ML.ENERGY's steady state, and joules an output token in it, as their code computes it: from when `batch` requests
    have had a first token to when all but `batch` + 1 have ended, and not before a pacing client has sent its last; tokens as its
    client counts them, joules as the counter shows them at these moments. None where the window is empty.

    Source: ml-energy/benchmark, mlenergy/benchmark/llm/benchmark.py, RequestTracker and benchmark() (lines 209-277 and 864-921)."""
    firsts = sorted(r.chunks[0][0] for r in traffic.requests if r.chunks)
    ends = sorted(r.end_ns for r in traffic.requests)
    left = len(ends) - batch - 1
    t1_ns = ends[max(left, 1) - 1]
    t0_ns = max(firsts[batch - 1] if len(firsts) >= batch else t1_ns, traffic.sent_ns or 0)
    tokens = sum(n for r in traffic.requests for t_ns, n in r.chunks if t0_ns < t_ns <= t1_ns)
    if t1_ns <= t0_ns or not tokens:
        return 0.0, None
    times = [t_ns for t_ns, _ in traffic.counter]
    shown = [traffic.counter[max(bisect_right(times, t_ns) - 1, 0)][1] for t_ns in (t0_ns, t1_ns)]
    return seconds(t1_ns - t0_ns), joules(shown[1] - shown[0]) / tokens


def assess(traffic: Traffic, max_num_seqs: int) -> dict[str, Any]:
    """What is said of one stream. Where no largest batch was named, ML.ENERGY's is the most that ran at a time."""
    found = spans(traffic, max_num_seqs)
    whole_ns = sum(span.window.t1_ns - span.window.t0_ns for span in found)
    share = {phase.value: sum(s.window.t1_ns - s.window.t0_ns for s in found if s.phase is phase) / whole_ns for phase in Phase}
    ours, batch = steady_per_token(found), max_num_seqs or traffic.in_flight
    their_s, theirs = ml_energy(traffic, batch)
    return {"seconds": seconds(whole_ns), "share": share, "steady_joules_per_output_token": ours, "ml_energy_batch": batch,
            "ml_energy_seconds": their_s, "ml_energy_joules_per_output_token": theirs,
            "difference": ours / theirs - 1 if ours and theirs else None}


def run(argv: Sequence[str]) -> int:
    """The command line; 2 for what cannot be read or drawn."""
    parser = argparse.ArgumentParser(prog="steady_state.py", description="What of a recording is steady, and what a token costs there.")
    parser.add_argument("recordings", nargs="*", type=Path, metavar="RECORDING", help="a recording (.json.gz)")
    parser.add_argument("--max-num-seqs", type=int, default=0, metavar="N", help="the engine's largest batch; 0: not known")
    parser.add_argument("--paced", nargs="+", type=float, default=[], metavar="RATE", help="simulated requests a second, evenly spaced")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw power and running requests over time (needs matplotlib)")
    asked = parser.parse_args(argv)
    if not asked.recordings and not asked.paced:
        parser.error("got no recording, expected at least one file or --paced RATE")
    if asked.max_num_seqs < 0 or min(asked.paced, default=1) <= 0:
        parser.error(f"got --max-num-seqs {asked.max_num_seqs} and --paced {asked.paced}, expected no less than 0 and rates above 0")
    if asked.plot is not None and asked.plot.suffix not in PLOTS:
        parser.error(f"--plot: got {asked.plot}, expected a name that ends in {' or '.join(PLOTS)}")
    try:
        streams = [*map(recorded, asked.recordings), *(paced(rate, asked.max_num_seqs or 64) for rate in asked.paced)]
        if asked.plot is not None:
            plot(asked.plot, {traffic.name: spans(traffic, asked.max_num_seqs) for traffic in streams})
    except (ValueError, ImportError) as error:
        parser.error(str(error))
    found = {traffic.name: assess(traffic, asked.max_num_seqs) for traffic in streams}
    if asked.json:
        print(json.dumps({"recordings": found}))
    else:
        Console().print(_table(found))
    return 0


def _table(found: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Steady state, and joules an output token in it", title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0),
                  pad_edge=False, caption_justify="left",
                  caption="phases in % of the time. theirs: ML.ENERGY's definition with a batch of B, over their seconds.")
    for column in ("", "s", *Phase, "J/token", "theirs", "B", "for s", "differ"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, said in found.items():
        ours, theirs = said["steady_joules_per_output_token"], said["ml_energy_joules_per_output_token"]
        table.add_row(name, f"{said['seconds']:.0f}", *(f"{100 * said['share'][phase]:.0f}" for phase in Phase),
                      "none" if ours is None else f"{ours:.4f}", "empty" if theirs is None else f"{theirs:.4f}",
                      str(said["ml_energy_batch"]), f"{said['ml_energy_seconds']:.0f}",
                      "" if said["difference"] is None else f"{said['difference']:+.1%}")
    return table


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
