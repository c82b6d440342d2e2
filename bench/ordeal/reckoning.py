"""What clients were told, what the ledger kept, what spans were sent, what metrics counted: run by run, and whether it is all the same."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import orjson

from perjoule.adapters.ledger.queries import Queries
from perjoule.adapters.ledger.verify import verify, wrong_sums
from perjoule.bench.ordeal.clients import Sent
from perjoule.bench.ordeal.collector import Spans
from perjoule.bench.ordeal.play import Played, Run
from perjoule.sidecar.records.tally import TENANTS
from perjoule.sidecar.units import joules

UNSETTLED_S = 1.0  # a request that ended so long before a kill is settled and stored, and must be there


@dataclass(slots=True)
class Kept:
    """The ledger's records of one run: microjoules by sequence, None where there are none."""

    by_sequence: dict[int, int | None] = field(default_factory=dict)
    twice: int = 0
    first_unix_ns: int = 0

    @property
    def uj(self) -> int:
        """Their sum."""
        return sum(uj or 0 for uj in self.by_sequence.values())

    @property
    def holes(self) -> int:
        """Places that are missing before the last one."""
        return max(self.by_sequence, default=0) - len(self.by_sequence)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold, whether it does, and the numbers."""

    text: str
    holds: bool
    told: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """All of it: by run, and by the clients' request ids."""

    runs: dict[str, Kept]
    by_request: dict[str, list[tuple[str, int | None]]]
    tenants: int

    @classmethod
    def read(cls, ledger: Queries) -> "Ledger":
        """Raises LedgerError."""
        runs: dict[str, Kept] = defaultdict(Kept)
        by_request: dict[str, list[tuple[str, int | None]]] = defaultdict(list)
        tenants = set()
        for text in ledger.walk():
            record = orjson.loads(text)
            kept = runs[record["instance_id"]]
            kept.first_unix_ns = kept.first_unix_ns or record["arrival_unix_ns"]
            kept.twice += record["sequence"] in kept.by_sequence
            kept.by_sequence[record["sequence"]] = record["energy_uj"]
            by_request[record["request_id"]].append((record["record_id"], record["energy_uj"]))
            tenants.add(record["tenant"])
        return cls(dict(runs), by_request, len(tenants))


