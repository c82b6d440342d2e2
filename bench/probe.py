"""`perjoule probe`: measures this machine's energy sensor and answers whether its joules can be trusted.

It measures idle or under whatever load there is (a steady one, so that poll rates can be compared), and prints what it
found: how often the counter and instant power show a new value, what a call costs, and whether the two agree.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from perjoule.adapters.energy import EXPECTED, Opened, open_counter
from perjoule.adapters.nvml import NvmlCounter
from perjoule.adapters.remote import Access
from perjoule.bench.polling import measure
from perjoule.bench.sensor import Answer, Findings, judge, study
from perjoule.sidecar.ports import CounterError, EnergyCounter, UnavailableError
from perjoule.sidecar.settings.credentials import energy_token
from perjoule.sidecar.units import NS_PER_MS

CALLS = 200  # of those that take microseconds
GAIN = "Every board's own gain error, up to ±5 % and constant, cannot be seen from here; it cancels in shares."


def run(argv: Sequence[str]) -> int:
    """The command. Exit code 0: trust it, or with care; 1: do not, or there is no source; 2: a wrong flag."""
    parser = argparse.ArgumentParser("perjoule probe", description="Measures this machine's energy sensor.")
    parser.add_argument("--energy", default="auto", metavar="SOURCE", help=f"{EXPECTED} (default: auto)")
    parser.add_argument("--gpus", default="all", metavar="all|UUID,…", help="the boards to probe (default: all)")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to measure (default: 20)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    flags = parser.parse_args(argv)
    if not flags.seconds > 0:
        parser.error(f"--seconds: got {flags.seconds}, expected more than 0")
    try:
        opened = open_counter(flags.energy, flags.gpus, in_flight=lambda: 0, access=Access(energy_token("", os.environ)))
    except ValueError as error:
        parser.error(str(error))
    except UnavailableError as error:
        opened = Opened(None, ((flags.energy, str(error)),))
    if opened.counter is None:
        return _no_source(opened, flags.json)
    try:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(f"reading {opened.counter.name}", total=1.0)
            boards = measure(opened.counter, flags.seconds, lambda share: bar.update(task, completed=share))
        return report(opened.counter, [study(spans) for spans in boards], flags.json)
    except CounterError as error:
        print(f"perjoule probe: the counter failed while it was measured: {error}", file=sys.stderr)
        return 1
    finally:
        opened.counter.close()


def report(counter: EnergyCounter, boards: list[Findings], as_json: bool) -> int:
    """Print the findings and the answer, the worst of all boards. Returns the exit code."""
    judged = [judge(findings, counter.status, _processes(counter, index)) for index, findings in enumerate(boards)]
    answer = max((each for each, _ in judged), key=list(Answer).index)
    reasons = [f"{device.uuid}: {reason}" for device, (_, found) in zip(counter.devices, judged, strict=True)
               for reason in found]
    about = [_about(counter, index) for index in range(len(boards))]
    if as_json:
        devices = [asdict(device) | {"about": facts} | asdict(findings)
                   for device, facts, findings in zip(counter.devices, about, boards, strict=True)]
        print(json.dumps({"source": counter.name, "status": counter.status, "boundary": counter.boundary,
                          "answer": answer, "reasons": reasons, "devices": devices}, indent=2))
        return int(answer is Answer.NO)
    console = Console()
    table = Table(title=f"{counter.name}: {counter.status}, boundary {counter.boundary}", title_justify="left")
    table.add_column()
    for device in counter.devices:
        table.add_column(f"{device.name}\n{device.uuid}", overflow="fold")
    rows = [_rows(findings) | facts for findings, facts in zip(boards, about, strict=True)]
    for label in dict.fromkeys(label for row in rows for label in row):
        table.add_row(label, *(row.get(label, "not known") for row in rows))
    console.print(table)
    console.print(f"[bold]Can the joules be trusted here? {answer}.[/]")
    for reason in reasons:
        console.print(f"  - {reason}", highlight=False)
    console.print(GAIN, highlight=False)
    return int(answer is Answer.NO)


def _processes(counter: EnergyCounter, index: int) -> int | None:
    pids = counter.processes(index) if isinstance(counter, NvmlCounter) else None
    return None if pids is None else len(pids)


def _about(counter: EnergyCounter, index: int) -> dict[str, str]:
    """Facts that only NVML tells: the board's settings, and what the calls that are no part of a reading cost."""
    if not isinstance(counter, NvmlCounter):
        return {}
    cost = {}
    for label, call in (("instant power: call", counter.instant_mw), ("average power: call", counter.average_mw)):
        spent_ns = []
        for _ in range(CALLS):
            before = time.perf_counter_ns()
            call(index)
            spent_ns.append(time.perf_counter_ns() - before)
        cost[label] = f"{median(spent_ns) / 1000:.1f} µs median"
    return counter.about(index) | cost


def _rows(f: Findings) -> dict[str, str]:
    return {
        "counter: new value every": _ms(f.period_ns) if f.period_ns is None else
            f"{_ms(f.period_ns)} (90 % within {_ms(f.period_p5_ns)} to {_ms(f.period_p95_ns)})",
        "counter: smallest step": "not known" if f.quantum_uj is None else f"{f.quantum_uj / 1000:g} mJ",
        "counter: call": f"{_ms(f.call_median_ns)} median, {_ms(f.call_p99_ns)} p99",
        "counter: mean power": _watts(f.counter_w),
        "instant power: new value every": _ms(f.power_period_ns) if f.power_skipped is None else
            f"{_ms(f.power_period_ns)}, {f.power_skipped:.0%} skipped",
        "instant power: mean": _watts(f.integral_w) if f.disagreement is None else
            f"{_watts(f.integral_w)}; the counter is {f.disagreement:+.2%} off",
        "counter polled every " + "/".join(f"{poll_ns // NS_PER_MS}" for poll_ns, _ in f.rates) + " ms":
            f"{', '.join(_watts(watts) for _, watts in f.rates)}; spread "
            + ("not compared" if f.rate_spread is None else f"{f.rate_spread:.2%}"),
    }


def _ms(ns: int | None) -> str:
    return "not known" if ns is None else f"{ns / NS_PER_MS:.3g} ms" if ns >= NS_PER_MS else f"{ns / 1000:.3g} µs"


def _watts(watts: float | None) -> str:
    return "not known" if watts is None else f"{watts:.1f} W"


def _no_source(opened: Opened, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"source": None, "answer": Answer.NO, "tried": dict(opened.tried)}, indent=2))
    else:
        print("There is no energy source here, so perjoule would report no joules (status unavailable).")
        for _, reason in opened.tried:
            print(f"  - {reason}")
    return 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
