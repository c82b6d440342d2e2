"""The fleet's bench: a small run of it finds every microjoule again, and would find out if one were missing."""

import json
from dataclasses import replace
from multiprocessing import get_context

import pytest

from perjoule.bench.fleet import main
from perjoule.bench.fleet_report import scrapes
from perjoule.bench.fleet_writers import into_ledger, written
from tests.fakes.postgres import IS_THERE, postgres


@pytest.mark.skipif(not IS_THERE, reason="no PostgreSQL here")
def test_a_small_run_conserves(tmp_path):
    """Three writers into one PostgreSQL, one into a file, three into a receiver: all of it is there."""
    with postgres() as server:
        server._run("createdb", f"--host={server._folder}", "--username=perjoule", "fleet3")
        url = f"postgresql://perjoule@/fleet{{}}?host={server._folder}"
        assert main(["--postgres", url, "--writers", "3", "--records", "600", "--out", str(tmp_path / "fleet")]) == 0
    found = json.loads((tmp_path / "fleet.json").read_text())
    assert [(one["runs"], one["conserved"]) for one in found["ledgers"]] == [(1, True), (3, True)]
    assert all(one["records_per_second"] > 0 and one["bytes_per_record"] > 0 for one in found["ledgers"] + found["otlp"])
    assert "| OTLP | 3 |" in (tmp_path / "fleet.md").read_text()


def test_a_missing_microjoule_is_found(tmp_path):
    """What was written and what is said to have been written are not the same."""
    where = str(tmp_path / "ledger")
    wrote = written(get_context("spawn"), into_ledger, where, 1, 50)
    assert wrote.checked_in(where)["conserved"]
    assert not replace(wrote, energy_uj=wrote.energy_uj + 1).checked_in(where)["conserved"]


def test_more_tenants_are_more_series():
    """Four for each, which docs/fleet.md reckons with."""
    alone, many = scrapes()[:2]
    assert many["series"] - alone["series"] == 4 * (many["tenants"] - alone["tenants"])
