"""What the demo found out, as one JSON object: each request's joules, whether they add up, how far off they are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perjoule.bench.visits import Kind, Visit
from perjoule.sidecar.units import UJ_PER_J

Json = dict[str, Any]

NOTE = ("These joules are simulated: no sensor stands behind them, but an engine with the physics of an 8B model on an "
        "H200, in slow motion so that any machine can follow (steps take four times longer, watts are a quarter).")


def report(visits: Sequence[Visit], balance: Mapping[str, Any], truth: Mapping[str, Mapping[str, int]]) -> Json:
    """The whole report; `problems` is empty if every request has one record and every microjoule is accounted for."""
    rows = [_row(visit, truth.get(visit.request_id)) for visit in visits]
    return {
        "note": NOTE,
        "requests": rows,
        "kinds": [_kind(kind, rows) for kind in Kind if any(row["kind"] == kind for row in rows)],
        "balance": dict(balance),
        "distance_from_truth": distances([row for row in rows if None not in (row["energy_uj"], row["true_uj"])]),
        "problems": _problems(visits, balance),
    }


def distances(rows: Sequence[Json]) -> Json:
    """Normalized L1, sum of |share - truth| over sum of truth: 0 is exact. The sidecar's shares beside what three rules
    of thumb make of the same total after the fact."""
    true_uj, shared_uj = sum(row["true_uj"] for row in rows), sum(row["energy_uj"] for row in rows)

    def distance(weight: Callable[[Json], int]) -> float | None:
        weights = sum(map(weight, rows))
        if not weights or not true_uj:
            return None
        apart_uj = sum(abs(shared_uj * weight(row) / weights - row["true_uj"]) for row in rows)
        return float(apart_uj / true_uj)

    return {
        "perjoule": distance(lambda row: row["energy_uj"]),
        "equal_split": distance(lambda row: 1),
        "by_output_tokens": distance(lambda row: row["output_tokens"] or 0),
        "by_all_tokens": distance(lambda row: (row["input_tokens"] or 0) + (row["output_tokens"] or 0)),
    }


def _row(visit: Visit, true: Mapping[str, int] | None) -> Json:
    """One request: what was asked, its record, and its true cost."""
    record = visit.record or {}
    kept = ("record_id", "outcome", "input_tokens", "output_tokens", "energy_uj", "active_uj", "prefill_uj",
            "decode_uj", "uncertainty_uj", "energy_per_output_token_joules", "duration_seconds", "status", "method")
    return {"request_id": visit.request_id, "kind": visit.kind, **{name: record.get(name) for name in kept},
            "true_uj": true and true["energy_uj"]}


def _kind(kind: Kind, rows: Sequence[Json]) -> Json:
    """The means of one kind of request, over those that are known."""
    rows = [row for row in rows if row["kind"] == kind]

    def mean(name: str) -> float | None:
        known = [row[name] for row in rows if row[name] is not None]
        return sum(known) / len(known) if known else None

    spent_uj, true_uj, tokens = mean("energy_uj"), mean("true_uj"), mean("output_tokens")
    return {
        "kind": kind, "requests": len(rows), "mean_input_tokens": mean("input_tokens"), "mean_output_tokens": tokens,
        "mean_energy_uj": spent_uj, "mean_true_uj": true_uj,
        "energy_per_output_token_joules": spent_uj / UJ_PER_J / tokens if spent_uj is not None and tokens else None,
    }


def _problems(visits: Sequence[Visit], balance: Mapping[str, Any]) -> list[str]:
    problems = [f"{visit.request_id}: {visit.failure}" for visit in visits if visit.failure]
    problems += [f"{visit.request_id}: no settled record" for visit in visits if not visit.failure and not visit.record]
    records = [visit.record for visit in visits if visit.record is not None]
    problems += [f"{record['request_id']}: no joules, {record['status']}" for record in records
                 if record["energy_uj"] is None]
    if len({record["record_id"] for record in records}) < len(records):
        problems.append("two requests have the same record")
    measured, requests, idle, unattributed = (balance[f"{name}_uj"] for name in
                                              ("measured", "requests", "idle", "unattributed"))
    if measured != requests + idle + unattributed:
        problems.append(f"not conserved: {measured} µJ measured, {requests} + {idle} + {unattributed} µJ shared out")
    if sum(record["energy_uj"] or 0 for record in records) != requests:
        problems.append(f"the records do not sum to the {requests} µJ of the balance")
    return problems
