"""Budgets: fixed intervals by the clock, requests taken at the door, tokens and joules when they are known, what is overdrawn is owed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.access.keys import Budget, Keys
from perjoule.sidecar.access.limits import Limits
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status

S = 1_000_000_000


def limits(offset_s=0, **budget):
    return Limits(Keys({}, {"a": Budget(60, **budget)}), offset_s * S)


def record(tenant="a", tokens=(0, 0), energy_uj=0):
    facts = RequestFacts("r", "q", 0, 1, Outcome.COMPLETED, "chat.completions", "vllm", False, tenant=tenant, input_tokens=tokens[0],
                         output_tokens=tokens[1])
    return EnergyRecord(facts, Charge(Status.MEASURED, "token-share", "nvml", settled=True, energy_uj=energy_uj))


def test_requests_are_taken_at_the_door():
    """The next one waits for the next interval, and is told how long."""
    account = limits(requests=2)
    assert [account.admit("a", t * S) for t in (0, 59)] == [None, None]
    refusal = account.admit("a", int(59.5 * S))
    assert (refusal.status, refusal.kind) == (429, "rate_limit_exceeded")
    assert refusal.text == "this key may use 2 requests in 60 s and has used 2; there is room again in 1 s"
    assert dict(refusal.fields) == {"Retry-After": "1", "x-ratelimit-limit-requests": "2", "x-ratelimit-remaining-requests": "0",
                                    "x-ratelimit-reset-requests": "1s"}
    assert account.admit("a", 60 * S) is None


def test_who_has_no_budget_is_not_counted():
    """Neither at the door nor after."""
    account = limits(requests=1)
    account.spent(record(tenant="b", energy_uj=10**12), 0)
    account.spent(record(tenant=None), 0)
    assert [account.admit("b", 0) for _ in range(3)] == [None] * 3
    assert account.admit("a", 0) is None


@pytest.mark.parametrize(("budget", "cost", "has"), [
    ({"tokens": 10}, {"tokens": (6, 4)}, "10 tokens in 60 s and has used 10"),
    ({"energy_uj": 2_500_000}, {"energy_uj": 4_000_000}, "2.5 joules in 60 s and has used 4"),
])
def test_tokens_and_joules_are_taken_when_they_are_known(budget, cost, has):
    """A request that runs costs nothing yet; the record that settles closes the door."""
    account = limits(**budget)
    assert [account.admit("a", 0) for _ in range(2)] == [None, None]
    account.spent(record(**cost), 1 * S)
    assert has in account.admit("a", 1 * S).text


def test_intervals_begin_with_the_clock():
    """An interval of a minute ends at the full minute of Unix time, whenever the sidecar began."""
    account = limits(offset_s=1_000_000_010, requests=1)  # Unix time at t = 0, 50 s into its minute
    assert account.admit("a", 0) is None
    assert dict(account.admit("a", 0).fields)["Retry-After"] == "10"
    assert account.admit("a", 10 * S) is None


def test_what_is_overdrawn_is_owed():
    """Twenty-five of ten: two intervals more to wait, and then half of one is gone."""
    account = limits(tokens=10)
    account.spent(record(tokens=(25, 0)), 0)
    assert dict(account.admit("a", 0).fields)["Retry-After"] == "120"
    assert dict(account.admit("a", 60 * S).fields)["Retry-After"] == "60"
    assert account.admit("a", 120 * S) is None
    account.spent(record(tokens=(5, 0)), 120 * S)
    assert dict(account.admit("a", 120 * S).fields)["Retry-After"] == "60"


def test_what_is_unknown_takes_nothing():
    """Without a sensor there is no joule to take, and no token where nobody counted."""
    account = limits(tokens=1, energy_uj=1)
    account.spent(record(tokens=(None, None), energy_uj=None), 0)
    assert account.admit("a", 0) is None


def test_a_reload_keeps_what_was_used():
    """Another limit counts at once, another interval begins anew, and who is gone is forgotten."""
    account = limits(requests=2)
    account.admit("a", 0)
    account.reload(Keys({}, {"a": Budget(60, requests=1), "b": Budget(60, requests=1)}))
    assert account.admit("a", 0) is not None
    assert account.admit("b", 0) is None
    account.reload(Keys({}, {"a": Budget(30, requests=1)}))
    assert account.admit("a", 0) is None
    account.reload(None)
    assert [account.admit("b", 0) for _ in range(2)] == [None, None]


def test_a_limit_that_is_new_begins_with_nothing_used():
    """What was used before there was a limit is not held against anybody for longer than its interval."""
    account = limits(requests=9)
    account.spent(record(tokens=(10**9, 0)), 0)
    account.admit("a", 60 * S)  # the interval in which nobody limited tokens is over
    account.reload(Keys({}, {"a": Budget(60, tokens=5)}))
    assert account.admit("a", 61 * S) is None


@given(st.lists(st.tuples(st.integers(0, 40 * S), st.integers(1, 30)), max_size=60), st.integers(0, 10**10))
def test_in_the_long_run_nobody_gets_more_than_the_limit(history, offset_s):
    """What has been admitted and settled, but for the last request, fits into the limits of the intervals begun; and who is told
    to wait gets in after that, and not a second earlier."""
    account, t_ns, first, used, last = limits(offset_s=offset_s, tokens=20), 0, offset_s // 60, 0, 0
    for gap_ns, tokens in history:
        t_ns += gap_ns
        refusal = account.admit("a", t_ns)
        if refusal is not None:
            wait_ns = int(dict(refusal.fields)["Retry-After"]) * S
            assert account.admit("a", t_ns + wait_ns - S) is not None
            t_ns += wait_ns
            assert account.admit("a", t_ns) is None
        account.spent(record(tokens=(0, tokens)), t_ns)
        used, last = used + tokens, tokens
        begun = (t_ns // S + offset_s) // 60 - first + 1
        assert used - last <= 20 * begun


def test_what_was_used_before_a_restart_is_recalled():
    """For intervals of that length only, and only of who has a budget; unknown amounts are none."""
    account = Limits(Keys({}, {"a": Budget(60, tokens=10), "b": Budget(3600, requests=2)}), 1_000_000_010 * S)
    assert account.begun_unix_ns(0) == {60: 999_999_960 * S, 3600: 999_997_200 * S}
    group = {"requests": 2, "input_tokens": 9, "output_tokens": None, "energy_uj": None}
    account.recall(60, [{"tenant": name, **group} for name in ("a", "b", "c", None)], 0)
    assert account.admit("b", 0) is None
    assert account.admit("a", 0) is None
    account.spent(record(tokens=(1, 0)), 0)
    assert account.admit("a", 0) is not None
