"""What people install is what is in the tree: wheel, sdist and checkout hold the same package and no other name."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("sidecar", "adapters", "bench")
BIN = Path(sys.executable).parent
NOT_SOURCE = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; its failure with all that it said."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def modules(names: list[str]) -> set[str]:
    """The package's files among archive members or paths: `perjoule/sidecar/metering/meter.py`, and the parts of the page."""
    found = (re.fullmatch(r"(?:.*?/)?(?:src/)?(perjoule/[\w/]+\.(?:py|html|css|js)|perjoule/py\.typed)", name) for name in names)
    return {match[1] for match in found if match}


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist and the wheel built from it, from a copy of the tree: builds leave traces, old traces change builds."""
    copy, out = tmp_path_factory.mktemp("tree") / "perjoule", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=NOT_SOURCE)
    run(sys.executable, "-m", "build", "--installer=uv", f"--outdir={out}", copy, cwd=out)
    return out


@pytest.fixture(scope="session")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of a fresh environment that has the wheel and what it asks for, nothing else."""
    venv = tmp_path_factory.mktemp("venv")
    (wheel,) = dist.glob("*.whl")
    run(BIN / "uv", "venv", "--quiet", "--clear", f"--python={sys.executable}", venv, cwd=dist)
    run(BIN / "uv", "pip", "install", "--quiet", f"--python={venv / 'bin' / 'python'}", wheel, cwd=dist)
    return venv / "bin"


@pytest.mark.slow
def test_wheel_sdist_and_tree_hold_the_same_modules(dist: Path) -> None:
    """Nothing is forgotten on the way to the user, and nothing comes along twice."""
    tree = modules([*(f"perjoule/{p.relative_to(ROOT)}" for folder in FOLDERS for p in (ROOT / folder).rglob("*.*")),
                    *(f"perjoule/{p.name}" for p in (ROOT / "src" / "perjoule").iterdir()),
                    *(f"perjoule/vllm/{p.name}" for p in (ROOT / "src" / "perjoule" / "vllm").iterdir())])
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        assert modules(archive.namelist()) == tree
    with tarfile.open(sdist) as archive:
        assert modules(archive.getnames()) == tree
    assert "perjoule/main.py" in tree


@pytest.mark.slow
def test_perjoule_is_the_only_name_that_is_installed(dist: Path) -> None:
    """`sidecar`, `adapters` and `bench` would collide with packages that people have; the wheel brings none of them."""
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert [name for name in names if name.endswith("licenses/LICENSE")]
    assert {re.sub(r"-.*\.dist-info$", "", top) for top in tops} == {"perjoule"}


@pytest.mark.slow
def test_the_installed_command_works_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    """A fresh environment with the wheel alone has the command, its version and its help: no dependency is missing."""
    version = run(installed / "python", "-c", "import perjoule; print(perjoule.__version__)", cwd=tmp_path)
    assert version.strip() in run(installed / "perjoule", "--version", cwd=tmp_path)
    assert "--upstream" in run(installed / "perjoule", "serve", "--help", cwd=tmp_path)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_is_not_importable_by_its_bare_name(folder: str) -> None:
    """In the checkout `import sidecar` would make second classes of everything: it is refused, with the right name."""
    command = [sys.executable, "-c", f"import {folder}"]
    tried = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert tried.returncode != 0
    assert f"ImportError: import perjoule.{folder}" in tried.stderr
