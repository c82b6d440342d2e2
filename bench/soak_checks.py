"""What must be true after bench/soak.py: exactly one record for each request, the joules conserved, nothing left behind and no leak."""

import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice, pairwise
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from rich.box import MARKDOWN
from rich.table import Table

from perjoule.bench.soak_turns import Saw
from perjoule.sidecar.units import joules

BLOCKS = 10  # of the second half of the samples; what lies between two neighbouring samples is not independent
STUDENT_95 = 2.306  # two-sided, for BLOCKS - 2 degrees of freedom
OBJECT_BYTES = 16  # the least that Python allocates: where a slope is not known to this many bytes a request, nothing is judged
LEAK_BYTES = 1.0  # a request: an object in every sixteenth
JUDGED_REQUESTS = 100_000  # below that, caches are still filling and a slope says nothing
COMPLAINT = re.compile(r"Traceback|never retrieved|never awaited|was destroyed|Exception ignored|ResourceWarning| (?:ERROR|CRITICAL) ")
COMPLAINT_LINES = 60
MOST_COUNTED = 255
MOST_NAMED = 20
LEFT_MAY_BE = {"completed", "cancelled"}  # the engine's last byte and the client's leaving cross on the way


class Check(NamedTuple):
    """One thing that must be true; `kept` is None where too little was done to tell."""

    what: str
    kept: bool | None
    found: str


class Case(NamedTuple):
    """Requests that are alike: what the client saw, whether the engine got them, how many records each has and with which outcome
    (the last one's, if there are several)."""

    saw: Saw
    reached: bool
    records: int
    outcome: str

    def __str__(self) -> str:
        """As one says it."""
        reached = "reached the engine" if self.reached else "did not reach the engine"
        return f"{self.saw.name.lower()}, {reached}, {self.records} records {self.outcome}".rstrip()


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the records say, by the number of their request; `unknown` have no joules, `strangers` are of nobody's request."""

    rows: int
    energy_uj: int
    unknown: int
    counts: bytearray
    outcomes: Sequence[str]
    strangers: int


def read_ledger(file: Path, requests: int, name: str) -> Ledger:
    """All records of requests whose ids begin with `name`. Raises sqlite3.Error."""
    counts, outcomes = bytearray(requests), [""] * requests
    rows = energy_uj = unknown = strangers = 0
    with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as ledger:
        for request_id, outcome, charged_uj in ledger.execute("SELECT request_id, outcome, energy_uj FROM records"):
            rows += 1
            energy_uj += charged_uj or 0
            unknown += charged_uj is None
            told, _, digits = request_id.rpartition("-")
            if told != name or not digits.isdigit() or int(digits) >= requests:
                strangers += 1
                continue
            number = int(digits)
            counts[number] = min(counts[number] + 1, MOST_COUNTED)
            outcomes[number] = outcome
    return Ledger(rows, energy_uj, unknown, counts, outcomes, strangers)


def cases(saw: Iterable[int], reached: Iterable[int], ledger: Ledger) -> tuple["Counter[Case]", list[int]]:
    """How many requests there are of each case, and the numbers of the first ones for which there should be none."""
    each = list(zip(saw, map(bool, reached), ledger.counts, ledger.outcomes, strict=True))
    counted = Counter({Case(Saw(alike[0]), *alike[1:]): count for alike, count in Counter(each).items()})
    wrong: set[tuple[int, bool, int, str]] = {case for case in counted if not is_right(case)}
    return counted, list(islice((number for number, case in enumerate(each) if case in wrong), MOST_NAMED))


def is_right(case: Case) -> bool:
    """Whether that may be."""
    saw, reached, records, outcome = case
    if saw in (Saw.WHOLE, Saw.REFUSED, Saw.CUT):
        return reached and records == 1 and outcome == ("completed" if saw is Saw.WHOLE else "errored")
    if saw is Saw.LEFT:  # who leaves at once may have been gone before anything was sent on
        return outcome in LEFT_MAY_BE if records == 1 else records == 0 and not reached
    if saw is Saw.UNSENT:
        return not reached and (records == 0 or (records == 1 and outcome == "cancelled"))
    return saw is Saw.UNMETERED and records == 0


class Slope(NamedTuple):
    """Bytes a request, and how far that may be off (half of the 95 % interval)."""

    bytes_each: float
    margin: float

    @property
    def is_leak(self) -> bool | None:
        """Whether memory grows, beyond doubt, by more than is worth a word; None where that cannot be told."""
        return None if self.margin > OBJECT_BYTES else self.bytes_each - self.margin > LEAK_BYTES

    def __str__(self) -> str:
        """In the unit in which one thinks of it."""
        return f"{self.bytes_each * 100_000 / 1024:+,.0f} ± {self.margin * 100_000 / 1024:,.0f} KB per 100,000 requests"