def reckon(played: Played, queries: Queries) -> dict[str, Any]:
    """Everything, as the object that is written: `runs`, `checks`, the `total`, and what `happened`. Raises LedgerError."""
    ledger = Ledger.read(queries)
    accounts = verify(queries.database, None, None)
    instances = {played.run_at(kept.first_unix_ns): instance for instance, kept in ledger.runs.items()}
    rows = [_row(run, ledger.runs.get(instances.get(number, ""), Kept()), played.spans.get(instances.get(number, ""), Spans()))
            for number, run in enumerate(played.runs)]
    away = [(run.ended_s, after.began_s) for run, after in pairwise(played.runs)]
    lost, unexplained = missing(played.sent, set(ledger.by_request), away)
    settled = [sent for sent in played.sent if sent.settled_joules is not None]
    kept = [sent for sent in settled if any(uj is not None and f"{joules(uj):.6f}" == f"{float(sent.settled_joules or 0):.6f}"
                                            for _, uj in ledger.by_request.get(sent.request_id, ()))]
    last = rows[-1]
    accounted = all(account.accounted for account in accounts) and not wrong_sums(queries.database, None, None)
    beside = sum(account.last.idle_uj + account.last.unattributed_uj for account in accounts if account.last is not None)
    in_records = sum(each.uj for each in ledger.runs.values())
    rest = played.engine_uj - in_records - beside
    twice, labels = sum(len(found) - 1 for found in ledger.by_request.values()), max(run.tenants for run in played.runs)
    total = Counter[str]()
    for row in rows:
        total.update({name: row[name] for name in ("holes", "spans", "spans_cut", "spans_missing", "spans_wrong", "spans_again")})
    checks = [
        Check("every request that reached a sidecar has its record, but those that a kill overtook", not unexplained,
              f"{len(played.sent) - lost - unexplained:,} found or refused, {lost:,} overtaken, {unexplained:,} not explained"),
        Check("no request has two records", not twice, f"{twice:,} twice"),
        Check("what a client was told is settled is in the ledger, to the microjoule", len(kept) == len(settled),
              f"{len(kept):,} of {len(settled):,}"),
        Check("no run has a hole in its records", not total["holes"], f"{total['holes']:,} holes"),
        Check("every record has its span, but the last ones before a kill; none of another cost",
              not total["spans_missing"] and not total["spans_wrong"],
              "{spans:,} spans, {spans_cut:,} cut off by kills, {spans_missing:,} missing, {spans_again:,} came twice".format(**total)),
        Check("of the run that was asked to stop, metrics, ledger and spans say the same",
              last["metrics"] == last["ledger"] == last["spans"] and abs(last["metrics_joules"] - last["ledger_joules"]) < 1e-3,
              "{metrics:,} / {ledger:,} / {spans:,}; {metrics_joules:.6f} J / {ledger_joules:.6f} J".format(**last)),
        Check("nothing was dropped", not any(run.dropped for run in played.runs), f"{sum(run.dropped for run in played.runs):,} records"),
        Check("`perjoule ledger verify` finds every joule", accounted,
              f"{len(accounts)} runs; sums by minute, hour and day are those of the records"),
        Check("a flood of tenants does not reach the metrics", labels <= TENANTS + 1,
              f"{ledger.tenants:,} tenants in the ledger, at most {labels} in a scrape"),
        Check("the engine's counter covers all that was given away", rest >= 0,
              f"{joules(played.engine_uj):,.0f} J drawn: {joules(in_records):,.0f} in records, {joules(beside):,.0f} idle or "
              f"unattributed in accounts, {joules(rest):,.0f} after a killed run's last account or while none ran"),
    ]
    went = Counter(sent.went for sent in played.sent)
    return {"went": dict(went), "runs": rows, "checks": [{"text": c.text, "holds": c.holds, "told": c.told} for c in checks],
            "peak_rss_bytes": max(run.rss_bytes for run in played.runs), "happened": played.happened}


def _row(run: Run, kept: Kept, spans: Spans) -> dict[str, Any]:
    """One run."""
    sent, there = spans.by_sequence, kept.by_sequence
    unsent = there.keys() - sent.keys()
    cut = {sequence for sequence in unsent if run.killed and sequence > max(sent, default=0)}
    return {"seconds": round(run.ended_s - run.began_s, 1), "ended": "killed" if run.killed else "stopped", "ledger": len(there),
            "ledger_joules": joules(kept.uj), "holes": kept.holes + kept.twice, "spans": len(sent),
            "spans_joules": joules(sum(uj or 0 for uj in sent.values())), "spans_cut": len(cut), "spans_missing": len(unsent - cut),
            "spans_wrong": sum(there[sequence] != uj for sequence, uj in sent.items() if sequence in there), "spans_again": spans.again,
            "metrics": run.requests, "metrics_joules": run.joules, "waiting": run.waiting, "rss_bytes": run.rss_bytes}


def missing(sent: Sequence[Sent], found: set[str], away: Sequence[tuple[float, float]]) -> tuple[int, int]:
    """How many requests have no record because a kill came before they were settled, and how many for no reason. `away` is from when to
    when no sidecar was there: what was sent on an old connection then, and was cut, never reached one."""
    without = [each for each in sent if each.went != "refused" and each.request_id not in found]
    overtaken = [each for each in without if any(
        each.began_s <= (back_s if each.went == "cut" else killed_s) and killed_s <= each.ended_s + UNSETTLED_S
        for killed_s, back_s in away)]
    return len(overtaken), len(without) - len(overtaken)
