"""The core as mypyc compiles it is the core as Python runs it: the same tests hold for both (decision 0010)."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import setuptools

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
HELD_TO = ("tests/laws", *(f"tests/sidecar/{folder}" for folder in ("metering", "dialects", "http", "access", "relay", "records")),
           "tests/hostile/test_framing.py", "tests/hostile/test_sse.py", "tests/hostile/test_deaths.py")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has perjoule as it is installed with PERJOULE_COMPILE=1; else it is this one."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    copy, venv = tmp_path_factory.mktemp("compiled") / "perjoule", tmp_path_factory.mktemp("venv")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=NOT_SOURCE)
    subprocess.run([BIN / "uv", "venv", "--quiet", "--clear", f"--python={sys.executable}", venv], check=True, timeout=60)
    python = venv / "bin" / "python"
    done = subprocess.run([BIN / "uv", "pip", "install", f"--python={python}", f"{copy}[dev]"], capture_output=True, text=True,
                          env=os.environ | {"PERJOULE_COMPILE": "1", "CFLAGS": "-O1"}, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return python


def test_what_is_compiled_does_what_its_source_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataclass, a constant and the clock are written out; a module that has none of them, nor an import, is still one."""
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    written_out = runpy.run_path(str(ROOT / "setup.py"))["written_out"]
    text = written_out('"""What it is."""\n\nimport time\nfrom dataclasses import dataclass\n\nMOST = 3\n\n\n'
                       '@dataclass(slots=True)\nclass One:\n    at: int = 0\n\n'
                       '    def now(self):\n        return "é", time.monotonic_ns(), time.time_ns() + MOST\n')
    for part in ("MOST: Final = 3", "_time_time_ns: Final = time.time_ns", '"é", _time_monotonic_ns(), _time_time_ns() + MOST',
                 "init=False"):
        assert part in text
    names: dict[str, Any] = {"mypyc_attr": lambda **_: lambda made: made}  # which only the compiler knows
    exec(text, names)
    assert names["One"](at=5).at == 5
    assert time.time_ns() <= names["One"]().now()[2]
    plain: dict[str, Any] = {}
    exec(written_out('"""Nothing but a function."""\n\n\ndef one() -> int:\n    return 1\n'), plain)
    assert plain["one"]() == 1


@pytest.mark.slow
def test_the_core_is_compiled(compiled: Path, tmp_path: Path) -> None:
    """What was asked for is what is imported."""
    code = "import perjoule.sidecar.metering.meter as a, perjoule.sidecar.relay.exchange as b; print(a.__file__, b.__file__)"
    said = subprocess.run([compiled, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60).stdout
    assert len(re.findall(r"\.so\b", said)) == 2, said


@pytest.mark.slow
def test_what_holds_for_the_core_holds_compiled(compiled: Path) -> None:
    """Laws, what is compiled, and hostile traffic, all of it again."""
    done = subprocess.run([compiled, "-m", "pytest", "-x", "-p", "no:cacheprovider", *HELD_TO], cwd=ROOT, capture_output=True, text=True,
                          timeout=900)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
