"""The ledger as a file: what is taken for one, full disks, locks, files that go away, and files of an older version."""

import contextlib
import resource
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from perjoule.adapters.ledger.database import open_database
from perjoule.adapters.ledger.queries import Queries
from perjoule.adapters.ledger.retention import Retention
from perjoule.adapters.ledger.store import Ledger, LedgerError
from perjoule.adapters.ledger.verify import wrong_sums
from tests.fakes.ledger_writer import BATCH, NOW, S, record


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
def ledger(path):
    ledger = Ledger(path, now_unix_ns=lambda: NOW)
    yield ledger
    ledger.close()


def test_the_file_stays_within_its_size(path):
    """Sixteen megabytes of records into two: the file gives space back, and stays near its size."""
    ledger = Ledger(path, Retention(megabytes=2), now_unix_ns=lambda: NOW)
    for start in range(0, 10_000, 500):
        ledger.put([record(n, arrival=NOW + n * S) for n in range(start, start + 500)])
    ledger.close()
    assert path.stat().st_size < 4_000_000  # a thousand more are put before the next look


def test_another_programs_database_is_refused_and_left_alone(tmp_path):
    """A file with tables that are not ours is not written to, not even its journal mode."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE notes (text)")
        other.commit()
    before = path.read_bytes()
    for create in (True, False):
        with pytest.raises(LedgerError, match="got the database of another program"):
            open_database(path, create=create)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused(path):
    """A ledger written by a later version says so instead of being read wrongly."""
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as later:
        later.execute("PRAGMA user_version = 7")
    with pytest.raises(LedgerError, match="got schema 7 of a newer perjoule, expected at most 2"):
        Ledger(path)


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"not a database" * 100), lambda path: path.mkdir()])
def test_a_path_that_cannot_be_a_ledger_is_refused(tmp_path, spoil):
    """Garbage and folders give a LedgerError that names the path."""
    path = tmp_path / "ledger.db"
    spoil(path)
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        Ledger(path)


def test_who_only_asks_makes_no_file(path):
    """A ledger that is not there is an error, and not there afterwards."""
    with pytest.raises(LedgerError, match="unable to open"):
        open_database(path, create=False)
    assert not path.exists()


def test_a_full_disk_raises_and_recovers(ledger):
    """While files may not grow, put raises and keeps none of the batch; when they may again, all of it is stored."""
    batch = [record(n) for n in range(500)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        with pytest.raises(LedgerError, match="disk"):
            ledger.put(batch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (ledger.latest(1), ledger.grouped(["model"])) == ([], [])
    ledger.put(batch)
    assert ledger.grouped([])[0]["requests"] == 500


@pytest.mark.parametrize("lose", [lambda path: shutil.rmtree(path.parent), lambda path: path.rename(path.parent / "moved"),
                                  lambda path: (path.unlink(), path.write_bytes(b""))], ids=["folder", "moved", "replaced"])
def test_a_file_that_went_away_raises_and_a_new_one_takes_over(ledger, path, lose):
    """Nothing is stored into a deleted file: put raises, saying so, and the next put is in a new file and survives."""
    ledger.put([record(1)])
    lose(path)
    with pytest.raises(LedgerError, match=r"ledger\.db: the file was deleted or replaced"):
        ledger.put([record(2)])
    assert ledger.get("r2") is None
    ledger.put([record(2)])
    with closing(sqlite3.connect(path)) as found:
        assert found.execute("SELECT record_id FROM records").fetchall() == [("r2",)]


def test_while_no_file_can_be_there_every_put_and_question_is_refused(ledger, tmp_path):
    """With a file where the folder was, put and queries raise LedgerError; once that is gone, records are stored."""
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(LedgerError, match=r"ledger\.db: .*exists"):
            ledger.put([record(1)])
        with pytest.raises(LedgerError, match=r"ledger\.db: unable to open"):
            ledger.get("r1")
    (tmp_path / "state").unlink()
    with contextlib.suppress(LedgerError):  # it is opened anew
        ledger.put([record(1)])
    ledger.put([record(1)])
    assert ledger.get("r1") is not None


def test_a_locked_file_raises(path):
    """A file that another process holds for longer than the wait makes put raise, and the next put works."""
    ledger = Ledger(path, now_unix_ns=lambda: NOW, busy_s=0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="locked"):
            ledger.put([record(1)])
        other.execute("ROLLBACK")
    ledger.put([record(1)])
    assert ledger.get("r1") is not None
    ledger.close()


def test_several_workers_open_and_write_one_new_ledger(path):
    """Four processes that open the same new file at once and write different records all succeed."""
    workers = [subprocess.Popen([sys.executable, "-m", "tests.fakes.ledger_writer", path, str(start), "5"], stdout=subprocess.DEVNULL)
               for start in (0, 100, 200, 300)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0, 0]
    ledger = Ledger(path)
    assert ledger.grouped([])[0]["requests"] == 4 * 5 * BATCH
    assert wrong_sums(ledger.database, None, None) == 0
    ledger.close()


def test_a_path_with_odd_characters_is_read_too(tmp_path):
    """Files are opened by a URI: spaces, question marks and percent signs in the path do not break it."""
    path = tmp_path / "50% of? these #s" / "ledger.db"
    ledger = Ledger(path, now_unix_ns=lambda: NOW)
    ledger.put([record(1)])
    assert ledger.get("r1") is not None
    ledger.close()


VERSION_1 = """
CREATE TABLE records (
  record_id TEXT PRIMARY KEY, request_id TEXT NOT NULL, arrival_unix_ns INTEGER NOT NULL, end_unix_ns INTEGER NOT NULL,
  tenant TEXT, model TEXT, engine TEXT NOT NULL, endpoint TEXT NOT NULL, outcome TEXT NOT NULL, http_status INTEGER,
  input_tokens INTEGER, output_tokens INTEGER, energy_uj INTEGER, active_uj INTEGER, status TEXT NOT NULL,
  method TEXT NOT NULL, trace_id TEXT, record TEXT NOT NULL
);
CREATE INDEX records_by_arrival ON records (arrival_unix_ns);
CREATE INDEX records_by_model ON records (model, arrival_unix_ns);
CREATE INDEX records_by_request ON records (request_id);
PRAGMA application_id = 0x504A4C31;
PRAGMA user_version = 1;
"""


def test_a_file_of_version_1_is_brought_up_to_date(path):
    """Records of the first version are there as they were, found and summed; who only asks is told what to do."""
    made = [record(n, arrival=NOW + n * 7_000 * S, energy_uj=n or None, tenant="t" if n % 2 else None) for n in range(300)]
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as old:
        old.executescript(VERSION_1)
        for each in made:
            facts, charge = each.facts, each.charge
            old.execute(f"INSERT INTO records VALUES ({', '.join('?' * 18)})", (
                facts.record_id, facts.request_id, facts.arrival_unix_ns, facts.arrival_unix_ns + facts.end_ns, facts.tenant, facts.model,
                facts.engine, facts.endpoint, facts.outcome.value, facts.http_status, facts.input_tokens, facts.output_tokens,
                charge.energy_uj, charge.active_uj, charge.status.value, charge.method, facts.trace_id, each.as_text().decode()))
        old.commit()
    with pytest.raises(LedgerError, match="got schema 1 of an older perjoule, expected 2: `perjoule serve` brings it up to date"):
        open_database(path, create=False)
    migrated = Ledger(path, now_unix_ns=lambda: NOW)
    migrated.put([record(299), record(300)])
    fresh = Ledger(path.with_name("fresh.db"), now_unix_ns=lambda: NOW)
    fresh.put([*made, record(300)])

    def everything(connection):
        return [sorted(map(str, connection.exec_driver_sql(f"SELECT * FROM {table}"))) for table in ("records", "rollups", "kept")]

    with migrated.database.reading() as one, fresh.database.reading() as other:
        assert everything(one) == everything(other)
    assert Queries(migrated.database).get("r7") == fresh.get("r7")
    migrated.close()
    fresh.close()
