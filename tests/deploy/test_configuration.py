"""What deploy/ ships can be used as it is."""

import shutil
import subprocess
from pathlib import Path

import pytest

from perjoule.sidecar.settings import sources

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_shipped_configuration_loads():
    """Every key of the example is a setting, and every value is of its type."""
    loaded = sources.load({"config": str(DEPLOY / "perjoule.toml")}, {})
    assert (loaded.upstream, loaded.ledger_days) == ("http://127.0.0.1:8000", 30)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit_is_what_systemd_expects(tmp_path):
    """systemd-analyze verify finds nothing to say about the unit, beside the command that is not installed here."""
    unit = tmp_path / "perjoule.service"
    unit.write_text((DEPLOY / "perjoule.service").read_text().replace("/opt/perjoule/bin/perjoule", shutil.which("true") or "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