def slope(done: Sequence[int], used: Sequence[int]) -> Slope | None:
    """Least squares over the least of each block of the samples' second half; None for too few samples. What is held for a moment
    (a large body, a batch of records) comes and goes above the floor; a leak raises it."""
    half = len(done) // 2
    xs, ys = done[half:], used[half:]
    if len(xs) < 2 * BLOCKS or xs[0] == xs[-1]:
        return None
    cuts = [len(xs) * block // BLOCKS for block in range(BLOCKS + 1)]
    x = [fmean(xs[a:b]) for a, b in pairwise(cuts)]
    y = [min(ys[a:b]) for a, b in pairwise(cuts)]
    mean_x, mean_y = fmean(x), fmean(y)
    spread = sum((each - mean_x) ** 2 for each in x)
    steep = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    rest = sum((b - mean_y - steep * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    return Slope(steep, STUDENT_95 * sqrt(rest / (BLOCKS - 2) / spread))


def complaints(log: str) -> list[str]:
    """What nobody wants to see in a log, from its first such line on."""
    lines = log.splitlines()
    first = next((at for at, line in enumerate(lines) if COMPLAINT.search(line)), len(lines))
    return lines[first:first + COMPLAINT_LINES]


def is_at_rest(now: Mapping[str, Any], at_start: Mapping[str, Any]) -> bool:
    """Whether it has done everything and let go of everything. The collector is called when there are spans, and for metrics; and SQLite
    keeps the file of a reader that has gone for the next one, since closing it would drop the writer's locks."""
    may = at_start["open_files"] + sum({"otlp": 2, "ledger": 1}.get(name, 0) for name in now["sinks"])
    return not now["in_flight"] and not any(sink["waiting"] for sink in now["sinks"].values()) and now["open_files"] <= may


def checks(found: Mapping[str, Any], counted: "Counter[Case]", ledger: Ledger) -> list[Check]:
    """Everything that must be true of a run; `found` is what bench/soak.py has gathered."""
    balance, samples, before, after = found["balance"], found["samples"], found["at_start"], found["at_end"]
    sinks, spans, requests = after["sinks"], found["spans_received"], counted.total()
    wrong = Counter({case: count for case, count in counted.items() if not is_right(case)})
    unplayed = sum(count for case, count in counted.items() if case.saw in (Saw.NOTHING, Saw.WRONG))
    shared_uj = balance["requests_uj"] + balance["idle_uj"] + balance["unattributed_uj"]
    dropped = sum(sink["dropped"] for sink in sinks.values())
    steep = slope([sample["requests"] for sample in samples], [sample["rss_bytes"] for sample in samples])
    leaks = None if steep is None or requests < JUDGED_REQUESTS else steep.is_leak
    most_threads = max(sample["threads"] for sample in samples[:len(samples) // 2 + 1])
    waiting = sum(sink["waiting"] for sink in sinks.values())
    return [
        Check("each answer is the engine's, or breaks off where engine or client do", not unplayed,
              f"{unplayed:,} of {requests:,} are not"),
        Check("a request that reached the engine has one record, with the outcome that its client saw", not wrong,
              f"{wrong.total():,} are wrong" + "".join(f"; {count:,}: {case!s}" for case, count in wrong.most_common(3))),
        Check("no record is of no request", not ledger.strangers, f"{ledger.strangers:,} of {ledger.rows:,} are"),
        Check("measured == requests + idle + unattributed, in µJ", balance["measured_uj"] == shared_uj,
              f"{balance['measured_uj']:,} and {shared_uj:,}"),
        Check("requests == sum of all records, in µJ", balance["requests_uj"] == ledger.energy_uj,
              f"{balance['requests_uj']:,} and {ledger.energy_uj:,}"),
        Check("records are without joules only where the counter was not followed", not ledger.unknown or balance["unattributed_uj"] > 0,
              f"{ledger.unknown:,} are; {joules(balance['unattributed_uj']):,.0f} J unattributed"),
        Check("the ledger has every record", ledger.rows == sinks["ledger"]["stored"], f"{ledger.rows:,} of {sinks['ledger']['stored']:,}"),
        Check("the collector has a span of every record", None if spans is None else spans == ledger.rows,
              "there is none" if spans is None else f"{spans:,} of {ledger.rows:,}"),
        Check("no record was dropped, and metering never failed", not dropped and not after["metering_failures"],
              f"{dropped:,} dropped, {after['metering_failures']:,} failures"),
        Check("nothing is in flight, nothing waits, and open files are those of the start", is_at_rest(after, before),
              f"{after['in_flight']} in flight, {waiting} waiting, {after['open_files']} files after {before['open_files']}"),
        Check("there are no more threads than in the first half", after["threads"] <= most_threads,
              f"{after['threads']} after {most_threads}; {before['threads']} at the start"),
        Check("memory does not grow over the second half", None if leaks is None else not leaks,
              "too few samples" if steep is None else str(steep)),
        Check("the log complains of nothing", not found["complaints"], (found["complaints"] or ["it does not"])[0]),
    ]


def tables(found: Mapping[str, Any]) -> list[Table]:
    """What is shown in the end: what became of the requests, what was checked, and what it took."""
    became = Table("client saw", "engine got it", "records", "outcome", "requests", box=MARKDOWN)
    for case in found["cases"]:
        reached, outcome = "yes" if case["reached"] else "no", case["outcome"] or "–"
        became.add_row(case["saw"], reached, str(case["records"]), outcome, f"{case['requests']:,}")
    verdicts = Table("", "must be true", "found", box=MARKDOWN)
    for check in (Check(**each) for each in found["checks"]):
        verdicts.add_row({True: "yes", False: "NO", None: "?"}[check.kept], check.what, check.found)
    samples, after = found["samples"], found["at_end"]
    took = Table("", "start", "most", "end", box=MARKDOWN)
    for name, key, of in (("resident, MB", "rss_bytes", 1e6), ("open files", "open_files", 1), ("threads", "threads", 1),
                          ("in flight", "in_flight", 1)):
        took.add_row(name, *(f"{value / of:,.0f}" for value in (found["at_start"][key], max(s[key] for s in samples), after[key])))
    took.add_row("ledger, MB", "", "", f"{found['ledger_bytes'] / 1e6:,.0f}")
    took.add_row("seconds", "", "", f"{found['seconds']:,.0f}")
    return [became, verdicts, took]
