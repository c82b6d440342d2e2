"""`perjoule calibration`: what has been learned on this machine of what steps and tokens cost, version by version."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from perjoule.adapters.calibrations import CalibrationFolder
from perjoule.bench.columns import Columns
from perjoule.sidecar.metering.calibration import Calibration, Version
from perjoule.sidecar.settings.config import ConfigError
from perjoule.sidecar.settings.sources import calibrations_folder
from perjoule.sidecar.units import NS_PER_S

USAGE_ERROR = 2
SPARE = ("learned>", "its context>", "GPU", "engine", "window error>", "when", "state")  # left out first where it is narrow
UNITS = "Coefficients of a fit are joules above the loaded idle; of a prior, prompt tokens. Versions no longer in use are dim."


def run(argv: Sequence[str]) -> int:
    """The command. Exit code 2: a wrong flag, or an id that is not there."""
    parser = argparse.ArgumentParser("perjoule calibration", description=__doc__.partition(": ")[2])
    parser.add_argument("what", nargs="?", choices=("list", "show"), default="list", help="all of them, or one whole (default: list)")
    parser.add_argument("id", nargs="?", help="of the calibration to show, as records have it in calibration_id")
    parser.add_argument("--calibrations", default="auto", metavar="FOLDER", help="where `perjoule serve` keeps them (default: auto)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    flags = parser.parse_args(argv)
    if (flags.what == "show") != (flags.id is not None):
        parser.error(f"got {flags.what} {flags.id or 'without an id'}, expected list, or show ID")
    try:
        folder = calibrations_folder(flags.calibrations)
    except ConfigError as error:
        return _refuse(str(error))
    rows = []
    for path, found in CalibrationFolder(folder).kept():
        if isinstance(found, Calibration):
            rows += [_row(found, version) for version in reversed(found.versions)]
        else:
            print(f"perjoule calibration: {path.name} is left out: {found}", file=sys.stderr)
    if flags.what == "show":
        return _show(rows, flags.id, flags.json)
    if flags.json:
        print(json.dumps({"calibrations": rows}, indent=2))
    else:
        _table(rows, folder)
    return 0


def _row(calibration: Calibration, version: Version) -> dict[str, Any]:
    """One version, flat, with the unit of its coefficients."""
    names = ("prompt_token", "step", "output_token", "output_token_context")
    in_use = version is calibration.versions[-1]  # and what is told of it is as of now, else as of its publication
    return {"id": version.id, "state": version.state, "in_use": in_use, **asdict(calibration.key),
            "unit": "joules" if version.state == "fitted" else "prompt tokens",
            "coefficients": dict(zip(names, version.coefficients, strict=True)),
            "window_error": calibration.window_error if in_use else version.window_error,
            "learned_seconds": round(calibration.learned_ns / NS_PER_S, 1) if in_use else version.learned_s,
            "published": None if version.published_unix_s is None else datetime.fromtimestamp(version.published_unix_s, UTC).isoformat()}


def _show(rows: list[dict[str, Any]], any_id: str, as_json: bool) -> int:
    """Everything about one version. Exit code 2 where there is none of that id."""
    row = next((row for row in rows if row["id"] == any_id), None)
    if row is None:
        return _refuse(f"got {any_id!r}, expected one of {', '.join(row['id'] for row in rows) or 'none: nothing has been learned here'}")
    if as_json:
        print(json.dumps(row, indent=2))
        return 0
    for name, value in row.items():
        for label, one in value.items() if isinstance(value, dict) else [(name, value)]:
            print(f"{label.replace('_', ' '):26} {'not known' if one is None else f'{one:.6g}' if isinstance(one, float) else one}")
    return 0


def _table(rows: list[dict[str, Any]], folder: Path) -> None:
    console = Console()
    if not rows:
        console.print(f"Nothing has been learned here ({folder}).", highlight=False)
        return
    columns = {
        "id": [row["id"] for row in rows], "state": [row["state"] for row in rows],
        "model": [Path(row["model"] or "not told").name for row in rows],
        "engine": [f"{row['engine'] or ''} {row['engine_version'] or ''}".strip() for row in rows],
        "GPU": [f"{len(row['group'])} × {row['gpu']}" for row in rows],
        "prompt token>": [_number(row, "prompt_token") for row in rows], "step>": [_number(row, "step") for row in rows],
        "output token>": [_number(row, "output_token") for row in rows],
        "its context>": [_number(row, "output_token_context") for row in rows],
        "window error>": ["" if row["window_error"] is None else f"{row['window_error']:.1%}" for row in rows],
        "learned>": [f"{row['learned_seconds']:.0f} s" for row in rows],
        "when": ["" if row["published"] is None else row["published"][:16].replace("T", " ") for row in rows],
    }
    cells = {head: [Text(cell) for cell in column] for head, column in columns.items()}
    console.print(Columns(cells, SPARE, [not row["in_use"] for row in rows]))
    console.print(UNITS, highlight=False)


def _number(row: dict[str, Any], name: str) -> str:
    return f"{row['coefficients'][name]:.3g}{' J' if row['unit'] == 'joules' else ''}"


def _refuse(text: str) -> int:
    print(f"perjoule calibration: {text}", file=sys.stderr)
    return USAGE_ERROR


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
