"""Is every joule accounted for? Yes while nothing is missing; what is lost, doubled or dropped is found and named."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from perjoule.adapters.ledger.store import Ledger
from perjoule.adapters.ledger.tables import DAY_S, records, rollups
from perjoule.adapters.ledger.verify import verify, wrong_sums
from tests.fakes.ledger_writer import NOW, S, account, record

UJ = 5_000_000  # of every record


def fill(ledger, *, without=(), run="run", count=30):
    """Records 1 to `count`, a second apart, all but some, and an account after every tenth."""
    made = [record(n, arrival=NOW + n * S, run=run, request_id=run) for n in range(1, count + 1) if n not in without]
    for each in made:
        each.facts.record_id = f"{run}-{each.sequence}"
    ledger.put(made)
    for sequence in range(10, count + 1, 10):
        ledger.keep_balance(account(run, NOW + (sequence + 1) * S, sequence, sequence * UJ))


def test_all_there(ledger):
    """Two runs, nothing missing: accounted for, over everything and between any two accounts."""
    fill(ledger)
    fill(ledger, run="other", count=10)
    whole = verify(ledger.database, None, None)
    assert [(run.instance_id, run.present, run.missing, run.missing_uj, run.accounted) for run in whole] == [
        ("other", 10, 0, 0, True), ("run", 30, 0, 0, True)]
    [between] = verify(ledger.database, NOW + 12 * S, NOW + 25 * S)
    assert (between.first.sequence, between.last.sequence, between.present) == (10, 20, 10)
    assert (between.energy_uj, between.accounted) == (10 * UJ, True)


def test_what_was_lost_is_named_with_its_joules(ledger):
    """Records that were never stored: which places, how many, how much; elsewhere all is well."""
    fill(ledger, without=(1, 14, 15, 30))
    [run] = verify(ledger.database, None, None)
    assert (run.accounted, run.lost, run.dropped, run.gaps, run.missing_uj) == (False, 4, 0, ((1, 1), (14, 15), (30, 30)), 4 * UJ)
    assert [found.accounted for found in verify(ledger.database, NOW + 22 * S, NOW + 30 * S)] == [True]


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(1, 30)))
def test_every_gap_is_found(tmp_path_factory, without):
    """Law: exactly the places that were left out are missing."""
    ledger = Ledger(tmp_path_factory.mktemp("law") / "ledger.db", now_unix_ns=lambda: NOW)
    fill(ledger, without=without)
    [run] = verify(ledger.database, None, None)
    ledger.close()
    assert {place for first, last in run.gaps for place in range(first, last + 1)} == without
    assert (run.lost, run.missing_uj, run.accounted) == (len(without), len(without) * UJ, not without)


def test_a_record_that_costs_something_else_is_noticed(ledger):
    """One microjoule less in one record: not accounted for, and its sums are not those of the records."""
    fill(ledger)
    with ledger.database.writing() as connection:
        connection.execute(update(records).where(records.c.sequence == 12).values(energy_uj=UJ - 1))
    [run] = verify(ledger.database, None, None)
    assert (run.accounted, run.lost, run.unexplained_uj) == (False, 0, 1)
    assert wrong_sums(ledger.database, None, None) == 6  # of a minute, an hour and a day: what is, and what should be


def test_a_place_that_two_have_is_noticed(ledger):
    """Two records of one place: not accounted for."""
    fill(ledger)
    with ledger.database.writing() as connection:
        connection.execute(update(records).where(records.c.sequence == 12).values(sequence=13))
    [run] = verify(ledger.database, None, None)
    assert (run.accounted, run.twice, run.lost, run.gaps) == (False, 1, 1, ((12, 12),))


def test_an_account_that_does_not_add_up_is_noticed(ledger):
    """Measured, but neither a request's nor idle nor unattributed: not accounted for."""
    ledger.put([record(1)])
    whole = account("run", NOW, 1, UJ)
    ledger.keep_balance(type(whole)(**{name: getattr(whole, name) for name in whole.__dataclass_fields__} | {"measured_uj": UJ}))
    [run] = verify(ledger.database, None, None)
    assert (run.conserved, run.accounted) == (False, False)


def test_what_retention_dropped_is_not_lost(ledger):
    """Half the records are too old: said as dropped, their joules explained; one more that is missing is lost."""
    old = [record(n, arrival=NOW - 40 * DAY_S * S + n * S) for n in range(1, 11)]
    young = [record(n, arrival=NOW + n * S) for n in range(11, 31)]
    ledger.keep_balance(account("run", NOW + 40 * S, 30, 30 * UJ))
    ledger.put([*old, *young])  # and drops
    [run] = verify(ledger.database, None, None)
    assert (run.present, run.missing, run.dropped, run.lost, run.missing_uj, run.unexplained_uj) == (20, 10, 10, 0, 10 * UJ, 0)
    assert run.accounted
    with ledger.database.writing() as connection:
        connection.execute(delete(records).where(records.c.sequence == 12))
    [run] = verify(ledger.database, None, None)
    assert (run.accounted, run.dropped, run.lost) == (False, 10, 1)


def test_records_behind_the_last_account_are_said_to_be(ledger):
    """A run that was killed: its last records are there, and a gap among them is one."""
    fill(ledger, count=30)
    ledger.put([record(n, arrival=NOW + n * S) for n in (31, 32, 34)])
    [run] = verify(ledger.database, None, None)
    assert (run.present, run.later, run.gaps, run.lost, run.missing_uj) == (30, 3, ((33, 33),), 1, 0)


def test_a_sum_that_is_missing_is_noticed(ledger):
    """Without one of its sums a ledger does not fit."""
    fill(ledger)
    chance = random.Random(7)
    with ledger.database.writing() as connection:
        connection.execute(delete(rollups).where(rollups.c.span_s == chance.choice((60, 3_600, 86_400))))
    assert wrong_sums(ledger.database, None, None) == 1
