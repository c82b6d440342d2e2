"""The ledger on both databases: keeps every record once with its sums, or raises and keeps nothing."""

import json
import threading

import pytest

from perjoule.adapters.ledger.database import open_database
from perjoule.adapters.ledger.retention import Retention
from perjoule.adapters.ledger.rows import TOGETHER, sums_of
from perjoule.adapters.ledger.store import Ledger, LedgerError
from perjoule.adapters.ledger.tables import DAY_S, records, rollups
from perjoule.adapters.ledger.verify import wrong_sums
from perjoule.sidecar.records.row import COLUMNS, row_of
from perjoule.sidecar.units import NS_PER_S
from tests.fakes.ledger_writer import NOW, S, account, record

DAY_NS = DAY_S * NS_PER_S


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
    """The outbox may give a batch again, or a batch may have one twice: nothing is doubled, and the first version stays."""
    ledger.put([record(1), record(1, energy_uj=8)])
    ledger.put([record(1, energy_uj=9), record(2)])
    assert [(group["requests"], group["energy_uj"]) for group in ledger.grouped([])] == [(2, 10_000_000)]
    assert ledger.get("r1")["energy_uj"] == 5_000_000
    assert wrong_sums(ledger.database, None, None) == 0


def test_one_that_is_there_already_holds_up_no_others(ledger):
    """Also in the middle of many that are written together, some of them before it."""
    ledger.put([record(TOGETHER + 3)])
    ledger.put([record(number) for number in range(3 * TOGETHER)])
    expected = [TOGETHER + 3, *(number for number in range(3 * TOGETHER) if number != TOGETHER + 3)]
    assert [json.loads(text)["record_id"] for _, text in ledger.after(0, 100)] == [f"r{number}" for number in expected]
    assert wrong_sums(ledger.database, None, None) == 0


def test_a_name_that_one_database_does_not_take_is_kept_in_the_record(ledger):
    """A NUL in what a client calls its model or request is in the record's text as it came; in the columns stands another character."""
    ledger.put([record(1, model="a\0b", tenant="", request_id="q\0")])
    assert ledger.get("r1")["model"] == "a\0b"
    assert ledger.get("q\0")["record_id"] == "r1"
    assert [(group["model"], group["tenant"]) for group in ledger.grouped(["model", "tenant"])] == [("a\ufffdb", None)]


def test_a_row_has_the_columns_of_the_table():
    """All but the position, which the database gives; and so have the sums of some."""
    assert list(COLUMNS) == [column.name for column in records.columns][1:]
    rows = [row_of(record(number)) for number in range(3)]
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert dict(zip(rollups.columns.keys(), sums_of(rows)[0], strict=True)) == {
        "span_s": 60, "begin_unix_ns": NOW - NOW % (60 * S), "model": "llama", "tenant": "", "outcome": "completed",
        "endpoint": "chat.completions", "status": "measured", "requests": 3, "with_energy": 3, "input_tokens": 30, "output_tokens": 60,
        "energy_uj": 15_000_000, "active_uj": 15_000_000, "prefill_uj": None, "decode_uj": None, "steady_uj": None, "duration_ns": 3 * S}


@pytest.mark.parametrize("count", [1, TOGETHER - 1, TOGETHER, TOGETHER + 1, 2 * TOGETHER, 3 * TOGETHER - 1])
def test_however_many_come_all_are_kept_in_order(ledger, count):
    """Some are written together, the rest one by one."""
    ledger.put([record(number) for number in range(count)])
    assert [json.loads(text)["record_id"] for _, text in ledger.after(0, 100)] == [f"r{number}" for number in range(count)]
    assert wrong_sums(ledger.database, None, None) == 0


def test_records_are_still_there_after_a_restart(where):
    """A closed ledger opened again has its records and takes more."""
    for number in (1, 2):
        ledger = Ledger(where, now_unix_ns=lambda: NOW)
        ledger.put([record(number)])
        ledger.close()
    ledger = Ledger(where)
    assert {found["record_id"] for found in ledger.latest(10)} == {"r1", "r2"}
    ledger.close()


def test_a_failed_put_raises_and_keeps_nothing_of_the_batch(ledger):
    """A put that fails in the middle is an exception and no half batch, neither records nor sums, and the next put works."""
    broken = record(2, energy_uj=2**63)  # neither database has such an integer: it fails in the middle of the batch
    with pytest.raises((OverflowError, LedgerError)):
        ledger.put([record(1), broken])
    assert (ledger.latest(10), ledger.grouped(["model"])) == ([], [])
    ledger.put([record(1)])
    assert [found["record_id"] for found in ledger.latest(10)] == ["r1"]


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


