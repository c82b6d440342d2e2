"""What deploy/ ships can be used as it is."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from perjoule.meter import _parser
from perjoule.sidecar.settings import sources

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_shipped_configuration_loads():
    """Every key of the example is a setting, and every value is of its type."""
    loaded = sources.load({"config": str(DEPLOY / "perjoule.toml")}, {})
    assert (loaded.upstream, loaded.ledger_days) == ("http://127.0.0.1:8000", 30)


UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def analyzed(unit, folder, *words):
    """What systemd-analyze says of a unit, with a command in it that is installed here."""
    here = folder / unit.name
    here.write_text(unit.read_text().replace("/opt/perjoule/bin/perjoule", shutil.which("true") or "/bin/true"))
    return subprocess.run(["systemd-analyze", *words, str(here)], capture_output=True, text=True, check=False, timeout=60)


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_what_systemd_expects(unit, tmp_path):
    """systemd-analyze verify finds nothing to say about it."""
    done = analyzed(unit, tmp_path, "verify")
    assert done.returncode == 0, done.stderr
    assert unit.name not in done.stderr, done.stderr


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_may_do_little(unit, tmp_path):
    """systemd-analyze security: an exposure of 2 of 10 at most (an ordinary service has 9.6)."""
    done = analyzed(unit, tmp_path, "security", "--offline=yes", "--threshold=20")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_what_there_is(unit):
    """Its command is one that the command line reads."""
    (command,) = re.findall(r"(?m)^ExecStart=/opt/perjoule/bin/perjoule (.*)$", unit.read_text())
    name, *flags = shlex.split(command)
    if name == "meter":
        assert _parser().parse_args(flags).socket_mode == "666"
    else:
        assert (name, flags[0]) == ("serve", "--config")
        assert Path(flags[1]).name == (DEPLOY / "perjoule.toml").name
