"""What an engine tells of its steps: whose prompt was done, how long it is believed, and what is made of it when it cannot be."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.schedule import Schedule
from perjoule.sidecar.metering.told import JITTER_NS, LAPSE_NS, Told
from perjoule.sidecar.metering.work import Work
from perjoule.sidecar.ports import Step

MS = 1_000_000


def hidden(ms, prompt=100, choices=1):
    return Work(ms * MS, visible=False, prompt_tokens=float(prompt), choices=choices)


def step(ms, *firsts_ms, steps=1, rank=0, prefill=None, prompts=None, took_ms=None, cached=0):
    return Step(ms * MS, steps, rank, None if took_ms is None else took_ms * MS, prefill, prompts, cached, tuple(f * MS for f in firsts_ms))


def look(schedule, t0_ms, t1_ms):
    found = schedule.look(t0_ms * MS, t1_ms * MS, t1_ms * MS)
    schedule.commit(found, t0_ms * MS, t1_ms * MS)
    return dict(zip(found.works, found.amounts, strict=True))


def test_who_hides_his_tokens_is_done_when_the_engine_says():
    """Two hidden requests, the first of 1,000 prompt tokens: what each computed in each window is what was told, to the token."""
    schedule = Schedule()
    long, short = hidden(0, 1000), hidden(5, 50)
    schedule.begin(long)
    schedule.begin(short)
    for ms in (40, 80):
        schedule.step(step(ms, prefill=400))
    schedule.step(step(120, 1, 6, prefill=250))
    for ms in range(130, 210, 10):
        schedule.step(step(ms, prefill=0))
    early, late = look(schedule, 0, 80), look(schedule, 80, 200)
    assert (early[long].prefill, early[short].prefill) == (pytest.approx(800, abs=0.1), 0)
    assert (early[long].decode, early[long].steps) == (0, 0)
    assert (late[long].prefill, late[short].prefill) == (pytest.approx(200, abs=0.1), pytest.approx(50))
    for work in (long, short):
        assert late[work].decode == pytest.approx(8)
        assert late[work].steps == pytest.approx(4)


def test_steps_are_counted_and_frames_count_none():
    """A stream of one frame in four steps, and a neighbour who joins: steps are those of the engine, shared by those in them."""
    schedule = Schedule()
    first, second = (Work(0, visible=True, prompt_tokens=10.0, choices=1) for _ in range(2))
    schedule.begin(first)
    schedule.begin(second)
    for ms in range(10, 410, 10):
        schedule.step(step(ms, *([1, 1] if ms == 10 else [])))
        if ms % 40 == 10:
            for work in (first, second):
                schedule.show(work, ms * MS, 1)
    parts = look(schedule, 100, 300)
    assert parts[first].steps == pytest.approx(10, abs=0.1)
    assert parts[second].steps == pytest.approx(10, abs=0.1)


def test_when_no_more_is_told_frames_count_again_and_the_next_step_is_believed():
    """The plugin dies while somebody streams: within the stated time the stream is the clock, until steps are told again."""
    schedule = Schedule()
    stream = Work(0, visible=True, prompt_tokens=10.0, choices=1)
    schedule.begin(stream)
    lapse_ms = LAPSE_NS // MS
    for ms in range(10, lapse_ms + 2010, 10):
        schedule.show(stream, ms * MS, 1)
        if ms <= 500:
            schedule.step(step(ms))
        if ms % 100 == 0:
            parts = look(schedule, ms - 100, ms)
    assert not schedule.believes
    assert parts[stream].steps == pytest.approx(10, rel=0.05)
    schedule.step(step(ms + 10))
    assert schedule.believes


def test_an_engine_that_rests_is_believed_when_it_works_again():
    """Nothing is told while nothing runs, for as long as you like."""
    schedule = Schedule()
    one = hidden(0)
    schedule.begin(one)
    schedule.step(step(10, 1))
    schedule.end(one, 20 * MS, 1, failed=False)
    look(schedule, 0, 100)
    schedule.forget([one])
    another = hidden(100_000)
    schedule.begin(another)
    look(schedule, 100_000, 100_100)
    assert schedule.believes
    look(schedule, 100_100, 100_000 + LAPSE_NS // MS + 200)
    assert not schedule.believes


def test_two_cores_in_one_pool_are_not_one_clock():
    """Ranks that nobody told apart: what they tell is not used."""
    schedule = Schedule()
    schedule.begin(hidden(0))
    schedule.step(step(10, 1, rank=0))
    assert schedule.believes
    schedule.step(step(11, rank=1))
    assert not schedule.believes
    schedule.step(step(20, rank=0))
    assert not schedule.believes


def test_lengths_that_were_guessed_are_measured_and_those_that_were_told_stay():
    """Two prompts guessed at 100 and 200 tokens had 600 together, 60 of them cached; a third is known to have 30."""
    told = Told()
    guessed, known = [hidden(0, 100), hidden(0, 200)], hidden(0, 30)
    known.is_measured = True
    told.measure(step(10, 0, 0, 0, prompts=630, cached=63), [*guessed, known])
    assert [work.prompt_tokens for work in guessed] == [pytest.approx(180), pytest.approx(360)]
    assert [work.cached for work in guessed] == [pytest.approx(20), pytest.approx(40)]
    assert known.prompt_tokens == 30


def test_what_cannot_be_the_length_of_a_prompt_is_anothers():
    """Forty times as long as it looks: it is not he who is meant."""
    told, work = Told(), hidden(0, 100)
    told.measure(step(10, 0, prompts=4000), [work])
    assert work.prompt_tokens == 100


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=30), st.integers(0, 80))
def test_those_who_come_in_a_row_are_told_apart(gaps_ms, lag_ms):
    """However close they come: if each takes as long to the engine, and it takes them in order, each is found."""
    told, works, at_ms = Told(), [], 0
    for gap_ms in gaps_ms:
        at_ms += gap_ms
        works.append(hidden(at_ms))
        told.missing[works[-1]] = 1
    assert [told.whose(work.begin_ns + lag_ms * MS) for work in works] == works
    assert told.whose(at_ms * MS) is None


def test_one_that_waits_for_something_else_is_passed_over():
    """An old request whose prompt is not done is not meant by an arrival that was much later; it is when its own is told."""
    told, old, new = Told(), hidden(0), hidden(1000)
    told.missing = {old: 1, new: 1}
    assert told.whose(1001 * MS) is new
    assert told.whose(JITTER_NS // 2) is old


def test_steps_of_others_are_not_kept():
    """An engine that others use, too, tells of thousands of steps while nobody is here."""
    schedule = Schedule()
    for ms in range(10, 30_000):
        schedule.step(step(ms, prefill=1, took_ms=0))
    assert len(schedule.told.ends_after(0)) < 5000
    assert len(schedule.clock.ends_after(0)) < 5000


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 50), st.integers(0, 5000)), max_size=40))
def test_tokens_computed_always_rise(steps):
    """Whatever is told, in whatever order: more time never means fewer tokens."""
    told, t_ms = Told(), 0
    for ms, took_ms, prefill in steps:
        t_ms += ms - 100
        told.take(step(t_ms, took_ms=took_ms, prefill=prefill), 0)
    times = range(-5_000 * MS, 15_000 * MS, 77 * MS)
    assert all(told.computed(before, after) > 0 for before, after in pairwise(times))