def test_two_writers_share_a_ledger(where):
    """Two that store the same and different records at once: each record once, sums that fit, positions in the order of commits."""
    ledgers = [Ledger(where, now_unix_ns=lambda: NOW) for _ in range(2)]
    failed: list[Exception] = []

    def write(ledger, start):
        try:
            for first in range(start, start + 300, 10):
                ledger.put([record(n, arrival=NOW + n * S, model=f"m{n % 3}") for n in range(first, first + 20)])
        except Exception as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(ledger, start)) for ledger, start in zip(ledgers, (0, 150), strict=True)]
    for writer in writers:
        writer.start()
    seen: list[int] = []
    while any(writer.is_alive() for writer in writers):  # whoever follows the positions misses none
        seen += [position for position, _ in ledgers[0].after(seen[-1] if seen else 0, 50)]
    seen += [position for position, _ in ledgers[0].after(seen[-1] if seen else 0, 1_000)]
    assert failed == []
    assert len(seen) == ledgers[0].grouped([])[0]["requests"] == 460
    assert wrong_sums(ledgers[0].database, None, None) == 0
    for ledger in ledgers:
        ledger.close()


def test_who_did_not_make_a_ledger_may_add_to_it(ledger, where):
    """A ledger that was only looked at can be written to as well: by who follows its records, or adds what the grid emitted."""
    database = open_database(where, create=False)
    with database.writing() as connection:
        connection.exec_driver_sql("INSERT INTO kept VALUES (0, 5)")
    database.close()
    assert ledger.extent()["whole_since_unix_ns"] == {0: 5}


def test_what_may_only_read_cannot_write(ledger, where):
    """A question's connection refuses to change anything."""
    database = open_database(where, create=False)
    with pytest.raises(LedgerError), database.reading() as connection:
        connection.exec_driver_sql("DELETE FROM records")
    database.close()


def test_records_go_by_age_and_their_sums_stay(ledger):
    """What arrived more than 30 days ago is gone after a put; what is younger stays, and so do all sums."""
    ledger.put([record(n, arrival=NOW - 31 * DAY_NS) for n in range(1_000)])
    ledger.put([record(5_001, arrival=NOW - 29 * DAY_NS)])
    ledger.put([record(n) for n in range(6_000, 7_000)])
    assert [ledger.get(f"r{n}") is not None for n in (0, 999, 5_001, 6_000)] == [False, False, True, True]
    assert ledger.grouped([])[0]["requests"] == 2_001
    assert ledger.grouped([], until_unix_ns=NOW - 30 * DAY_NS)[0]["energy_uj"] == 1_000 * 5_000_000
    assert wrong_sums(ledger.database, None, None) == 0


def test_sums_go_by_age_and_coarser_ones_stay(ledger):
    """Minutes go after 7 days, hours after 400, days never: whatever the record's age, its joules are in the whole."""
    ages = (0, 6, 8, 29, 31, 399, 402, 4_000)
    ledger.put([record(age, arrival=NOW - age * DAY_NS) for age in ages])
    with ledger.database.reading() as connection:
        spans = connection.exec_driver_sql("SELECT span_s, count(*) FROM rollups GROUP BY span_s ORDER BY span_s").all()
    assert spans == [(60, 2), (3_600, 6), (86_400, 8)]
    assert ledger.grouped([])[0]["energy_uj"] == len(ages) * 5_000_000
    each = ledger.grouped([], interval_s=DAY_S)
    assert [(NOW - row["interval_unix_ns"]) // DAY_NS for row in each] == sorted(ages, reverse=True)


def test_the_oldest_go_beyond_the_size_and_sums_stay(where):
    """20,000 records into little room: what remains is the newest without a gap, and their sums are the sums of all."""
    ledger = Ledger(where, Retention(megabytes=2), now_unix_ns=lambda: NOW)
    for start in range(0, 20_000, 500):
        ledger.put([record(n, arrival=NOW + n) for n in range(start, start + 500)])
    left = sorted(int(found["record_id"][1:]) for found in ledger.latest(20_000))
    assert left == list(range(left[0], 20_000))
    assert 200 <= len(left) <= 4_000
    assert ledger.grouped([])[0]["requests"] == ledger.grouped(["model"], since_unix_ns=NOW - DAY_NS)[0]["requests"] == 20_000
    ledger.close()


def test_accounts_are_thinned_to_the_last_of_each_hour(ledger):
    """After 7 days one of each run and hour stays, the last, and each run's first, from which it counts; younger ones all stay."""
    hour_ns = 3_600 * S
    old, young = (NOW - 9 * DAY_NS) // hour_ns * hour_ns, NOW - DAY_NS
    for run in ("a", "b"):
        for at in (old, old + 5, old + hour_ns - 1, old + hour_ns, young, young + 1):
            ledger.keep_balance(account(run, at, 0, 0))
    ledger.put([record(1)])
    kept = [(balance.instance_id, balance.unix_ns) for balance in ledger.balances()]
    assert kept == [(run, at) for run in ("a", "b") for at in (old, old + hour_ns - 1, old + hour_ns, young, young + 1)]
