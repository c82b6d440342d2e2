"""The account of a run: kept once its records are stored, and never instead of them."""

import asyncio
import sqlite3
from contextlib import closing

from perjoule.adapters.ledger.store import Ledger
from perjoule.adapters.ledger.verify import verify
from perjoule.sidecar.records.archive import Archive
from tests.fakes.ledger_writer import NOW, S, account, record

UJ = 5_000_000  # of every record


async def test_an_account_waits_for_its_records(tmp_path):
    """While the ledger is locked neither is there; then both are, and every joule is accounted for."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, now_unix_ns=lambda: NOW, busy_s=0.05)
    archive = Archive([ledger], ledger)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in (1, 2, 3):
            archive.keep(record(number))
        keeping = asyncio.ensure_future(archive.keep_account(account("run", NOW + S, 3, 3 * UJ)))
        async with asyncio.timeout(20):
            while not archive.failing:
                await asyncio.sleep(0.01)
        assert not keeping.done()
        other.execute("ROLLBACK")
    await asyncio.wait_for(keeping, 20)
    [run] = await asyncio.to_thread(verify, ledger.database, None, None)
    assert (run.present, run.last.sequence, run.accounted) == (3, 3, True)
    archive.close(5)


async def test_the_last_account_follows_the_last_record(tmp_path):
    """Closing stores what waits, then the account; a ledger that has failed gets none, since records may be missing."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, now_unix_ns=lambda: NOW)
    archive = Archive([ledger], ledger)
    archive.keep(record(1))
    await asyncio.to_thread(archive.close, 5, account("run", NOW + S, 1, UJ))
    found = Ledger(path)
    [run] = verify(found.database, None, None)
    assert (run.present, run.last.sequence, run.accounted) == (1, 1, True)
    found.close()


async def test_an_account_that_cannot_be_kept_is_said_once(tmp_path, caplog):
    """The ledger is locked when the account comes: a warning, no exception, and the next account has it all."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, now_unix_ns=lambda: NOW, busy_s=0.05)
    archive = Archive([ledger], ledger)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for at in (1, 2):
            await archive.keep_account(account("run", NOW + at, 0, 0))
        other.execute("ROLLBACK")
    await archive.keep_account(account("run", NOW + 3, 0, 0))
    assert [balance.unix_ns for balance in ledger.balances()] == [NOW + 3]
    assert caplog.text.count("the account of this run is not kept") == 1
    archive.close(5)
