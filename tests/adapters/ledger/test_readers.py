"""Readers and guests of the ledger, on both databases: cursors, what was drawn between two times, and the grid's carbon intensity."""

from decimal import Decimal

import pytest

from perjoule.adapters.ledger import intensities
from perjoule.adapters.ledger.cursors import TURN_NS, Cursor
from perjoule.adapters.ledger.drawn import drawn, finest_s, oldest
from perjoule.adapters.ledger.retention import Retention
from perjoule.adapters.ledger.store import Ledger
from perjoule.adapters.ledger.tables import records
from perjoule.sidecar.footprint.carbon import Kind, intensity
from perjoule.sidecar.footprint.remainder import Drawn
from tests.fakes.ledger_writer import NOW, S, account, record

DAY_NS = 86_400 * S
HOUR_NS = 3_600 * S


def test_a_reader_gets_every_record_once_and_in_order(ledger):
    """From where it began; what it has settled does not come again, what it has not comes until it is."""
    ledger.put([record(1)])
    cursor = Cursor(ledger.database, "events", "me")
    ledger.put([record(3), record(2), record(1)])
    for _ in range(2):
        found = cursor.unsent(1)
        assert ([each.facts.record_id for each in found.records], found.behind, found.missed) == (["r3"], 1, 0)
    cursor.sent(found.until)
    assert [each.facts.record_id for each in cursor.unsent(9).records] == ["r2"]
    again = Cursor(ledger.database, "events", "me")
    found = again.unsent(9)
    assert found.records == [record(2)]
    again.sent(found.until)
    assert again.unsent(9).records == ()


def test_of_two_sidecars_with_one_ledger_one_reads(ledger):
    """Its turn ends when it is silent for so long, or leaves; a settlement that comes too late changes nothing."""
    now = [NOW]
    one, two = (Cursor(ledger.database, "events", holder, now_unix_ns=lambda: now[0]) for holder in ("one", "two"))
    ledger.put([record(1), record(2)])
    first = one.unsent(1)
    assert ([each.facts.record_id for each in first.records], two.unsent(1)) == (["r1"], None)
    now[0] += TURN_NS
    second = two.unsent(2)
    assert ([each.facts.record_id for each in second.records], one.unsent(1)) == (["r1", "r2"], None)
    one.sent(first.until)
    assert len(two.unsent(2).records) == 2
    two.sent(second.until)
    assert two.unsent(1).records == ()
    ledger.put([record(3)])
    assert (len(two.unsent(1).records), one.unsent(1)) == (1, None)
    two.leave()
    assert len(one.unsent(1).records) == 1


def test_a_clock_that_was_set_back_keeps_nobody_out_for_long(ledger):
    """A turn that would end later than a whole turn from now was taken under another clock, and is over."""
    late = Cursor(ledger.database, "events", "late", now_unix_ns=lambda: NOW + DAY_NS)
    ledger.put([record(1)])
    assert len(late.unsent(1).records) == 1
    assert len(Cursor(ledger.database, "events", "now", now_unix_ns=lambda: NOW).unsent(1).records) == 1


def test_what_the_ledger_drops_before_it_was_read_is_counted(where):
    """A reader that is away for longer than records are kept misses them, and that is said."""
    ledger = Ledger(where, Retention(days=1), now_unix_ns=lambda: NOW)
    cursor = Cursor(ledger.database, "events", "me")
    ledger.put([record(number, arrival=NOW - 2 * DAY_NS * (number < 3)) for number in range(1001)])
    unsent = cursor.unsent(9)
    assert (unsent.missed, unsent.records[0].facts.record_id, unsent.behind) == (3, "r3", 1001 - 12)
    ledger.close()


def test_a_record_that_cannot_be_understood_stops_nobody(ledger):
    """Of a later version, say, or broken: it is missing, and counted."""
    cursor = Cursor(ledger.database, "events", "me")
    ledger.put([record(1), record(2), record(3)])
    with ledger.database.writing() as connection:
        for record_id, text in (("r1", "{"), ("r2", record(2).as_text().decode().replace("completed", "postponed"))):
            connection.execute(records.update().where(records.c.record_id == record_id).values(record=text))
    found = cursor.unsent(9)
    assert ([each.facts.record_id for each in found.records], found.missed, found.behind) == (["r3"], 2, 0)


def test_what_was_drawn_counts_from_the_account_before(ledger):
    """Each run's change in the time, with the account before its beginning and the one behind its end; other times are left out."""
    hour = NOW - NOW % HOUR_NS
    told = (("a", -30, 0), ("a", 30, 1000), ("a", 90, 3000), ("b", -90, 7), ("b", -80, 8), ("c", 10, 50), ("c", 20, 60))
    for run, minutes, idle_uj in told:
        ledger.keep_balance(account(run, hour + minutes * 60 * S, 1, 0, idle_uj=idle_uj))
    assert drawn(ledger.database, 3600, hour, hour + HOUR_NS).cells == {hour: Drawn(500 + 1000 + 10, 0, 500 + 1000 + 10, 0, None)}
    assert drawn(ledger.database, 3600, hour - HOUR_NS, hour).cells == {hour - HOUR_NS: Drawn(500, 0, 500, 0, None)}
    assert oldest(ledger.database) == hour - 90 * 60 * S


@pytest.mark.parametrize(("since_days", "wanted_s", "expected_s"), [(1, 60, 60), (3, 60, 3600), (1, 3600, 3600), (5, 3600, 86400)])
def test_how_finely_sums_are_cut_depends_on_what_is_kept(where, since_days, wanted_s, expected_s):
    """Sums by minute for two days, by hour for four."""
    ledger = Ledger(where, Retention(minute_days=2, hour_days=4), now_unix_ns=lambda: NOW)
    ledger.put([record(number) for number in range(1000)])
    assert finest_s(ledger.database, wanted_s, NOW - since_days * DAY_NS) == expected_s
    ledger.close()


@pytest.mark.parametrize(("hour_days", "begin"), [(4, NOW - NOW % HOUR_NS - 3 * DAY_NS), (2, NOW - 3 * DAY_NS - NOW % DAY_NS)])
def test_a_ledger_begins_with_its_first_hour_or_day(where, hour_days, begin):
    """Whatever of its records is left: by the finest sums that reach so far."""
    ledger = Ledger(where, Retention(days=1, hour_days=hour_days), now_unix_ns=lambda: NOW)
    ledger.put([record(number, arrival=NOW - 3 * DAY_NS) for number in range(1000)])
    ledger.put([record(1001)])
    assert oldest(ledger.database) == begin
    ledger.close()


def test_an_intensity_is_kept_as_it_was_told_and_corrected(ledger):
    """The latest word of a source for a time; a value that holds somewhere in the time that is asked for is found."""
    told = [intensity("s", "z", Kind.AVERAGE, NOW + i * S, NOW + (i + 1) * S, Decimal("0.50"), "gCO2eq/kWh", (None, True, False)[i])
            for i in range(3)]
    intensities.keep(ledger.database, told * 100, NOW)
    assert intensities.between(ledger.database, NOW, NOW + 9 * S) == told
    other = intensity("s", "z", Kind.AVERAGE, NOW, NOW + S, Decimal(7), "gCO2eq/kWh")
    intensities.keep(ledger.database, [other], NOW)
    assert intensities.between(ledger.database, NOW + S // 2, NOW + S) == [other]
