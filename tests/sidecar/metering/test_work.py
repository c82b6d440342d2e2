"""One request's frames: each token is charged once, in the window in which it was computed, as far as that can be told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.steps import StepClock
from perjoule.sidecar.metering.work import Work

MS = 1_000_000


def work(*, visible=True, choices=1, prompt=100):
    return Work(0, visible=visible, prompt_tokens=float(prompt), choices=choices)


def show(it, t_ns, count=1):
    """As the schedule does."""
    if it.first_ns is None:
        it.first_ns = it.before_ns = t_ns
    it.frames.extend([t_ns] * count)


def test_a_token_under_way_is_a_part_of_one():
    """A frame at 30 ms after one at 10: by 20 ms half of it was computed."""
    it = work()
    show(it, 10 * MS, 1)
    show(it, 30 * MS, 1)
    assert it.frames_by(10 * MS, StepClock()) == pytest.approx(1)
    assert it.frames_by(20 * MS, StepClock()) == pytest.approx(1.5)
    assert it.frames_by(5 * MS, StepClock()) == 0


def test_what_has_not_come_yet_is_a_step_at_most():
    """The step under way gives one token to each sequence, however late it is."""
    it, clock = work(choices=2), StepClock()
    clock.advance(10 * MS, 1)
    show(it, 10 * MS, 2)
    assert it.frames_by(10_000 * MS, clock) == pytest.approx(2 + 2)
    it.end_ns = 11 * MS
    assert it.frames_by(10_000 * MS, clock) == 2


def test_a_guess_that_was_too_high_is_not_charged_again():
    """Charged three frames when two had come: the third, when it comes, costs nothing more."""
    it = work()
    show(it, 10 * MS, 2)
    it.charge(50 * MS, 3.0, 3.0)
    show(it, 60 * MS, 1)
    assert it.owed_tokens(it.frames_by(100 * MS, StepClock()), 1.0) == 0
    show(it, 70 * MS, 1)
    assert it.owed_tokens(it.frames_by(100 * MS, StepClock()), 1.0) == pytest.approx(1)


def test_the_engine_s_count_at_the_end_is_what_is_charged_in_all():
    """Ten tokens in five frames: those not charged yet are spread over the frames that are left."""
    it = work()
    for i in range(1, 6):
        show(it, i * 10 * MS, 1)
    it.charge(20 * MS, 2.0, 2.0)
    it.end_ns, it.output_tokens = 50 * MS, 10
    assert it.owed_tokens(it.frames_by(30 * MS, StepClock()), 1.0) == pytest.approx(8 / 3)
    assert it.owed_tokens(it.frames_by(50 * MS, StepClock()), 1.0) == pytest.approx(8)


def test_a_prompt_that_turns_out_cached_costs_what_is_left():
    """Of 1000 tokens 900 were cached; 300 had been charged already: nothing more is owed, and nothing is taken back."""
    it = work(prompt=1000)
    it.prompt_left = 700.0
    it.know_prompt(1000, 900)
    assert (it.prompt_tokens, it.cached, it.prompt_left) == (100, 900, 0)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 3)), max_size=40), st.lists(st.integers(1, 300), min_size=1, max_size=12),
       st.one_of(st.none(), st.integers(0, 200)))
def test_every_token_is_charged_exactly_once(frames, spans, told):
    """Whatever the windows' edges: by the end the sum is what the engine said, or the frames that came, and never falls."""
    it, clock, t_ns = work(), StepClock(), 0
    for gap, count in frames:
        t_ns += gap * MS
        show(it, t_ns, count)
    it.end_ns, it.output_tokens = t_ns, told
    edge, charged = 0, 0.0
    for span in [*spans, 10_000]:
        edge += span * MS
        by = it.frames_by(edge, clock)
        tokens = it.owed_tokens(by, 1.0)
        assert tokens >= 0
        it.charge(edge, by, tokens)
        charged += tokens
    assert charged == pytest.approx(sum(count for _, count in frames) if told is None else told)
    assert it.shown == sum(count for _, count in frames)


@pytest.mark.parametrize(("visible", "first", "end", "known"), [
    (True, None, None, False), (True, 10, None, False), (True, 60, None, True), (False, None, None, True), (True, None, 20, True)])
def test_what_is_known_until_when(visible, first, end, known):
    """A stream is known up to its last frame, an ended request and one that shows nothing for good."""
    it = work(visible=visible)
    if first is not None:
        show(it, first * MS, 1)
    it.end_ns = None if end is None else end * MS
    assert it.is_known_until(50 * MS) is known
