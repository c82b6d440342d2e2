"""The SQLite ledger: keeps every record once, through kill -9, answers while it is written, and stays small."""

import contextlib
import json
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.adapters.sqlite import GROUPS, NS_PER_DAY, PRUNE_EVERY, LedgerError, SqliteLedger
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status

NOW = 1_790_000_000_000_000_000
S = 1_000_000_000


def record(number: int, *, arrival: int = NOW, energy_uj: int | None = 5_000_000, **facts) -> EnergyRecord:
    status = Status.UNAVAILABLE if energy_uj is None else Status.MEASURED
    facts = {"request_id": f"q{number}", "model": "llama", "input_tokens": 10, "output_tokens": 20} | facts
    return EnergyRecord(
        RequestFacts(record_id=f"r{number}", arrival_unix_ns=arrival, end_ns=S, endpoint="chat.completions",
                     outcome=Outcome.COMPLETED, engine="vllm", streamed=True, **facts),
        Charge(status, "token-share", "nvml", True, "gpu-board", ("GPU-1",), energy_uj, energy_uj))


@pytest.fixture
def ledger(tmp_path):
    ledger = SqliteLedger(tmp_path / "state" / "ledger.db", days=30, megabytes=100, now_unix_ns=lambda: NOW)
    yield ledger
    ledger.close()


def test_a_record_is_found_whole_by_either_id(ledger):
    """What was put comes back as its documented JSON by record id and by request id; an unknown id gives None."""
    ledger.put([record(1), record(2)])
    expected = json.loads(json.dumps(record(2).as_json()))
    assert ledger.get("r2") == ledger.get("q2") == expected
    assert ledger.get("r3") is None


def test_of_one_request_id_the_latest_is_found(ledger):
    """Clients may send the same X-Request-Id again: that id finds the newest request, a record id its own."""
    ledger.put([record(1, request_id="same", arrival=NOW + 5), record(2, request_id="same", arrival=NOW)])
    assert ledger.get("same")["record_id"] == "r1"
    assert ledger.get("r2")["record_id"] == "r2"


def test_a_record_put_twice_counts_once(ledger):
    """The outbox may give a batch again: nothing is doubled, and the first version stays."""
    ledger.put([record(1)])
    ledger.put([record(1, energy_uj=9), record(2)])
    assert [(group["requests"], group["energy_uj"]) for group in ledger.grouped([])] == [(2, 10_000_000)]


def test_latest_filters_and_orders(ledger):
    """Newest first, by model, tenant and the half-open time of arrival, at most `limit`."""
    ledger.put([record(n, arrival=NOW + n * S, model="a" if n % 2 else "b", tenant=f"t{n % 3}") for n in range(10)])

    def ids(limit=100, **where):
        return [int(found["record_id"][1:]) for found in ledger.latest(limit, **where)]

    assert ids() == list(range(9, -1, -1))
    assert ids(3) == [9, 8, 7]
    assert ids(model="a") == [9, 7, 5, 3, 1]
    assert ids(tenant="t0", model="b") == [6, 0]
    assert ids(since_unix_ns=NOW + 2 * S, until_unix_ns=NOW + 4 * S) == [3, 2]


def test_groups_sum_what_is_known_and_say_so(ledger):
    """Requests without energy are counted and not summed as zero; a group with none has a sum of None."""
    ledger.put([record(1, energy_uj=3), record(2, energy_uj=4), record(3, energy_uj=None),
                record(4, energy_uj=None, model="b", output_tokens=None)])
    llama = {"requests": 3, "with_energy": 2, "input_tokens": 30, "output_tokens": 60, "energy_uj": 7, "active_uj": 7,
             "statuses": ["measured", "unavailable"]}
    b = {"requests": 1, "with_energy": 0, "input_tokens": 10, "output_tokens": None, "energy_uj": None,
         "active_uj": None, "statuses": ["unavailable"]}
    assert ledger.grouped(["model"]) == [{"model": "b"} | b, {"model": "llama"} | llama]


def test_intervals_cut_by_time_of_arrival(ledger):
    """With interval_s=60 arrivals at 0:59 and 1:00 are in different minutes, named by their beginning."""
    minute = NOW // (60 * S) * 60 * S
    ledger.put([record(n, arrival=minute + n * S) for n in (59, 60, 61)])
    rows = ledger.grouped([], interval_s=60)
    assert [(row["interval_unix_ns"] - minute, row["requests"]) for row in rows] == [(0, 1), (60 * S, 2)]


def test_an_empty_ledger_has_one_empty_sum_and_no_groups(ledger):
    """Before the first request nothing is invented: no groups, and over everything a count of 0 and no sum."""
    assert ledger.grouped(["model"]) == []
    assert ledger.latest(10) == []
    [everything] = ledger.grouped([])
    assert (everything["requests"], everything["energy_uj"], everything["statuses"]) == (0, None, [])


