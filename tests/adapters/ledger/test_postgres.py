"""The ledger on a real PostgreSQL server: connections that are lost, a server that starts again, databases that are not ours."""

import time

import psycopg
import pytest

from perjoule.adapters.ledger.database import open_database
from perjoule.adapters.ledger.store import Ledger, LedgerError
from perjoule.adapters.ledger.verify import wrong_sums
from perjoule.sidecar.records.outbox import Outbox
from tests.fakes.ledger_writer import NOW, S, record

CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture
def url(postgres):
    return postgres.fresh()


def eventually(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 60 s"
        time.sleep(0.005)


def stored_through(url, disturb):
    """Send a thousand records through an outbox, with `disturb` called now and then; all must be in the ledger once."""
    ledger = Ledger(url, now_unix_ns=lambda: NOW)
    outbox = Outbox(ledger)
    for number in range(1_000):
        outbox.put(record(number, arrival=NOW + number * S))
        if number % 200 == 100:
            eventually(lambda least=number - 90: outbox.stored >= least)  # it is at work
            disturb()
    eventually(lambda: outbox.stored == 1_000)
    outbox.close(10)
    assert (outbox.dropped, outbox.failing) == (0, None)
    check = Ledger(url)
    assert check.grouped([])[0]["requests"] == len(list(check.walk())) == 1_000
    assert wrong_sums(check.database, None, None) == 0
    check.close()


def test_a_connection_that_is_lost_loses_no_record(url):
    """The server ends our connections while records are stored: they are tried again, none is lost and none twice."""
    ended = []

    def cut():
        with psycopg.connect(url) as other:
            ended.append(other.execute(CUT).fetchone()[0])

    stored_through(url, cut)
    assert sum(ended) > 0


def test_a_server_that_starts_again_loses_no_record(postgres, url):
    """The server crashes and comes back while records are stored: they are tried again, none is lost and none twice."""

    def crash():
        postgres.stop()
        postgres.start()

    stored_through(url, crash)


def test_questions_work_again_after_the_server_did_not(postgres, url):
    """While it is away they raise LedgerError; afterwards the same ledger answers."""
    ledger = Ledger(url, now_unix_ns=lambda: NOW)
    ledger.put([record(1)])
    assert ledger.get("r1") is not None
    postgres.stop()
    try:
        with pytest.raises(LedgerError):
            ledger.get("r1")
        with pytest.raises(LedgerError):
            ledger.put([record(2)])
    finally:
        postgres.start()
    assert ledger.get("r1") is not None
    ledger.close()


def test_a_server_that_is_away_at_the_start_gets_the_records_later(postgres, url, caplog):
    """The sidecar starts all the same, and says so; what is put meanwhile raises, what is put afterwards is there."""
    postgres.stop()
    try:
        ledger = Ledger(url, now_unix_ns=lambda: NOW)
        assert "it is tried again with the first records" in caplog.text
        with pytest.raises(LedgerError):
            ledger.put([record(1)])
    finally:
        postgres.start()
    ledger.put([record(1)])
    assert ledger.get("r1") is not None
    ledger.close()


def test_another_programs_tables_are_refused(url):
    """A database that has a table of one of our names, and no ledger, is left alone; so is one that is only asked."""
    with psycopg.connect(url) as other:
        other.execute("CREATE TABLE records (name text)")
    with pytest.raises(LedgerError, match=r"got tables of another program \(records\), expected a ledger or none of these"):
        Ledger(url)
    with pytest.raises(LedgerError, match="got a database without a ledger"):
        open_database(url, create=False)
    with psycopg.connect(url) as other:
        assert other.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (1,)


def test_a_newer_schema_is_refused(url):
    """A ledger written by a later version says so instead of being read wrongly."""
    Ledger(url).close()
    with psycopg.connect(url) as later:
        later.execute("UPDATE about SET value = 7")
    with pytest.raises(LedgerError, match="got schema 7 of a newer perjoule, expected at most 2"):
        Ledger(url)


@pytest.mark.parametrize("url", ["postgresql://user:sesame@127.0.0.1:1/x", "postgresql://user:sesame@127.0.0.1:1/x?password=sesame",
                                 "postgresql://user:sesame@127.0.0.1:port/x"])
def test_no_password_is_said(url):
    """What is wrong with a server or a URL is said without the password."""
    with pytest.raises(LedgerError) as refused:
        open_database(url, create=False)
    assert "sesame" not in str(refused.value)
