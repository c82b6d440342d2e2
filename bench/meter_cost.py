"""What the meter alone costs: CPU time for a stream of 10,000 tokens a second, by how many requests it comes from.

The events are those of production (requests begin, show a token at a time and end; a counter of 100 ms windows is polled every
20 ms), in virtual time: nothing sleeps, so the CPU time for a virtual second is the share of one core.

    python bench/meter_cost.py [--json]
"""

import argparse
import gc
import heapq
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from rich.box import MARKDOWN
from rich.console import Console
from rich.progress import track
from rich.table import Table

from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.metering.weighing import METHODS
from perjoule.sidecar.ports import Device, Reading
from perjoule.sidecar.record import Outcome, RequestFacts, Status, TokenSource
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S, energy_uj

IN_FLIGHT = (32, 64, 128, 256, 512)
TOKENS_PER_S = 10_000
OUTPUT_TOKENS = (128, 512)  # of a request, from and to
INPUT_TOKENS = (64, 2048)
PROMPT_PER_S = 40_000
POLL_NS, PERIOD_NS = 20 * NS_PER_MS, 100 * NS_PER_MS
IDLE_NS = NS_PER_S  # at first, so that the meter knows the idle power
IDLE_W, BUSY_W = 127.0, 600.0
WARM_NS = 2 * NS_PER_S  # not measured: all in flight have begun, and some of them ended
REPEATS = 2  # the lowest counts: others use the machine, too
LOOKS = 10_000
BUDGET_PERCENT, BUDGET_IN_FLIGHT = 2.0, 256

Event = tuple[int, str, int, int]  # when, what, which request, and its prompt tokens (begin) or output tokens (end)


@dataclass(frozen=True, slots=True)
class Spent:
    """What one method cost at one load."""

    method: str
    in_flight: int
    requests_per_s: float
    tokens_per_s: float
    core_percent: float
    us_per_token: float  # the time in calls that tell of a token
    us_per_window: float  # in polls and ticks, which divide windows and settle requests
    us_per_request: float  # in the calls at its beginning and end
    us_but_tokens: float  # for each window, in all calls that do not tell of a token


