"""The simulation counts as the meter does, and what it counts is what continuous batching does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perjoule.bench.estimates.asked import Asked
from perjoule.bench.estimates.batching import Limits, batched
from perjoule.sidecar.metering.terms import Terms

SECONDS = Terms(1e-5, 0.01, 1e-5, 1e-8)
STEPS_ONLY = Terms(0.0, 0.01, 0.0, 0.0)
requests = st.builds(Asked, st.integers(1, 3000), st.integers(1, 300), st.floats(0, 20))
loads = st.builds(Limits, st.integers(1, 8), st.sampled_from((16, 512, 8192)), st.sampled_from((1000.0, 1e9)),
                  st.one_of(st.none(), st.integers(1, 12)))


def test_one_request_alone_by_hand():
    """A prompt of 100, an answer of 5: the first token comes with the prompt, four steps follow, each looks at one token more."""
    found = batched([Asked(100, 5, 0.0)], SECONDS)
    assert found.shares[0].amounts == Terms(100, 4, 5, 5 * 102.5)
    assert found.steps == 4
    assert found.shares[0].end_s == pytest.approx(100 * 1e-5 + 4 * 0.01 + 5 * 1e-5 + 5 * 102.5 * 1e-8)
    assert (found.busy_s, found.idle_s) == (pytest.approx(found.shares[0].end_s), 0)


def test_two_together_share_each_step():
    """Sent together, both have half of every step; the shorter one leaves, and the other pays the rest alone."""
    found = batched([Asked(10, 11, 0.0), Asked(10, 21, 0.0)], SECONDS)
    assert [share.amounts.steps for share in found.shares] == [pytest.approx(5), pytest.approx(15)]
    assert found.steps == 20


def test_one_that_comes_later_joins_at_the_next_step():
    """Steps of 10 ms: the second comes in the third step, its prompt is done in the fourth, and from the fifth on they are two."""
    found = batched([Asked(1, 11, 0.0), Asked(1, 3, 0.025)], STEPS_ONLY)
    assert found.shares[1].came_s == 0.025
    assert found.shares[1].amounts.steps == pytest.approx(1.0)  # two steps, half of each
    assert found.shares[1].end_s == pytest.approx(0.06)
    assert found.shares[0].amounts.steps == pytest.approx(9.0)


def test_a_closed_loop_keeps_its_requests_in_flight():
    """Four at a time of equal lengths: four in every step, whatever times the workload has."""
    found = batched([Asked(1, 101, at_s) for at_s in range(40)], SECONDS, Limits(concurrency=4))
    assert found.batch == pytest.approx(4)
    assert found.idle_s == 0


def test_an_engine_takes_no_more_than_its_limit():
    """With two places the third waits; it does not share what it waits for."""
    found = batched([Asked(1, 11, 0.0), Asked(1, 11, 0.0), Asked(1, 11, 0.0)], STEPS_ONLY, Limits(sequences=2))
    assert [share.amounts.steps for share in found.shares] == [pytest.approx(5), pytest.approx(5), pytest.approx(10)]


def test_memory_is_given_back():
    """Room for two of 111 and 201 tokens: the third comes in when the first has ended, beside the second."""
    asked = [Asked(100, 11, 0.0), Asked(100, 101, 0.0), Asked(100, 11, 0.0)]
    found = batched(asked, STEPS_ONLY, Limits(kv_tokens=320))
    assert [share.amounts.steps for share in found.shares] == [pytest.approx(5), pytest.approx(90), pytest.approx(5)]
    alone = batched(asked, STEPS_ONLY, Limits(kv_tokens=150))  # less than the second needs: it comes in all the same, by itself
    assert [share.amounts.steps for share in alone.shares] == [pytest.approx(10), pytest.approx(100), pytest.approx(10)]


def test_a_long_prompt_is_cut_to_pieces_and_holds_back_nobody():
    """1,000 prompt tokens at 101 a step: ten steps, in each of which the other one decodes."""
    found = batched([Asked(1, 1000, 0.0), Asked(1000, 2, 0.015)], STEPS_ONLY, Limits(tokens=101))
    assert found.shares[1].end_s == pytest.approx(0.02 + 10 * 0.01 + 0.01)
    both = batched([Asked(1, 1000, 0.0), Asked(100, 1, 0.015), Asked(100, 1, 0.015)], STEPS_ONLY, Limits(tokens=101))
    assert [share.end_s for share in both.shares[1:]] == [pytest.approx(0.03), pytest.approx(0.04)]


def test_a_turn_follows_the_answer_before_it():
    """It comes its think time after the end, however long that took."""
    found = batched([Asked(1, 11, 0.0), Asked(1, 11, None, 0, 0, 2.0)], STEPS_ONLY)
    assert found.shares[1].came_s == pytest.approx(found.shares[0].end_s + 2.0)
    assert found.idle_s == pytest.approx(2.0)


@settings(max_examples=60, deadline=None)
@given(st.lists(requests, min_size=1, max_size=30), loads)
def test_nothing_is_lost_and_nothing_counted_twice(asked, limits):
    """Steps and busy time are what all requests have of them; each has all its tokens, and nobody ends before it came."""
    found = batched(asked, SECONDS, limits)
    assert sum(share.amounts.steps for share in found.shares) == pytest.approx(found.steps)
    assert sum(share.busy_s for share in found.shares) == pytest.approx(found.busy_s)
    for one, share in zip(asked, found.shares, strict=True):
        assert (share.amounts.prefill, share.amounts.decode) == (one.prompt, one.output)
        assert share.amounts.context == one.output * (one.prompt + one.output / 2)
        assert share.end_s >= share.came_s
    amounts = [sum(each) for each in zip(*(share.amounts for share in found.shares), strict=True)]
    assert Terms(*amounts).dot(SECONDS) == pytest.approx(found.busy_s)  # time is what the amounts take, no more and no less


@settings(max_examples=60, deadline=None)
@given(st.lists(requests, min_size=1, max_size=12), st.integers(0, 11), st.integers(1, 200))
def test_longer_answers_one_at_a_time_take_more_steps(asked, place, more):
    """Where nobody shares, each token of an answer adds a step."""
    place %= len(asked)
    longer = [Asked(one.prompt, one.output + more * (i == place), one.at_s) for i, one in enumerate(asked)]
    assert batched(longer, SECONDS, Limits(concurrency=1)).steps == batched(asked, SECONDS, Limits(concurrency=1)).steps + more


@settings(max_examples=40, deadline=None)
@given(st.lists(requests, min_size=1, max_size=8), st.sampled_from((2, 8)))
def test_requests_far_apart_share_nothing(asked, sequences):
    """One without a neighbour in time takes as many steps as it has tokens but one, all of them its own."""
    apart = [Asked(one.prompt, one.output, 1000.0 * i) for i, one in enumerate(asked)]
    found = batched(apart, SECONDS, Limits(sequences))
    assert found.steps == sum(one.output - 1 for one in asked)


@settings(max_examples=40, deadline=None)
@given(st.lists(requests, min_size=1, max_size=12), st.integers(1, 50))
def test_arrivals_that_change_nothing_change_nothing(asked, tiny):
    """Leaps are cut where somebody comes. One who asks for nothing that takes time or a step, again and again, leaves all as it was."""
    free = Terms(0.0, 0.010035671, 0.0, 0.0)  # a token that comes with its prompt is free; nobody comes just as a step ends
    silent = [Asked(1, 1, 0.37 * i) for i in range(tiny)]
    alone = batched(asked, free, Limits(1000))
    beside = batched([*asked, *silent], free, Limits(1000))
    assert beside.steps == alone.steps
    assert [share.end_s for share in beside.shares[:len(asked)]] == pytest.approx([share.end_s for share in alone.shares])
