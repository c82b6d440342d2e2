"""Who weighs how much in a window: what was seen, and a guess of what could not be seen yet."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.pace import Pace
from perjoule.sidecar.weighing import weigh
from perjoule.sidecar.work import MICRO, Work

MS, S = 1_000_000, 1_000_000_000


def decoding(begin_ns, until_ns, per_s, prompt_tokens=0):
    """A streamed request that has shown tokens at an even rate from `begin_ns` on."""
    work = Work(begin_ns, visible=True, prompt_tokens=prompt_tokens, choices=1)
    for t_ns in range(begin_ns + S // per_s, until_ns + 1, S // per_s):
        work.show(t_ns, 1, begin_ns)
    return work


def test_nobody_running_weighs_nothing():
    """No requests, no weights: the caller keeps the energy."""
    assert weigh([], 0, 100 * MS, Pace()) == []


def test_prompt_tokens_and_output_tokens_weigh_the_same():
    """A token is a token, computed in the window."""
    prompt = Work(0, visible=True, prompt_tokens=50, choices=1)
    prompt.show(100 * MS, 0, 0)
    first, second = weigh([prompt, decoding(0, 100 * MS, 500)], 0, 100 * MS, Pace())
    assert (first.prefill, first.decode, second.prefill, second.decode) == (50 * MICRO, 0, 0, 50 * MICRO)


def test_queued_requests_weigh_nothing_until_their_turn():
    """Of three prompts that wait for their first token only the earliest is at work; the next begins when that one is done."""
    waiting = [Work(i * MS, visible=True, prompt_tokens=10_000, choices=1) for i in range(3)]  # one second each, at the prior pace
    early = [w.total for w in weigh(waiting, 0, 900 * MS, Pace())]
    assert early[0] > 0
    assert early[1:] == [0, 0]
    later = [w.total for w in weigh(waiting, 0, 1500 * MS, Pace())]
    assert later[0] > later[1] > later[2] == 0


def test_a_hidden_request_weighs_like_its_visible_neighbours():
    """Every decoding sequence gets a token a step, seen or not; two choices get two."""
    hidden = Work(0, visible=False, prompt_tokens=0, choices=1)
    twice = Work(0, visible=False, prompt_tokens=0, choices=2)
    shown, one, two = weigh([decoding(0, 2 * S, 40), hidden, twice], S, 2 * S, Pace())
    assert one.decode == pytest.approx(shown.decode, rel=0.05)
    assert two.decode == pytest.approx(2 * shown.decode, rel=0.05)
    assert one.decode == one.guessed_decode


def test_somebody_is_at_work_even_when_the_pace_says_otherwise():
    """A prompt that takes longer than was thought still weighs, so that its energy has an owner."""
    work = Work(0, visible=True, prompt_tokens=10, choices=1)
    pace, edges = Pace(), [0, S, 2 * S, 3 * S]
    for t0_ns, t1_ns in pairwise(edges):
        (weight,) = weigh([work], t0_ns, t1_ns, pace)
        assert weight.total > 0
        work.freeze(t0_ns, t1_ns, weight.guessed_prefill, weight.guessed_decode)


@given(st.lists(st.tuples(st.integers(0, 900), st.booleans(), st.integers(0, 50_000), st.integers(1, 3)), min_size=1, max_size=6),
       st.lists(st.integers(1, 400), min_size=1, max_size=12))
def test_guesses_never_exceed_the_prompt(requests, steps):
    """Over all windows together, no more of a prompt is placed than there is; no weight is negative; somebody has one."""
    works = [Work(begin * MS, visible=visible, prompt_tokens=tokens, choices=choices)
             for begin, visible, tokens, choices in sorted(requests)]
    pace, t0_ns, guessed = Pace(), 0, [0] * len(works)
    for step in steps:
        t1_ns = t0_ns + step * MS
        present = [work for work in works if work.begin_ns < t1_ns]
        weights = weigh(present, t0_ns, t1_ns, pace)
        assert not present or any(weight.total for weight in weights)
        for i, weight in enumerate(weights):
            assert weight.prefill >= weight.guessed_prefill >= 0
            assert weight.decode >= weight.guessed_decode >= 0
            guessed[i] += weight.guessed_prefill
            present[i].freeze(t0_ns, t1_ns, weight.guessed_prefill, weight.guessed_decode)
        t0_ns = t1_ns
    assert all(placed <= work.prompt for placed, work in zip(guessed, works, strict=True))


@given(st.integers(1, 900), st.integers(0, 50))
def test_weighing_changes_nothing(window_ms, tokens):
    """Asked twice, it answers the same."""
    works = [Work(0, visible=True, prompt_tokens=tokens, choices=1), Work(0, visible=False, prompt_tokens=tokens, choices=1)]
    first, second = (weigh(works, 0, window_ms * MS, Pace()) for _ in range(2))
    assert first == second