def events(in_flight: int, seconds: float, random: Random) -> Iterator[Event]:
    """A closed loop of so many requests for so long: each shows a token in its turn, ends, and is followed by another. Every
    request decodes at its part of the rate, and begins after its prompt has been computed at `PROMPT_PER_S`."""
    gap_ns = in_flight * NS_PER_S // TOKENS_PER_S
    stop_ns = IDLE_NS + WARM_NS + round(seconds * NS_PER_S)
    agenda: list[tuple[int, str, int, int, int]] = [(poll_ns, "poll", 0, 0, 0) for poll_ns in range(0, stop_ns, POLL_NS)]
    agenda += [(IDLE_NS + place * gap_ns // in_flight, "begin", place, 0, 0) for place in range(in_flight)]
    heapq.heapify(agenda)
    names = in_flight
    while agenda and agenda[0][0] < stop_ns:
        t_ns, what, name, left, whole = heapq.heappop(agenda)
        if what == "poll":
            yield t_ns, what, 0, 0
        elif what == "begin":
            prompt, tokens = random.randint(*INPUT_TOKENS), random.randint(*OUTPUT_TOKENS)
            if name < in_flight:  # the first ones are at any point of their lives
                tokens = random.randint(1, tokens)
            yield t_ns, what, name, prompt
            heapq.heappush(agenda, (t_ns + max(gap_ns, prompt * NS_PER_S // PROMPT_PER_S), "token", name, tokens, tokens))
        else:
            yield t_ns, "token", name, 1
            if left > 1:
                heapq.heappush(agenda, (t_ns + gap_ns, "token", name, left - 1, whole))
                continue
            yield t_ns, "end", name, whole
            heapq.heappush(agenda, (t_ns, "begin", names, 0, 0))
            names += 1


Call = tuple[str, Callable[..., object], tuple[Any, ...], dict[str, Any]]


def calls(meter: Meter, happened: Sequence[Event]) -> list[Call]:
    """The events as calls of this meter, made beforehand so that making them costs the measurement nothing."""
    prompts: dict[int, int] = {}
    made: list[Call] = []
    for t_ns, what, name, tokens in happened:
        if what == "poll":
            shown_ns = t_ns - t_ns % PERIOD_NS
            uj = energy_uj(IDLE_W, min(shown_ns, IDLE_NS)) + energy_uj(BUSY_W, max(0, shown_ns - IDLE_NS))
            made.append((what, meter.sample, ([Reading(t_ns, t_ns, uj)],), {}))
        elif what == "begin":
            prompts[name] = tokens
            made.append((what, meter.begin, (str(name), t_ns), {"input_tokens": tokens}))
        elif what == "token":
            made.append((what, meter.tokens, (str(name), t_ns, tokens), {}))
        else:
            made.append((what, meter.end, (str(name), t_ns, facts(str(name), prompts.pop(name), tokens)), {}))
    return made


def facts(name: str, input_tokens: int, output_tokens: int) -> RequestFacts:
    """Everything that an engine's usage says."""
    return RequestFacts(name, name, 0, 0, Outcome.COMPLETED, "completions", "virtual", True, 200, input_tokens=input_tokens,
                        output_tokens=output_tokens, input_source=TokenSource.USAGE, output_source=TokenSource.USAGE)


def measure(method: str, in_flight: int, seconds: float) -> Spent:
    """Feed a meter with everything and take the CPU time; feed another one and take it call by call, for the proportions."""
    happened = list(events(in_flight, seconds, Random(in_flight)))
    warm = sum(event[0] < IDLE_NS + WARM_NS for event in happened)
    whole_ns = min(spend(calls(new_meter(method), happened), warm) for _ in range(REPEATS))
    taken_ns, count = Counter[str](), Counter[str]()
    for place, (what, call, args, more) in enumerate(calls(new_meter(method), happened)):
        before_ns = time.thread_time_ns()
        call(*args, **more)
        if place >= warm:
            taken_ns[what] += time.thread_time_ns() - before_ns
            count[what] += 1
    clock_ns = cost_of_the_clock()
    net_ns = {what: max(0.0, taken_ns[what] - clock_ns * count[what]) for what in taken_ns}
    us = {what: ns / sum(net_ns.values()) * whole_ns / 1000 for what, ns in net_ns.items()}
    windows = seconds * NS_PER_S / PERIOD_NS
    return Spent(
        method, in_flight, count["end"] / seconds, count["token"] / seconds, 100 * whole_ns / (seconds * NS_PER_S),
        us["token"] / count["token"], us["poll"] / windows, (us["begin"] + us["end"]) / count["end"],
        (sum(us.values()) - us["token"]) / windows,
    )


def spend(made: Sequence[Call], warm: int) -> int:
    """Nanoseconds of CPU for all calls but the first `warm`."""
    for _, call, args, more in made[:warm]:
        call(*args, **more)
    measured = made[warm:]
    gc.collect()
    gc.freeze()  # as the service does: what the bench holds is not looked at again and again
    before_ns = time.process_time_ns()
    for _, call, args, more in measured:
        call(*args, **more)
    spent_ns = time.process_time_ns() - before_ns
    gc.unfreeze()
    return spent_ns


def new_meter(method: str) -> Meter:
    """As it begins."""
    return Meter([Device("virtual", "virtual")], source="virtual", status=Status.SIMULATED, boundary="gpu-board", method=method)


def cost_of_the_clock() -> float:
    """Nanoseconds that a pair of looks at the clock adds to what lies between."""
    began_ns = time.thread_time_ns()
    for _ in range(LOOKS):
        time.thread_time_ns()
    return (time.thread_time_ns() - began_ns) / LOOKS


def table(rows: Sequence[Spent]) -> Table:
    """A row for each method and load."""
    out = Table(title=f"CPU time of the meter at {TOKENS_PER_S:,} tokens/s (budget: {BUDGET_PERCENT:g} % of a core at {BUDGET_IN_FLIGHT})",
                box=MARKDOWN)
    for column in ("method", "in flight", "requests/s", "tokens/s", "% of a core", "µs/token", "µs/window", "µs/request"):
        out.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for row in rows:
        out.add_row(row.method, str(row.in_flight), f"{row.requests_per_s:.1f}", f"{row.tokens_per_s:,.0f}", f"{row.core_percent:.2f}",
                    f"{row.us_per_token:.2f}", f"{row.us_per_window:.0f}", f"{row.us_per_request:.0f}")
    return out


def ratios(rows: Sequence[Spent]) -> dict[str, float]:
    """By method, what all but the tokens costs at the most in flight over what it does at half as many; 2 is linear."""
    by = {(row.method, row.in_flight): row.us_but_tokens for row in rows}
    return {method: by[method, IN_FLIGHT[-1]] / by[method, IN_FLIGHT[-2]] for method in METHODS}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of virtual time for each row")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    asked = parser.parse_args()
    if asked.seconds < 1:
        parser.error(f"--seconds: got {asked.seconds:g}, expected at least 1")
    loads = [(method, in_flight) for method in METHODS for in_flight in IN_FLIGHT]
    rows = [measure(method, in_flight, asked.seconds) for method, in_flight in track(loads, console=Console(stderr=True), transient=True)]
    if asked.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "512_to_256": ratios(rows)}))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table(rows))
    for method, ratio in ratios(rows).items():
        console.print(f"{method}: all but tokens costs {ratio:.2f} times as much at {IN_FLIGHT[-1]} as at {IN_FLIGHT[-2]} (linear: 2)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
