"""The core as mypyc compiles it is the core as Python runs it: the same tests hold for both (decision 0010)."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
