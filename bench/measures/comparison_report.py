"""What `perjoule compare` found, in words and as a table."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

TITLES = {"energy_per_output_token": "J/output token", "energy_per_response": "J/response", "energy_per_total_token": "J/token in and out"}
COLOURS = {"regression": "bold red", "improvement": "green", "no difference": "dim"}


def sentence(each: Mapping[str, Any]) -> str:
    """As "J/output token rose 4.1 % [2.0, 6.3] → regression" or "J/output token fell: -4.1 % [-6.3, -2.0] → improvement"."""
    went = "rose" if each["change"] >= 0 else "fell:"
    title = TITLES.get(each["metric"], each["metric"])
    return f"{title} {went} {100 * each['change']:.1f} % [{100 * each['low']:.1f}, {100 * each['high']:.1f}] → {each['verdict']}"


def show(console: Console, found: Mapping[str, Any]) -> None:
    """Everything that `perjoule compare` found: what forbids, what differs, what to mind, a table, and a sentence for each that decides."""
    for text in found["forbidden"]:
        console.print(f"[bold red]not comparable[/] {escape(text)}")
    if found["forbidden"] and not found["changes"]:
        console.print("--allow KEY,… lets a setting differ, --force compares whatever differs")
    for each in found["differ"]:
        if not each["forbids"]:
            console.print(f"differs: {each['key']}: {each['a']} and {each['b']}", markup=False)
    for note in found["notes"]:
        console.print(f"note: {note}", markup=False)
    if not found["changes"]:
        return
    table = Table(title="B beside A", title_justify="left")
    for column in ("", "A", "B", "change", "95 % interval", "runs", "requests", ""):
        table.add_column(column, justify="left" if not column else "right")
    for each in found["changes"]:
        table.add_row(TITLES.get(each["metric"], each["metric"]), *(f"{each[side]:.4g} {each['unit']}" for side in "ab"),
                      f"{100 * each['change']:+.1f} %", f"{100 * each['low']:+.1f} … {100 * each['high']:+.1f} %", str(each["pairs"]),
                      str(each["requests"] or "unpaired"), f"[{COLOURS[each['verdict']]}]{each['verdict']}[/]")
    console.print(table)
    for each in found["changes"]:
        if each["decides"]:
            console.print(sentence(each), markup=False)
    assumed = [100 * each["run_to_run"] for each in found["changes"]]
    if assumed and min(len(found["a"]), len(found["b"])) < 3:
        least, most = f"{min(assumed):g}", f"{max(assumed):g}"
        console.print(f"Fewer than 3 repeats: what one run and the next differ by is assumed, "
                      f"{least if least == most else f'{least} to {most}'} % by metric (--run-to-run).", style="dim")
