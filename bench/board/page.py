"""Results as one HTML file that needs nothing else: its style, its program and its data are inside, and it may load nothing."""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from typing import Any

from perjoule.bench.board.references import References
from perjoule.bench.board.repeats import standing
from perjoule.bench.board.rows import number, row
from perjoule.bench.board.store import Result
from perjoule.bench.measures.difference import BELIEF, RUN_TO_RUN
from perjoule.bench.measures.intervals import t_975

SCRIPTS = ("dom", "numbers", "front", "state", "axes", "scatter", "table", "advice", "timeline", "histogram", "closure", "detail",
           "compare", "download", "overview", "main")
KEPT = ("run_id", "name", "date", "perjoule", "partial", "valid", "reasons", "warnings", "setting", "load", "objectives",
        "workload", "windows", "metrics", "distributions", "outcomes", "closure", "client", "timeline", "histograms")
EXACT = "closure"  # sums that must add up are not rounded
DIGITS = 6
MOST_POINTS, LEAST_POINTS, ALL_POINTS = 600, 60, 30_000  # of a timeline; of all timelines of a page
PLACE = re.compile(r"%%(STYLE|SCRIPT|DATA|POLICY)%%")


def page(results: Sequence[Result], *, references: References | None = None) -> str:
    """The page of one result or many; a single one opens by itself. Raises ValueError without any."""
    if not results:
        raise ValueError("got no results, expected one at least")
    style, script = _part("style.css"), "".join(['(() => {\n"use strict";\n', *(_part(f"{name}.js") for name in SCRIPTS), "})();\n"])
    policy = (f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
              "base-uri 'none'; form-action 'none'")
    parts = {"STYLE": style, "SCRIPT": script, "DATA": as_json(data(results, references)), "POLICY": policy}
    return PLACE.sub(lambda place: parts[place[1]], _part("page.html"))


def data(results: Sequence[Result], references: References | None = None) -> dict[str, Any]:
    """What the page is given: a row and the details of each result, the formulas once, the references. Requests are left out."""
    points = max(LEAST_POINTS, min(MOST_POINTS, ALL_POINTS // len(results)))
    formulas: dict[str, str] = {}
    for result in results:
        formulas |= result.get("formulas") or {}
    rows = [rounded(row(result)) | repeats for result, repeats in zip(results, standing(results), strict=True)]
    return {"rows": rows, "results": [details(result, points) for result in results],
            "formulas": formulas, "run_to_run": t_975(BELIEF) * RUN_TO_RUN, "references": references and references.as_dict()}


def details(result: Result, points: int = MOST_POINTS) -> dict[str, Any]:
    """A result without its requests, with a timeline of at most so many points, and six digits but where sums must add up."""
    kept = {key: result[key] if key == EXACT else rounded(result[key]) for key in KEPT if result.get(key) is not None}
    if timeline := kept.get("timeline"):
        kept["timeline"] = thinned(timeline, points)
    return kept


def thinned(timeline: Mapping[str, Any], points: int) -> dict[str, Any]:
    """Means of neighbours, so that power keeps its energy; the steady intervals stay as they are."""
    many = len(timeline.get("t_s") or ())
    step = -(-many // points) or 1
    return {key: value if key == "steady" or not isinstance(value, list) else [_mean(value[at:at + step]) for at in range(0, many, step)]
            for key, value in timeline.items()}


def rounded(found: Any) -> Any:
    """Numbers to six digits, those that are none (NaN, infinity) to None, in whatever they are in."""
    if isinstance(found, Mapping):
        return {key: rounded(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [rounded(value) for value in found]
    if isinstance(found, float):
        return None if number(found) is None else int(found) if found == int(found) else float(f"{found:.{DIGITS}g}")
    return found


def as_json(found: Any) -> str:
    """JSON that may stand inside a script element: nothing in it ends the element or begins a comment."""
    return json.dumps(found, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _mean(values: Iterable[Any]) -> float | None:
    known = [value for one in values if (value := number(one)) is not None]
    return rounded(sum(known) / len(known)) if known else None


def _part(name: str) -> str:
    return (files("perjoule.bench.board") / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()
