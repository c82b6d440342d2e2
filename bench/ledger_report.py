"""`perjoule ledger report`: kWh, money, carbon and SCI of who was served, from stored joules and the factors that are named.

    perjoule ledger report --by tenant,model --since 2026-07-01 --price 0.30 --currency EUR --pue 1.2 --grid fixed:380
"""

import argparse
import sys
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from perjoule.adapters.ledger.queries import Queries
from perjoule.bench.ledger_factors import Asked, add_factor_arguments, add_time_arguments, asked_of
from perjoule.sidecar.footprint.focus import decimal, instant, kwh_of
from perjoule.sidecar.footprint.sci import Embodied, Score, score
from perjoule.sidecar.footprint.statement import HOST, IDLE, REQUESTS, Line, Statement, spread, statement

WIDTH = 150  # characters, where the output is no terminal
MICRO = Decimal("0.000001")
GRAMS = Decimal("0.000000000001")
UNITS = {"token": "input and output tokens", "output token": "output tokens"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("--by", default="model", metavar="NAME,…", help="model, tenant, outcome, endpoint, status (default: model)")
    add_time_arguments(parser)
    add_factor_arguments(parser)
    parser.add_argument("--grid", metavar="SOURCE", help="carbon intensity: fixed:G_PER_KWH[:marginal] or file:PATH (default: what the "
                        "ledger has kept from `perjoule serve --grid`)")
    parser.add_argument("--embodied-kg", type=_positive, metavar="KG", help="what making the hardware emitted, for SCI")
    parser.add_argument("--lifetime-years", type=_positive, metavar="N", help="with --embodied-kg: how long the hardware is used")
    parser.add_argument("--images", type=int, metavar="N", help="images made in this time, for SCI per image: records do not count them")
    parser.add_argument("--video-seconds", type=int, metavar="N", help="seconds of video made in this time, likewise")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(asked: argparse.Namespace, ledger: Queries) -> int:
    """The report. Raises ValueError for what cannot be asked."""
    if (asked.embodied_kg is None) != (asked.lifetime_years is None):
        raise ValueError("--embodied-kg and --lifetime-years: got one, expected both or none")
    told = report(asked, ledger)
    if asked.json:
        sys.stdout.write(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        show(Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False), told)
    return 0


def report(asked: argparse.Namespace, ledger: Queries) -> dict[str, Any]:
    """All of it, as JSON. Amounts are texts of decimals, so that none loses a digit."""
    by = [name.strip() for name in asked.by.split(",") if name.strip()]
    of = asked_of(asked, ledger, grid=asked.grid)
    accounts = of.accounts(ledger)
    groups = ledger.grouped(by, interval_s=of.grain_s, since_unix_ns=of.since_unix_ns, until_unix_ns=of.until_unix_ns)
    made = statement(groups, by, accounts, of.factors, of.grain_s, of.since_unix_ns, of.until_unix_ns)
    made = spread(made) if asked.idle == "spread" else made
    embodied = None if asked.embodied_kg is None else Embodied(asked.embodied_kg * 1000, asked.lifetime_years)
    embodied_g = None if embodied is None else embodied.over(of.until_unix_ns - of.since_unix_ns)
    lines = [_line(line, made, of, embodied_g) for line in made.lines]
    total = _line(made.total, made, of, embodied_g)
    served = {"image": asked.images, "second of video": asked.video_seconds}
    total["sci"] += [_sci(score(unit, count, _grams(made.total, made, number), embodied_g), grid)
                     for number, grid in _carbon(made) for unit, count in served.items() if count is not None]
    return {"since": instant(of.since_unix_ns).isoformat(), "until": instant(of.until_unix_ns).isoformat(), "by": by, "idle": asked.idle,
            "factors": _factors(asked, of, embodied_g), "lines": lines, "total": total,
            "measured_uj": sum(cell.measured_uj for cell in accounts.cells.values()) if accounts.cells else None,
            "reasons": _reasons(made, of, asked, bool(accounts.cells), embodied_g), "notes": _notes(made, of)}


def show(console: Console, told: Mapping[str, Any]) -> None:
    """The same as a table."""
    factors = told["factors"]
    simulated = "simulated" in told["total"]["statuses"]
    table = Table(title=f"{told['since']} to {told['until']}{': SIMULATED joules, no sensor stands behind them' if simulated else ''}",
                  title_justify="left")
    score = ("sci_g", "SCI g/token") if factors["embodied_g"] is not None else ("operational_g", "g/token")
    for name in (*told["by"], "what"):
        table.add_column(name)
    kinds = [grid["name"] for grid in factors["grids"]]
    for name in ("requests", "output tokens", "kWh", f"cost {factors['currency'] or ''}".strip(), *(f"g {kind}" for kind in kinds),
                 *(f"{score[1]} {kind}" for kind in kinds)):
        table.add_column(name, justify="right")
    for line in (*told["lines"], told["total"]):
        scores = [each[score[0]] for each in line["sci"] if each["unit"] == "token"]
        table.add_row(*(_text(line["key"].get(name)) for name in told["by"]), line["what"], str(line["requests"] or "–"),
                      _text(line["output_tokens"]), _text(line["kwh"] and f"{Decimal(line['kwh']):.6f}"), _part(line["cost"], "amount"),
                      *(_part(each, "g") for each in line["carbon"]), *(_text(each and f"{Decimal(each):.3g}") for each in scores),
                      end_section=line is told["lines"][-1] if told["lines"] else False)
    console.print(table)
    for text in (*told["reasons"].values(), *told["notes"]):
        console.print(f"note: {text}", markup=False)


def _line(line: Line, made: Statement, of: Asked, embodied_g: Fraction | None) -> dict[str, Any]:
    whole_uj = made.total.energy_uj
    part_g = None if embodied_g is None or not whole_uj else embodied_g * Fraction(line.energy_uj or 0, whole_uj)
    tokens = None if line.input_tokens is None and line.output_tokens is None else (line.input_tokens or 0) + (line.output_tokens or 0)
    amounts = dict(zip(made.names, line.amounts, strict=True))
    cost = amounts.get("cost")
    bears = line.what in (REQUESTS, "total")
    return {
        "what": line.what, "key": dict(line.key), "requests": line.requests, "with_energy": line.with_energy,
        "input_tokens": line.input_tokens, "output_tokens": line.output_tokens, "energy_uj": line.energy_uj, "spread_uj": line.spread_uj,
        "statuses": sorted(line.statuses), "kwh": None if line.energy_uj is None else format(kwh_of(line.energy_uj), "f"),
        "cost": None if cost is None or cost.micro is None else {"amount": format(cost.micro * MICRO, "f"), "known_uj": cost.known_uj,
                                                                 "of_uj": line.energy_uj},
        "carbon": [{"grid": grid.name, "known_uj": amount.known_uj, "of_uj": line.energy_uj,
                    "g": None if amount.micro is None else format(amount.micro * MICRO, "f")}
                   for grid, amount in zip(of.factors.grids, line.amounts[len(line.amounts) - len(of.factors.grids):], strict=True)],
        "sci": [_sci(score(unit, count, _grams(line, made, number), part_g), grid) for number, grid in _carbon(made) if bears
                for unit, count in (("token", tokens), ("output token", line.output_tokens))]}


def _carbon(made: Statement) -> list[tuple[int, str]]:
    """The amounts that are carbon, by number and name."""
    return [(number, name) for number, name in enumerate(made.names) if name != "cost"]


def _grams(line: Line, made: Statement, number: int) -> int | None:
    """Millionths of a gram, None unless all of the energy has an intensity: a score of a part would look too good."""
    amount = line.amounts[number]
    return amount.micro if line.energy_uj is not None and amount.known_uj == line.energy_uj else None


def _sci(found: Score, grid: str) -> dict[str, Any]:
    def text(value: Fraction | None) -> str | None:
        return None if value is None else format(decimal(value, GRAMS), "f")

    return {"unit": found.unit, "grid": grid, "count": found.count, "operational_g": text(found.operational_g), "sci_g": text(found.sci_g),
            "reason": found.reason}


def _factors(asked: argparse.Namespace, of: Asked, embodied_g: Fraction | None) -> dict[str, Any]:
    return {"pue": None if asked.pue is None else format(decimal(asked.pue, MICRO), "f"), "currency": of.factors.currency,
            "price": None if of.factors.price is None else str(asked.price) if asked.price is not None else str(asked.prices),
            "grids": [{"name": grid.name, "kind": str(grid.kind), "gas": grid.gas, "source": grid.source} for grid in of.factors.grids],
            "embodied_g": None if embodied_g is None else str(decimal(embodied_g, MICRO)), "grain_seconds": of.grain_s}


def _reasons(made: Statement, of: Asked, asked: argparse.Namespace, balanced: bool, embodied_g: Fraction | None) -> dict[str, str]:
    """Why something is not there."""
    what = {line.what for line in made.lines}
    found = {
        "cost": "no cost: no price is given (--price, --prices)" if of.factors.price is None else "",
        "pue": "the building is not counted: no PUE is given (--pue)" if asked.pue is None else "",
        "carbon": "no carbon: no intensity of the grid is known for this time (--grid, or `perjoule serve --grid`)"
        if not of.factors.grids else "",
        "idle": "idle and unattributed energy is not known: the ledger has no account of this time" if not balanced else "",
        "host": "what the host drew is not in it: no account says it" if balanced and HOST not in what and IDLE in what else "",
        "sci": "no SCI: embodied emissions are not given (--embodied-kg, --lifetime-years)"
        if of.factors.grids and embodied_g is None else ""}
    return {name: text for name, text in found.items() if text}


def _notes(made: Statement, of: Asked) -> list[str]:
    notes = list(of.notes)
    if "simulated" in made.total.statuses:
        notes.append("SIMULATED joules are in it: no sensor stands behind them")
    if made.total.requests > made.total.with_energy:
        notes.append(f"{made.total.requests - made.total.with_energy} requests have no joules and are in no sum")
    for name, amount in zip(made.names, made.total.amounts, strict=True):
        whole_uj = made.total.energy_uj or 0
        if amount.known_uj < whole_uj:
            notes.append(f"{name}: known for {100 * amount.known_uj / whole_uj:.1f} % of the energy; the amounts are of that part")
    return notes


def _text(value: Any) -> str:
    return "–" if value is None else str(value)


def _part(amount: Mapping[str, Any] | None, name: str) -> str:
    """An amount, and of how much of the energy it is if not of all."""
    if amount is None or amount[name] is None:
        return "–"
    share = "" if amount["known_uj"] == amount["of_uj"] else f" ({100 * amount['known_uj'] / amount['of_uj']:.0f} %)"
    return f"{amount[name]}{share}"


def _positive(text: str) -> Fraction:
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number above 0")
    return value