def test_grouping_by_anything_else_is_refused(ledger):
    """A column that is no group, or SQL, is a ValueError that names what was got and expected."""
    with pytest.raises(ValueError, match="by: got '1; DROP TABLE records', expected some of model, tenant"):
        ledger.grouped(["model", "1; DROP TABLE records"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.none() | st.integers(0, 10**12), st.sampled_from("ab"),
                          st.none() | st.sampled_from("xy"), st.integers(0, 200))),
       st.sets(st.sampled_from(GROUPS)), st.none() | st.sampled_from([1, 60]))
def test_sums_over_any_grouping_are_the_sums_of_the_records(tmp_path_factory, rows, by, interval_s):
    """Law: however grouped, counts and microjoules add up to those of the distinct records, exactly."""
    made = [record(n, energy_uj=uj, model=m, tenant=t, arrival=NOW + at * S) for n, uj, m, t, at in rows]
    ledger = SqliteLedger(tmp_path_factory.mktemp("law") / "ledger.db", 30, 100, now_unix_ns=lambda: NOW)
    ledger.put(made[: len(made) // 2])
    ledger.put(made)
    kept = {r.facts.record_id: r for r in reversed(made)}.values()
    groups = ledger.grouped(sorted(by), interval_s=interval_s)
    ledger.close()
    assert sum(group["requests"] for group in groups) == len(kept)
    assert sum(group["with_energy"] for group in groups) == sum(r.charge.energy_uj is not None for r in kept)
    assert sum(group["energy_uj"] or 0 for group in groups) == sum(r.charge.energy_uj or 0 for r in kept)


def test_records_are_still_there_after_a_restart(tmp_path):
    """A closed ledger opened again has its records and takes more."""
    for number in (1, 2):
        ledger = SqliteLedger(tmp_path / "ledger.db", 30, 100, now_unix_ns=lambda: NOW)
        ledger.put([record(number)])
        ledger.close()
    ledger = SqliteLedger(tmp_path / "ledger.db", 30, 100)
    assert {found["record_id"] for found in ledger.latest(10)} == {"r1", "r2"}
    ledger.close()


def test_old_records_are_pruned(ledger):
    """What arrived more than 30 days ago is gone after a put; what is younger stays."""
    ledger.put([record(n, arrival=NOW - 31 * NS_PER_DAY) for n in range(PRUNE_EVERY)])
    ledger.put([record(5_001, arrival=NOW - 29 * NS_PER_DAY)])
    ledger.put([record(n) for n in range(6_000, 6_000 + PRUNE_EVERY)])
    assert ledger.grouped([])[0]["requests"] == PRUNE_EVERY + 1
    assert ledger.get("r5001") is not None


def test_the_file_stays_within_its_size_and_keeps_the_newest(tmp_path):
    """20,000 records into a megabyte: the file stays near it, and what remains is the newest without a gap."""
    path = tmp_path / "ledger.db"
    ledger = SqliteLedger(path, days=30, megabytes=1, now_unix_ns=lambda: NOW)
    for start in range(0, 20_000, 500):
        ledger.put([record(n, arrival=NOW + n) for n in range(start, start + 500)])
    left = sorted(int(found["record_id"][1:]) for found in ledger.latest(20_000))
    ledger.close()
    assert left == list(range(left[0], 20_000))
    assert len(left) >= 200
    assert path.stat().st_size < 3_000_000


def test_another_programs_database_is_refused_and_left_alone(tmp_path):
    """A file with tables that are not ours is not written to, not even its journal mode."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE notes (text)")
        other.commit()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="got the database of another program"):
        SqliteLedger(path, 30, 100)
    assert path.read_bytes() == before


def test_a_newer_schema_is_refused(tmp_path):
    """A ledger written by a later version says so instead of being read wrongly."""
    path = tmp_path / "ledger.db"
    SqliteLedger(path, 30, 100).close()
    with closing(sqlite3.connect(path)) as later:
        later.execute("PRAGMA user_version = 7")
    with pytest.raises(LedgerError, match="got schema 7 of a newer perjoule, expected at most 1"):
        SqliteLedger(path, 30, 100)


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"not a database" * 100), lambda path: path.mkdir()])
def test_a_path_that_cannot_be_a_ledger_is_refused(tmp_path, spoil):
    """Garbage and folders give a LedgerError that names the path."""
    path = tmp_path / "ledger.db"
    spoil(path)
    with pytest.raises(LedgerError, match=r"ledger\.db"):
        SqliteLedger(path, 30, 100)


def test_a_failed_put_raises_and_keeps_nothing_of_the_batch(ledger):
    """A put that fails in the middle is an exception and no half batch, and the next put works."""
    broken = record(2, energy_uj=2**63)  # SQLite has no such integer: it fails in the middle of the batch
    with pytest.raises(OverflowError):
        ledger.put([record(1), broken])
    assert ledger.latest(10) == []
    ledger.put([record(1)])
    assert [found["record_id"] for found in ledger.latest(10)] == ["r1"]


def test_a_full_disk_raises_and_recovers(ledger):
    """While files may not grow, put raises and keeps none of the batch; when they may again, all of it is stored."""
    batch = [record(n) for n in range(500)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        with pytest.raises(sqlite3.OperationalError):
            ledger.put(batch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ledger.latest(1) == []
    ledger.put(batch)
    assert ledger.grouped([])[0]["requests"] == 500


@pytest.mark.parametrize("lose", [lambda path: shutil.rmtree(path.parent), lambda path: path.rename(path.parent / "moved"),
                                  lambda path: (path.unlink(), path.write_bytes(b""))], ids=["folder", "moved", "replaced"])
def test_a_file_that_went_away_raises_and_a_new_one_takes_over(ledger, tmp_path, lose):
    """Nothing is stored into a deleted file: put raises, saying so, and the next put is in a new file and survives."""
    ledger.put([record(1)])
    lose(tmp_path / "state" / "ledger.db")
    with pytest.raises(LedgerError, match=r"ledger\.db: the file was deleted or replaced"):
        ledger.put([record(2)])
    assert ledger.get("r2") is None
    ledger.put([record(2)])
    with closing(sqlite3.connect(tmp_path / "state" / "ledger.db")) as found:
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


def test_a_locked_file_raises(tmp_path):
    """A file that another process holds for longer than the wait makes put raise, and the next put works."""
    path = tmp_path / "ledger.db"
    ledger = SqliteLedger(path, 30, 100, now_unix_ns=lambda: NOW, busy_s=0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            ledger.put([record(1)])
        other.execute("ROLLBACK")
    ledger.put([record(1)])
    assert ledger.get("r1") is not None
    ledger.close()


def test_questions_are_answered_while_records_are_written(ledger):
    """Readers in other threads see a growing ledger and whole batches of 10, and no error, while the writer works."""
    seen: list[int] = []
    stop = threading.Event()

    def ask():
        while not stop.is_set():
            seen.append(ledger.grouped([])[0]["requests"])

    readers = [threading.Thread(target=ask) for _ in range(2)]
    for reader in readers:
        reader.start()
    for start in range(0, 1_000, 10):
        ledger.put([record(n) for n in range(start, start + 10)])
    stop.set()
    for reader in readers:
        reader.join()
    assert all(count % 10 == 0 for count in seen)
    assert ledger.grouped([])[0]["requests"] == 1_000


WRITER = """
import sys
import time
from pathlib import Path
from perjoule.adapters.sqlite import SqliteLedger
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status
ledger = SqliteLedger(Path(sys.argv[1]), 30, 100)
number = int(sys.argv[2])
while True:
    batch = [EnergyRecord(RequestFacts(f"r{n}", f"q{n}", time.time_ns(), 1, Outcome.COMPLETED, "chat", "vllm", False),
                          Charge(Status.MEASURED, "token-share", "nvml", True, energy_uj=n))
             for n in range(number, number + 7)]
    ledger.put(batch)
    number += 7
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_an_acknowledged_record_survives_kill_9(tmp_path):
    """Law "once": of a writer killed at random instants, ten times, every acknowledged record is there, once."""
    path = tmp_path / "ledger.db"
    chance = random.Random(20260701)
    acknowledged = 0
    for _ in range(10):
        command = [sys.executable, "-c", WRITER, path, str(acknowledged)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(chance.randrange(1, 60)):
            acknowledged = int(writer.stdout.readline())
        writer.kill()
        said, _ = writer.communicate()
        acknowledged = max([acknowledged, *map(int, said.split("\n")[:-1])])
    with closing(sqlite3.connect(path)) as found:
        assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        numbers = [json.loads(text)["energy_uj"] for (text,) in found.execute("SELECT record FROM records")]
    assert len(set(numbers)) == len(numbers)
    assert set(range(acknowledged)) <= set(numbers)
    assert len(numbers) % 7 == 0  # no half batch


def test_several_workers_open_and_write_one_new_ledger(tmp_path):
    """Four processes that open the same new file at once and write different records all succeed."""
    path = tmp_path / "ledger.db"
    once = WRITER.replace("while True:", "for _ in range(5):")
    workers = [subprocess.Popen([sys.executable, "-c", once, path, str(start)], stdout=subprocess.DEVNULL)
               for start in (0, 100, 200, 300)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0, 0]
    ledger = SqliteLedger(path, 30, 100)
    assert ledger.grouped([])[0]["requests"] == 4 * 35
    ledger.close()


def test_a_path_with_odd_characters_is_read_too(tmp_path):
    """Questions go through a URI: spaces, question marks and percent signs in the path do not break it."""
    path = tmp_path / "50% of? these #s" / "ledger.db"
    ledger = SqliteLedger(path, 30, 100, now_unix_ns=lambda: NOW)
    ledger.put([record(1)])
    assert ledger.get("r1") is not None
    ledger.close()
