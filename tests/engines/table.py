"""Says what works with which engine, and which test shows it: `python -m tests.engines.table`, from the checkout, without any engine.

Tests name what they show by `@pytest.mark.feature(engine, feature, how)`; `real` means that the engine itself ran, `contract` that a
server of ours answered as the engine's published contract says. What cannot be had stands in `impossible.py`, with the reason.
"""

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from tests.engines.impossible import IMPOSSIBLE

ROOT = Path(__file__).resolve().parents[2]
ENGINES = {
    "vllm": "vLLM", "sglang": "SGLang", "tgi": "TGI", "transformers": "transformers serve", "llamacpp": "llama.cpp",
    "diffusers": "diffusers", "vllm-omni": "vLLM-Omni", "sglang-diffusion": "SGLang diffusion", "openai-images": "OpenAI Images",
    "comfyui": "ComfyUI",
}
FEATURES = {
    "stream": "stream", "non-stream": "whole answer", "tokens-exact": "tokens exact", "queue-known": "queue known",
    "cached-known": "cached known", "abort-seen": "abort seen", "joules-per-unit": "joules per unit", "jobs": "jobs",
}
HOWS = ("real", "contract")
WIDTH = 140  # where there is no terminal
STYLES = {"real": "green", "contract": "cyan", "not possible": "dim", "missing": "bold red"}


@dataclass(slots=True)
class Cell:
    """One feature of one engine: how it is shown, by which tests, or why it cannot be."""

    how: str = "missing"
    tests: list[str] = field(default_factory=list)
    reason: str = ""


class MarkError(ValueError):
    """A mark that names what is not in the table, or contradicts it."""


@dataclass(slots=True)
class _Marks:
    """A pytest plugin that keeps the marks of what was collected: engine, feature and how, and the test without its parameters."""

    found: list[tuple[tuple[object, ...], str]] = field(default_factory=list)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            self.found.extend((mark.args, item.nodeid.partition("[")[0]) for mark in item.iter_markers("feature"))


def marked() -> list[tuple[tuple[object, ...], str]]:
    """The arguments of every mark, with its test. Raises MarkError with what pytest says where it cannot collect."""
    files = sorted(str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.feature(" in path.read_text())
    marks, said = _Marks(), io.StringIO()
    with contextlib.redirect_stdout(said):
        code = pytest.main(["--collect-only", f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}", "-p", "no:cacheprovider",
                            *files], plugins=[marks])
    if code != pytest.ExitCode.OK:
        raise MarkError(said.getvalue())
    return marks.found


def cells_of(marks: Iterable[tuple[tuple[object, ...], str]]) -> dict[tuple[str, str], Cell]:
    """Every cell of the table; a real test outweighs one by contract. Raises MarkError."""
    cells = {(engine, feature): Cell() for engine in ENGINES for feature in FEATURES}
    for place, reason in IMPOSSIBLE.items():
        if place not in cells:
            raise MarkError(f"impossible.py names {place}, which is not in the table")
        cells[place] = Cell("not possible", reason=reason)
    for args, test in marks:
        if len(args) != 3 or args[:2] not in cells or args[2] not in HOWS:
            raise MarkError(f"{test}: got feature{args}, expected one of {list(ENGINES)}, one of {list(FEATURES)} and one of {HOWS}")
        engine, feature, how = map(str, args)
        cell = cells[engine, feature]
        if cell.reason:
            raise MarkError(f"{test} shows {feature} of {engine}, which impossible.py says cannot be had: {cell.reason}")
        if cell.how == "missing" or HOWS.index(how) < HOWS.index(cell.how):
            cell.how, cell.tests = how, []
        if how == cell.how and test not in cell.tests:
            cell.tests.append(test)
    return cells


def overview(cells: dict[tuple[str, str], Cell]) -> Iterator[str]:
    """The table, as lines of Markdown."""
    yield f"| | {' | '.join(FEATURES.values())} |"
    yield f"|---{'|---' * len(FEATURES)}|"
    for engine, name in ENGINES.items():
        yield f"| **{name}** | {' | '.join(cells[engine, feature].how for feature in FEATURES)} |"


def evidence(cells: dict[tuple[str, str], Cell]) -> Iterator[str]:
    """What stands behind each cell: the tests, or the reason."""
    for engine, name in ENGINES.items():
        yield f"\n**{name}**\n"
        for feature, title in FEATURES.items():
            cell = cells[engine, feature]
            yield f"- {title}: {cell.how}; {cell.reason or ', '.join(f'`{test}`' for test in cell.tests)}"


def written(text: str, cells: dict[tuple[str, str], Cell]) -> str:
    """A page with what stands between its marks written anew. Raises MarkError where it has none."""
    for name, lines in (("overview", overview(cells)), ("evidence", evidence(cells))):
        before, begin, rest = text.partition(f"<!-- {name}, by python -m tests.engines.table --write docs/engines.md -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        if not end:
            raise MarkError(f"the page has no marks around {name}")
        text = before + begin + "\n" + "\n".join(lines) + "\n\n" + end + after
    return text


def table(cells: dict[tuple[str, str], Cell]) -> Table:
    """The same for a terminal."""
    shown = Table("engine", *FEATURES.values())
    for engine, name in ENGINES.items():
        shown.add_row(name, *(f"[{STYLES[how]}]{how}" for how in (cells[engine, feature].how for feature in FEATURES)))
    return shown


def as_json(cells: dict[tuple[str, str], Cell]) -> str:
    """The same for a program."""
    rows = [{"engine": engine, "feature": feature, "how": cell.how, "tests": cell.tests, "reason": cell.reason or None}
            for (engine, feature), cell in cells.items()]
    return json.dumps(rows, indent=2)


def main() -> int:
    """0 if every cell is filled, 1 if one is missing, 2 if a mark or the page cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m tests.engines.table", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tests", action="store_true", help="also the test behind each cell, or the reason why there is none")
    parser.add_argument("--json", action="store_true", help="all of it as JSON")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this page, between its marks")
    options = parser.parse_args()
    try:
        cells = cells_of(marked())
        if options.write:
            options.write.write_text(written(options.write.read_text(), cells))
    except (MarkError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if options.json:
        console.out(as_json(cells), highlight=False)
    elif not options.write:
        console.print(table(cells))
        if options.tests:
            for (engine, feature), cell in cells.items():
                console.print(f"{ENGINES[engine]}, {FEATURES[feature]}: {cell.how}", style=STYLES[cell.how])
                console.print(*(cell.tests or [cell.reason]), sep="\n", markup=False, highlight=False, soft_wrap=True)
    missing = [f"{engine} {feature}" for (engine, feature), cell in cells.items() if cell.how == "missing"]
    if missing:
        sys.stderr.write(f"no test says whether these work: {', '.join(missing)}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
