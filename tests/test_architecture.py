"""The shape of the code, held: what may import what, what the core must not touch, and how a module opens."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("sidecar", "adapters", "bench")
MODULES = sorted(path for folder in (*FOLDERS, "src/perjoule") for path in (ROOT / folder).rglob("*.py"))
MODULES = [path for path in MODULES if not any(parent.is_symlink() for parent in path.parents)]
PACKAGES = sorted(path.parent for path in (ROOT / "sidecar").rglob("__init__.py"))
LIMIT_BYTES = 15 * 1024
OUTSIDE = {"aiohttp", "asyncio", "httptools", "logging", "opentelemetry", "prometheus_client", "pynvml", "sqlalchemy", "sqlite3",
           "uvloop", "zeus"}


def contracts() -> list[dict[str, list[str]]]:
    """The import contracts of pyproject.toml."""
    return list(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"])


def name(path: Path) -> str:
    """A module or a package as a person names it: `sidecar/metering/meter.py`."""
    return str(path.relative_to(ROOT))


(CORE,) = [c["source_modules"] for c in contracts() if "asyncio" in c.get("forbidden_modules", ())]


@pytest.mark.parametrize("package", PACKAGES, ids=name)
def test_a_package_of_the_sidecar_lists_what_it_holds(package: Path) -> None:
    """The table of contents in a package's docstring names each module and each package in it once."""
    there = {path.stem for path in package.glob("*.py")} | {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text()), clean=False)
    listed = re.findall(r"^ {4}(\w+) ", text or "", re.MULTILINE)
    assert sorted(listed) == sorted(there - {"__init__"})


@pytest.mark.parametrize("module", CORE)
def test_the_core_brings_nothing_of_the_outside(module: str) -> None:
    """A fresh interpreter that imports a core module, or all of a core package, holds no server, event loop, driver or exporter."""
    code = f"""if True:
        import importlib, pkgutil, sys, {module} as it
        for found in pkgutil.iter_modules(getattr(it, "__path__", ())):
            importlib.import_module(f"{module}.{{found.name}}")
        print(*sys.modules)"""
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
