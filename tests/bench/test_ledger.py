"""`perjoule ledger` as people run it: what it prints, for them and for pipes, and its exit code."""

import json
import os
import subprocess
import sys

import pytest
from sqlalchemy import delete

from perjoule.adapters.ledger.store import Ledger
from perjoule.adapters.ledger.tables import records
from tests.fakes.ledger_writer import NOW, S, account, record


@pytest.fixture
def path(tmp_path):
    """Three records of two models, one without energy, and an account of the run."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, now_unix_ns=lambda: NOW)
    ledger.put([record(1, energy_uj=2_000_000), record(2, energy_uj=4_000_000, tenant="team"), record(3, model="b", energy_uj=None)])
    ledger.keep_balance(account("run", NOW + S, 3, 6_000_000))
    ledger.close()
    return path


def perjoule(*arguments, code=0, **environment):
    """Run `perjoule ledger` and answer what it prints, or says on standard error where it refuses."""
    done = subprocess.run([sys.executable, "-m", "perjoule.main", "ledger", *map(str, arguments)], capture_output=True, text=True,
                          timeout=60, env={"PATH": "", "COLUMNS": "160", "HOME": "/nonexistent", **environment})
    assert done.returncode == code, done.stderr
    return done.stderr if code == 2 else done.stdout


def test_summary(path):
    """A table with the whole first; the same as JSON; the ledger may be named by the environment as well."""
    text = perjoule(path, "summary")
    assert [line.split()[:5] for line in text.splitlines() if line.startswith((" all", " b ", " llama"))] == [
        ["all", "3", "30", "60", "6.000"], ["b", "1", "10", "20", "–"], ["llama", "2", "20", "40", "6.000"]]
    whole = json.loads(perjoule("summary", "--by", "tenant", "--interval", "60", "--json", PERJOULE_LEDGER=str(path)))
    assert (whole["total"]["energy_uj"], whole["extent"]["newest_unix_ns"]) == (6_000_000, NOW)
    assert [(group["tenant"], group["requests"]) for group in whole["groups"]] == [(None, 2), ("team", 1)]


def test_records(path):
    """The latest as a table or as JSON, one of them whole; an id that is not there is refused."""
    assert [line.split()[2] for line in perjoule(path, "records", "--model", "llama").splitlines() if "2026" in line] == ["r2", "r1"]
    assert [found["record_id"] for found in json.loads(perjoule(path, "records", "--limit", "1", "--json"))["records"]] == ["r3"]
    assert json.loads(perjoule(path, "records", "q2", "--json"))["tenant"] == "team"
    assert "energy_uj                        4000000\n" in perjoule(path, "records", "r2")
    assert "got 'r9', expected the id of a kept record or request" in perjoule(path, "records", "r9", code=2)


def test_verify(path):
    """Exit code 0 and a sentence while all is there; 1, and what is missing, when a record is gone."""
    assert "Every joule is accounted for." in perjoule(path, "verify")
    ledger = Ledger(path)
    with ledger.database.writing() as connection:
        connection.execute(delete(records).where(records.c.sequence == 2))
    ledger.close()
    text = perjoule(path, "verify", code=1)
    assert "run run: 1 records were lost, among the places 2" in text
    assert "Not accounted for: 1 records and 4.000 J are missing." in text
    told = json.loads(perjoule(path, "verify", "--json", code=1))
    assert (told["accounted"], told["runs"][0]["gaps"], told["runs"][0]["missing_uj"]) == (False, [[2, 2]], 4_000_000)


REFUSED = {
    "no ledger there": (["/nonexistent/ledger.db", "summary"], "unable to open database file"),
    "no command": (["ledger.db"], "the following arguments are required: COMMAND"),
    "a group that is none": (["{path}", "summary", "--by", "colour"], "by: got 'colour', expected some of model, tenant"),
    "a time that is none": (["{path}", "summary", "--since", "noon"], "since: got 'noon', expected Unix seconds or a time as"),
    "no account in that time": (["{path}", "verify", "--until", "1000"], "got a ledger without an account"),
}


@pytest.mark.parametrize(("arguments", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_is_refused(arguments, reason, path):
    """Exit code 2, and what was got and expected."""
    assert reason in perjoule(*(argument.format(path=path) for argument in arguments), code=2)


@pytest.mark.parametrize("asked", [["records"], ["records", "--json"]], ids=["short", "long"])
def test_a_reader_that_leaves_is_no_error(path, asked):
    """As `perjoule ledger records | head -1`: it ends without a traceback, and not as if all had been read."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "perjoule.main", "ledger", str(path), *asked]
    with os.fdopen(writing, "wb") as nobody:
        left = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, timeout=60)
    assert left.returncode
    assert left.stderr == b""
