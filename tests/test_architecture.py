"""The shape of the code, held: what may import what, what the core must not touch, and how a module opens."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from perjoule import sidecar

ROOT = Path(__file__).parents[1]
FOLDERS = ("sidecar", "adapters", "bench")
MODULES = sorted(path for folder in (*FOLDERS, "src/perjoule") for path in (ROOT / folder).glob("*.py"))
LIMIT_BYTES = 15 * 1024
OUTSIDE = {"aiohttp", "asyncio", "httptools", "logging", "opentelemetry", "prometheus_client", "pynvml", "sqlite3",
           "uvloop", "zeus"}


def listed(text: str) -> list[str]:
    """The modules that a part of the package's docstring names, one at the beginning of each indented line."""
    return re.findall(r"^ {4}(\w+) ", text, re.MULTILINE)


INSIDE_TEXT, OUTSIDE_TEXT = (sidecar.__doc__ or "").split("The outside is thin")
CORE, EDGES = listed(INSIDE_TEXT), listed(OUTSIDE_TEXT)


def contracts() -> list[dict[str, list[str]]]:
    """The import contracts of pyproject.toml."""
    return list(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"])


def name(module: Path) -> str:
    """A module as a person names it: `sidecar/meter.py`."""
    return str(module.relative_to(module.parents[1]))


def test_the_sidecar_lists_every_module_it_has() -> None:
    """The table of contents in the package's docstring names each module once, inside or outside."""
    there = {path.stem for path in (ROOT / "sidecar").glob("*.py")} - {"__init__"}
    assert sorted(CORE + EDGES) == sorted(there)


def test_the_core_in_the_contract_is_the_core_in_the_text() -> None:
    """What pyproject.toml forbids to touch the outside is what the docstring calls the inside."""
    (forbidden,) = [c for c in contracts() if "asyncio" in c.get("forbidden_modules", ())]
    assert sorted(forbidden["source_modules"]) == sorted(f"perjoule.sidecar.{module}" for module in CORE)


@pytest.mark.parametrize("module", CORE)
def test_a_core_module_brings_nothing_of_the_outside(module: str) -> None:
    """A fresh interpreter that imports a core module holds no server, no event loop, no driver and no exporter."""
    code = f"import sys, perjoule.sidecar.{module}; print(*sys.modules)"
    brought = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert brought.returncode == 0, brought.stderr
    assert {imported.partition(".")[0] for imported in brought.stdout.split()} & OUTSIDE == set()


def test_import_contracts_are_kept() -> None:
    """main → bench → adapters → sidecar, edges → core, and adapters do not know each other."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo"]
    linted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_module_opens_with_a_sentence_and_stays_small(module: Path) -> None:
    """The first line says in one sentence what the module is for, and the whole can be read in one sitting."""
    doc = ast.get_docstring(ast.parse(module.read_text()))
    assert doc, f"{name(module)} has no docstring"
    sentence = doc.split("\n\n")[0].replace("\n", " ")
    assert len(sentence) > 20, sentence
    assert sentence.endswith((".", ":")), sentence
    assert module.stat().st_size <= LIMIT_BYTES


def test_no_module_is_named_after_nothing() -> None:
    """A name says what is inside; these say nothing."""
    empty = {"utils", "util", "helpers", "helper", "manager", "common", "misc", "base", "core"}
    assert not [name(module) for module in MODULES if module.stem in empty]
