"""Steps are counted from frames: one clock for all streams, never ahead of the fastest, never behind it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.steps import LONG_STEP, PRIOR_STEP_NS, Moment, StepClock

MS = 1_000_000


def test_a_step_is_spread_over_its_time():
    """Between the ends of two steps the count rises evenly, so that a window's edge cuts a step in parts."""
    clock = StepClock()
    clock.advance(10 * MS, 1)
    clock.advance(30 * MS, 2)
    assert [clock.at(t * MS) for t in (0, 5, 10, 20, 30)] == pytest.approx([0, 0.5, 1, 1.5, 2])


def test_while_nobody_decodes_no_step_is_counted():
    """A pause between two answers belongs to neither of them."""
    clock = StepClock()
    clock.advance(10 * MS, 1)
    clock.rest(1000 * MS)
    clock.advance(1010 * MS, 2)
    assert clock.at(1000 * MS) == 1
    assert clock.at(1005 * MS) == pytest.approx(1.5)


def test_the_step_under_way_is_one_however_long_it_takes():
    """A prompt of thousands of tokens holds a step up; nobody is given more than that step meanwhile."""
    clock = StepClock()
    for i in range(1, 100):
        clock.advance(i * 10 * MS, i)
    assert clock.at(clock.last_ns + 5 * MS) == pytest.approx(99.5, rel=0.01)
    assert clock.at(clock.last_ns + 10_000 * MS) == 100


def test_a_long_step_says_little_about_the_usual_one():
    """One step of ten seconds moves the usual duration by no more than one of four times the usual would."""
    clock = StepClock()
    clock.advance(10_000 * MS, 1)
    assert clock.usual_ns <= PRIOR_STEP_NS * (1 + 0.05 * LONG_STEP)


def test_hidden_tokens_are_thought_to_come_at_a_given_pace():
    """Where nobody shows frames the clock runs as it is told, and never back."""
    clock = StepClock()
    clock.coast(100 * MS, 10 * MS)
    assert clock.count == pytest.approx(10)
    clock.coast(50 * MS, 10 * MS)
    assert clock.count == pytest.approx(10)


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0.1, 5)), max_size=60), st.sets(st.integers(0, 4000)))
def test_many_moments_are_asked_at_once(steps, moments_ms):
    """Each is answered as if it had been asked alone, to the last bit, while steps are made and after the last one."""
    clock, t_ns = StepClock(), 0
    for span_ms, count in steps:
        t_ns += span_ms * MS
        clock.advance(t_ns + MS, clock.count + count)
    moments = {t_ms * MS: Moment() for t_ms in moments_ms}
    clock.share(moments)
    assert {t_ns: moment.count for t_ns, moment in moments.items()} == {t_ns: clock.at(t_ns) for t_ns in moments}


@given(st.lists(st.tuples(st.integers(0, 900), st.integers(1, 100), st.integers(1, 3)), min_size=1, max_size=20))
def test_a_step_is_shared_by_those_who_are_in_it(stays):
    """What all of them get adds up to the steps in which there was anybody; one who is alone gets all of hers."""
    clock = StepClock()
    clock.advance(1000 * MS, 100)
    moments = {}
    for begin_ms, span_ms, sequences in stays:
        moments.setdefault(begin_ms * MS, Moment()).change += sequences
        moments.setdefault((begin_ms + span_ms) * MS, Moment()).change -= sequences
    clock.share(moments)
    given_steps = sum(sequences * (moments[(begin_ms + span_ms) * MS].share - moments[begin_ms * MS].share)
                      for begin_ms, span_ms, sequences in stays)
    somebody_ms = len({ms for begin_ms, span_ms, _ in stays for ms in range(begin_ms, begin_ms + span_ms)})
    assert given_steps == pytest.approx(somebody_ms / 10)


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0.1, 5)), min_size=1, max_size=60), st.integers(0, 3000), st.integers(0, 3000))
def test_the_clock_never_runs_back_and_can_be_asked_both_ways(steps, a_ms, b_ms):
    """`at` rises with time, and `when` is its inverse within what is known."""
    clock, t_ns = StepClock(), 0
    for span_ms, count in steps:
        t_ns += span_ms * MS
        if t_ns > clock.last_ns:
            clock.advance(t_ns, clock.count + count)
    early, late = sorted((a_ms * MS, b_ms * MS))
    assert 0 <= clock.at(early) <= clock.at(late) <= clock.count + 1
    for t in (early, late):
        if t <= clock.last_ns:
            assert abs(clock.at(clock.when(clock.at(t))) - clock.at(t)) < 1e-3


def test_what_was_charged_of_a_step_under_way_is_not_charged_again():
    """A window took nine tenths of a step before its end was seen: the rest of it is one tenth."""
    clock = StepClock()
    for i in range(1, 200):
        clock.advance(i * 10 * MS, i)
    clock.pin(1999 * MS)
    charged = clock.at(1999 * MS)
    assert charged == pytest.approx(199.9, abs=0.02)
    clock.advance(2100 * MS, 200)
    assert clock.at(1999 * MS) == charged
    assert clock.at(2100 * MS) == 200


def test_the_ends_of_steps_are_known():
    """Those after a moment, the moment's own not among them."""
    clock = StepClock()
    for i in range(1, 5):
        clock.advance(i * 10 * MS, i)
    assert clock.ends_after(20 * MS) == [30 * MS, 40 * MS]


def test_what_is_old_is_forgotten():
    """A stream of days keeps some thousand steps, and answers the same about the last window."""
    clock = StepClock()
    for i in range(1, 20_000):
        clock.advance(i * MS, i)
        clock.forget(i * MS - 100 * MS)
    assert clock.at(19_950 * MS) == pytest.approx(19_950)
    assert len(clock._times) < 5000
