"""The page of engines says what the tests show: no cell without a test or a reason, and nothing that is not in the marks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.table import ENGINES, FEATURES, ROOT, MarkError, cells_of


def table(*options: str) -> subprocess.CompletedProcess[str]:
    """The command, run as people run it."""
    return subprocess.run([sys.executable, "-m", "tests.engines.table", *options], cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_the_page_is_what_the_marks_say(tmp_path: Path) -> None:
    """Written again it is as it was, and nothing is missing; else: `python -m tests.engines.table --write docs/engines.md`."""
    page = tmp_path / "engines.md"
    page.write_text((ROOT / "docs/engines.md").read_text())
    done = table("--write", str(page), "--json")
    assert done.returncode == 0, done.stderr
    assert page.read_text() == (ROOT / "docs/engines.md").read_text()
    cells = json.loads(done.stdout)
    assert [(cell["engine"], cell["feature"]) for cell in cells] == [(engine, feature) for engine in ENGINES for feature in FEATURES]
    assert all(bool(cell["tests"]) != bool(cell["reason"]) for cell in cells)


def test_a_real_test_outweighs_one_by_contract() -> None:
    """And of one kind, each test is named once, whatever its parameters."""
    marks: list[tuple[tuple[object, ...], str]] = [
        (("sglang", "stream", "contract"), "a"), (("sglang", "stream", "real"), "b"), (("sglang", "stream", "real"), "b"),
        (("sglang", "stream", "contract"), "c"), (("sglang", "stream", "real"), "d")]
    cell = cells_of(marks)["sglang", "stream"]
    assert (cell.how, cell.tests) == ("real", ["b", "d"])


@pytest.mark.parametrize("args", [
    ("nobody", "stream", "real"), ("vllm", "dance", "real"), ("vllm", "stream", "nearly"), ("vllm", "stream"),
    ("transformers", "jobs", "real"),
])
def test_a_mark_that_cannot_be_is_refused(args: tuple[object, ...]) -> None:
    """What is in no cell, and what is said to be impossible."""
    with pytest.raises(MarkError, match="somewhere"):
        cells_of([(args, "somewhere")])
