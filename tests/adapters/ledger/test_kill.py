"""Law "once": of a writer killed at random instants, every acknowledged record is there, none twice, and sums are those of the records."""

import json
import subprocess
import sys

import pytest

from perjoule.adapters.ledger.store import Ledger
from perjoule.adapters.ledger.verify import verify, wrong_sums
from tests.fakes.ledger_kills import BATCH, UJ

KILLS = {"sqlite": 200, "postgresql": 60}


@pytest.mark.slow
def test_an_acknowledged_record_survives_kill_9(where):
    """Two hundred kills of a writer into a file, sixty into a server; then all that was acknowledged is there, and whole batches only."""
    kills = KILLS["postgresql" if where.startswith("postgresql") else "sqlite"]
    killer = [sys.executable, "-m", "tests.fakes.ledger_kills", where, str(kills), "20260701"]
    done = subprocess.run(killer, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    reached = json.loads(done.stdout)
    assert len(reached) == kills
    assert sum(number > 0 for number in reached.values()) >= kills // 2
    ledger = Ledger(where)
    runs = {run.instance_id: run for run in verify(ledger.database, None, None)}
    assert all(run.accounted and not run.missing for run in runs.values())
    kept = {name: runs[name].present + runs[name].later if name in runs else 0 for name in reached}
    assert all(number <= kept[name] and kept[name] % BATCH == 0 for name, number in reached.items())
    assert wrong_sums(ledger.database, None, None) == 0
    everything = ledger.grouped([])[0]
    assert (everything["requests"], everything["energy_uj"]) == (sum(kept.values()), sum(kept.values()) * UJ)
    if kills == KILLS["sqlite"]:
        with ledger.database.reading() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"
    ledger.close()
