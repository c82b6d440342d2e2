"""The coverage-guided drivers, where atheris is installed (`pip install 'perjoule[fuzz]'`): each starts, looks and finds nothing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="atheris is not installed")
ROOT = Path(__file__).parents[2]
TARGETS = ("sse", "usage", "bodies", "editing", "upstream", "relaying", "exchange", "clients", "asking", "headers")


@pytest.mark.parametrize("target", TARGETS)
def test_a_driver_looks(target):
    """A second of it runs the recordings at least, and ends well."""
    command = [sys.executable, "-m", "tests.fuzz.atheris_targets", "--target", target, "--seconds", "1"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-2000:]
    done = re.search(r"number_of_executed_units: (\d+)", ran.stderr)
    assert done is not None
    assert int(done[1]) > 5
