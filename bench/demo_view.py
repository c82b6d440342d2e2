"""How the demo looks on a terminal: a live table while requests run, then what each of them cost."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from perjoule.bench.columns import Columns
from perjoule.bench.visits import Visit
from perjoule.sidecar.units import UJ_PER_J

LIVE_ROWS = 16
BAR = 20
RULES = {"perjoule": "perjoule, window by window", "equal_split": "the same for every request",
         "by_output_tokens": "by output tokens", "by_all_tokens": "by all tokens"}


def live_view(visits: Sequence[Visit], balance: Mapping[str, Any],
              running: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The requests in flight, then those that ended last, with the joules of each so far."""
    so_far_j = {f"/energy/{one['record_id']}": one["energy_joules_so_far"] for one in running}
    begun = [visit for visit in visits if visit.begun]
    flying, ended = [v for v in begun if not v.ended], [v for v in begun if v.ended]
    shown = (flying + ended[::-1])[:LIVE_ROWS]
    spent_j = [visit.record["energy_joules"] if visit.record else so_far_j.get(visit.record_path or "")
               for visit in shown]
    table = Columns({
        "request": [visit.request_id for visit in shown],
        "what": [visit.kind for visit in shown],
        "tokens out>": [str(visit.tokens or "") for visit in shown],
        "simulated joules>": [_number(j, 2) for j in spent_j],
        "": [_state(visit) for visit in shown],
    }, spare=("request", ""), dim=[visit.record is not None for visit in shown])
    count = Text(f"{len(ended)} of {len(visits)} done, {len(flying)} in flight", "bold")
    view = Group(table, count, _account(balance))
    return Group(Rule("perjoule demo: every joule here is simulated"), Padding(view, (0, 2)))


def summary(told: Mapping[str, Any]) -> RenderableType:
    """The report for a person."""
    parts: dict[str, RenderableType] = {
        "What each request cost, in simulated joules": _requests(told["requests"]),
        "By kind of request: means, in simulated joules": _kinds(told["kinds"]),
        "Does it add up?": Padding(_conservation(told["balance"]), (1, 0)),
        "How far from the truth?": Padding(Group(*_distances(told["distance_from_truth"])), (1, 0)),
        "Now your own": Padding(Group(*_next(told)), (1, 0)),
    }
    return Group(*(one for title, part in parts.items() for one in (Rule(title), Padding(part, (0, 2)))))


def _state(visit: Visit) -> str:
    if visit.failure:
        return "failed"
    if visit.record:
        return str(visit.record["outcome"])
    return "settling" if visit.ended else "answering" if visit.tokens else "sent"


def _requests(rows: Sequence[Mapping[str, Any]]) -> Columns:
    known = [row["energy_uj"] is not None and row["true_uj"] for row in rows]
    return Columns({
        "request": [row["request_id"] for row in rows],
        "what": [row["kind"] for row in rows],
        "in>": [_number(row["input_tokens"], 0) for row in rows],
        "out>": [_number(row["output_tokens"], 0) for row in rows],
        "outcome": [row["outcome"] or "failed" for row in rows],
        "joules>": [_j(row["energy_uj"]) for row in rows],
        "±>": [_j(row["uncertainty_uj"]) for row in rows],
        "J/token>": [_number(row["energy_per_output_token_joules"], 3) for row in rows],
        "truth>": [_j(row["true_uj"]) for row in rows],
        "off>": [f"{row['energy_uj'] / row['true_uj'] - 1:+.0%}" if both else ""
                 for row, both in zip(rows, known, strict=True)],
    }, spare=("J/token>", "request", "in>", "outcome", "truth>", "off>", "out>"))


def _kinds(kinds: Sequence[Mapping[str, Any]]) -> Columns:
    sums_uj = [kind["requests"] * (kind["mean_energy_uj"] or 0) for kind in kinds]
    shares = [sum_uj / (sum(sums_uj) or 1) for sum_uj in sums_uj]
    return Columns({
        "what": [kind["kind"] for kind in kinds],
        "requests>": [str(kind["requests"]) for kind in kinds],
        "in>": [_number(kind["mean_input_tokens"], 0) for kind in kinds],
        "out>": [_number(kind["mean_output_tokens"], 0) for kind in kinds],
        "joules>": [_j(kind["mean_energy_uj"]) for kind in kinds],
        "truth>": [_j(kind["mean_true_uj"]) for kind in kinds],
        "J/token>": [_number(kind["energy_per_output_token_joules"], 3) for kind in kinds],
        "of all>": [f"{share:.0%}" for share in shares],
        "": [Text("█" * round(share * BAR), "green") for share in shares],
    }, spare=("", "in>", "out>", "truth>", "requests>"))


def _account(balance: Mapping[str, Any]) -> Text:
    measured, *parts = (balance[f"{name}_uj"] / UJ_PER_J for name in ("measured", "requests", "idle", "unattributed"))
    return Text("{:,.1f} simulated J drawn = {:,.1f} by requests + {:,.1f} idle + {:,.1f} unattributed".format(
        measured, *parts))


def _conservation(balance: Mapping[str, Any]) -> Table:
    """The balance in whole microjoules, like a bill."""
    bill = Table.grid(padding=(0, 2))
    bill.add_column(justify="right")
    bill.add_column()
    for name, said in (("requests", "shared among the requests"), ("idle", "drawn while none was running"),
                       ("unattributed", "drawn for no request that we know of")):
        bill.add_row(f"{balance[f'{name}_uj']:,} µJ", said)
    exact = balance["measured_uj"] == sum(balance[f"{name}_uj"] for name in ("requests", "idle", "unattributed"))
    verdict = Text("= exactly", "bold green") if exact else Text("≠ NOT CONSERVED:", "bold red")
    bill.add_row(f"{balance['measured_uj']:,} µJ", verdict + Text(" what the (simulated) counter measured", "default"))
    return bill


def _distances(distances: Mapping[str, float | None]) -> Iterator[RenderableType]:
    yield "The simulated engine knows what each request truly cost. Σ|share - truth| / Σ truth, 0 is exact:"
    bars = Table.grid(padding=(0, 2), pad_edge=True)
    most = max((distance for distance in distances.values() if distance), default=1.0)
    for rule, distance in distances.items():
        if distance is not None:
            bars.add_row(RULES[rule], f"{distance:.3f}", Text("█" * max(1, round(distance / most * BAR)),
                                                              "green" if rule == "perjoule" else "dim"))
    yield Padding(bars, (1, 0))
    yield "The other rules divide the requests' total once, at the end."


def _next(told: Mapping[str, Any]) -> Iterator[RenderableType]:
    for problem in told["problems"]:
        yield Text(f"PROBLEM: {problem}", "bold red")
    yield told["note"]
    yield "In front of your own server, on a machine with a GPU, they are measured:"
    yield Text("\n    perjoule serve --upstream http://127.0.0.1:8000\n", "bold cyan")
    yield "and `perjoule probe` says beforehand whether that machine's sensor can be trusted."


def _j(uj: float | None) -> str:
    return "" if uj is None else f"{uj / UJ_PER_J:,.2f}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
