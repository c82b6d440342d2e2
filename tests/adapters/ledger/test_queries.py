"""Questions to the ledger on both databases: filters, groups, and sums of sums that are the sums of the records."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.adapters.ledger.retention import Retention
from perjoule.adapters.ledger.store import Ledger
from perjoule.adapters.ledger.tables import GROUPS, SUMS
from tests.fakes.ledger_writer import NOW, S, record

MINUTE, HOUR, DAY = 60, 3_600, 86_400
BEGIN = NOW // (DAY * S) * DAY * S


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


def test_all_records_are_walked_through_oldest_first(ledger):
    """More than a page of them, in the order of arrival, within what was asked for."""
    ledger.put([record(n, arrival=NOW - n * S) for n in range(1_200)])
    texts = list(ledger.walk(since_unix_ns=NOW - 1_100 * S))
    assert [ledger.get(f"r{n}")["record_id"] in text for n, text in zip((1_100, 0), (texts[0], texts[-1]), strict=True)] == [True, True]
    assert len(texts) == 1_101


def test_groups_sum_what_is_known_and_say_so(ledger):
    """Requests without energy are counted and not summed as zero; a group with none has a sum of None."""
    ledger.put([record(1, energy_uj=3), record(2, energy_uj=4), record(3, energy_uj=None),
                record(4, energy_uj=None, model="b", output_tokens=None)])
    unknown = {"prefill_uj": None, "decode_uj": None, "steady_uj": None}
    llama = {"requests": 3, "with_energy": 2, "input_tokens": 30, "output_tokens": 60, "energy_uj": 7, "active_uj": 7,
             "duration_ns": 3 * S, "statuses": ["measured", "unavailable"], **unknown}
    b = {"requests": 1, "with_energy": 0, "input_tokens": 10, "output_tokens": None, "energy_uj": None,
         "active_uj": None, "duration_ns": S, "statuses": ["unavailable"], **unknown}
    assert ledger.grouped(["model"]) == [{"model": "b"} | b, {"model": "llama"} | llama]


def test_requests_without_a_name_are_a_group_that_can_be_asked_for(ledger):
    """None stands before every name; the empty text asks for it, whether sums or records answer."""
    ledger.put([record(n, arrival=BEGIN + n * S, tenant=tenant) for n, tenant in enumerate([None, "a", None, "b"])])
    assert [(group["tenant"], group["requests"]) for group in ledger.grouped(["tenant"])] == [(None, 2), ("a", 1), ("b", 1)]
    for until in (BEGIN + 50 * S, BEGIN + DAY * S):
        assert ledger.grouped([], tenant="", until_unix_ns=until)[0]["requests"] == 2
    assert len(ledger.latest(10, tenant="")) == 2


def test_intervals_cut_by_time_of_arrival(ledger):
    """With interval_s=60 arrivals at 0:59 and 1:00 are in different minutes, named by their beginning."""
    ledger.put([record(n, arrival=BEGIN + n * S) for n in (59, 60, 61)])
    rows = ledger.grouped([], interval_s=60)
    assert [(row["interval_unix_ns"] - BEGIN, row["requests"]) for row in rows] == [(0, 1), (60 * S, 2)]


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


# times near the ends of minutes, hours and days, where sums of one span take over from those of another
times = st.builds(lambda day, at, off: BEGIN + (day * DAY + at) * S + off, st.integers(-3, 2),
                  st.sampled_from([0, 1, MINUTE, 2 * MINUTE, HOUR - 1, HOUR, HOUR + MINUTE, 23 * HOUR, DAY - MINUTE, DAY - 1]),
                  st.integers(-2, 2))
rows = st.lists(st.tuples(times, st.none() | st.integers(0, 10**12), st.sampled_from(["a", "b", None]), st.none() | st.sampled_from("xy"),
                          st.none() | st.integers(0, 10)), max_size=40)
questions = st.fixed_dictionaries({
    "by": st.lists(st.sampled_from(GROUPS), unique=True, max_size=2),
    "interval_s": st.none() | st.sampled_from([1, 60, 90, HOUR, 7_200, DAY]),
    "model": st.none() | st.sampled_from("ab"), "tenant": st.none() | st.just("x"),
    "since_unix_ns": st.none() | times, "until_unix_ns": st.none() | times})


def made(given):
    return [record(n, energy_uj=uj, model=model, tenant=tenant, output_tokens=tokens, arrival=arrival)
            for n, (arrival, uj, model, tenant, tokens) in enumerate(given)]


def added_up(records, by, interval_s, model, tenant, since_unix_ns, until_unix_ns):
    """What `grouped` must answer, from the records one by one."""
    groups = {} if by or interval_s else {(): []}
    for each in records:
        facts, charge = each.facts, each.charge
        at = facts.arrival_unix_ns
        if model not in (None, facts.model) or tenant not in (None, facts.tenant):
            continue
        if (since_unix_ns is not None and at < since_unix_ns) or (until_unix_ns is not None and at >= until_unix_ns):
            continue
        row = {"model": facts.model, "tenant": facts.tenant, "outcome": facts.outcome.value, "endpoint": facts.endpoint,
               "status": charge.status.value, "input_tokens": facts.input_tokens, "output_tokens": facts.output_tokens,
               "energy_uj": charge.energy_uj, "active_uj": charge.active_uj, "prefill_uj": None, "decode_uj": None, "steady_uj": None,
               "duration_ns": facts.end_ns}
        key = (*([at - at % (interval_s * S)] if interval_s else []), *(row[name] for name in by))
        groups.setdefault(key, []).append(row)
    names = [*(["interval_unix_ns"] if interval_s else []), *by]
    answers = []
    for key in sorted(groups, key=lambda key: [(part is not None, part) for part in key]):
        of = groups[key]
        known = {name: [row[name] for row in of if row[name] is not None] for name in SUMS}
        answers.append({**dict(zip(names, key, strict=True)), "requests": len(of), "with_energy": len(known["energy_uj"]),
                        **{name: sum(numbers) if numbers else None for name, numbers in known.items()},
                        "statuses": sorted({row["status"] for row in of})})
    return answers


def test_sums_of_sums_are_the_sums_of_the_records(ledger):
    """Law: grouped, cut and filtered in any way, at any bounds."""

    @settings(max_examples=150, deadline=None)
    @given(rows, questions)
    def are_the_same(given, question):
        with ledger.database.writing() as connection:
            for table in ("records", "rollups"):
                connection.exec_driver_sql(f"DELETE FROM {table}")
        records = made(given)
        ledger.put(records[: len(records) // 2])
        ledger.put(records)
        assert ledger.grouped(**question) == added_up(records, **question)

    are_the_same()


def test_what_retention_leaves_adds_up_too(tmp_path):
    """Law: however much was dropped, neighbouring stretches together have every record once, and the whole has its sum."""

    @settings(max_examples=150, deadline=None)
    @given(rows, st.lists(times, max_size=3), st.sampled_from([None, 1, 60, HOUR, DAY]),
           st.tuples(*[st.integers(1, 3)] * 3),
           st.builds(lambda days, past_s: days * DAY + past_s, st.integers(0, 5), st.sampled_from([0, 90, HOUR + 90])))
    def adds_up(given, bounds, interval_s, days, later_s):
        path = tmp_path / "ledger.db"
        for file in tmp_path.iterdir():
            file.unlink()
        retention = Retention(days[0], 100, days[1], days[2])
        ledger = Ledger(path, retention, now_unix_ns=lambda: BEGIN + later_s * S)
        records = made(given)
        ledger.put(records)
        retention.drop_old(ledger.database, BEGIN + later_s * S)
        late = [record(10_000 + n, energy_uj=7, arrival=each.facts.arrival_unix_ns) for n, each in enumerate(records[:3])]
        ledger.put(late)
        stretches = [None, *sorted(bounds), None]
        found = [row for since, until in pairwise(stretches)
                 for row in ledger.grouped(["model"], interval_s=interval_s, since_unix_ns=since, until_unix_ns=until)]
        whole = ledger.grouped(["model"])
        ledger.close()
        everything = [*records, *late]
        assert sum(row["requests"] for row in found) == sum(row["requests"] for row in whole) == len(everything)
        assert sum(row["energy_uj"] or 0 for row in found) == sum(each.charge.energy_uj or 0 for each in everything)
        assert sum(row["energy_uj"] or 0 for row in whole) == sum(each.charge.energy_uj or 0 for each in everything)

    adds_up()
