"""A request's tokens as curves: they grow, never fall, and what is frozen stays."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.work import MICRO, Curve, Work

S = 1_000_000_000


def test_a_curve_is_linear_between_its_knots():
    """Half of the time, half of the amount; nothing before, all of it after."""
    curve = Curve(0)
    curve.grow(100, 200, 1000)
    assert [curve.at(t) for t in (50, 100, 150, 200, 900)] == [0, 0, 500, 1000, 1000]


def test_an_instant_amount_belongs_to_the_window_that_ends_there():
    """Windows are half open on the left: (t0, t1]."""
    curve = Curve(0)
    curve.grow(100, 100, 7)
    assert curve.between(0, 100) == 7
    assert curve.between(100, 200) == 0


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 10**6)), max_size=30),
       st.lists(st.integers(0, 1200), max_size=9))
def test_windows_of_a_curve_sum_to_its_total(growths, cuts):
    """However time is cut into windows, the parts are whole numbers that sum to everything, and none is negative."""
    curve = Curve(0)
    for t0, dt, amount in growths:
        curve.grow(t0, t0 + dt, amount)
    edges = [-1, *sorted(cuts), 10**7]
    parts = [curve.between(a, b) for a, b in pairwise(edges)]
    assert all(part >= 0 for part in parts)
    assert sum(parts) == curve.total == sum(amount for _, _, amount in growths)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 10**6)), min_size=1, max_size=20), st.integers(0, 900), st.integers(1, 900),
       st.integers(1, 10**6))
def test_a_lift_adds_on_top_and_leaves_the_past(growths, t0, span, amount):
    """What is learned late is spread over its span; everything before it is as it was (to a millionth of a token)."""
    curve, t = Curve(0), 0
    for dt, more in growths:
        curve.grow(t, t + dt, more)
        t += dt
    before = [curve.at(x) for x in range(0, t0 + 1, 50)]
    total = curve.total
    curve.lift(t0, t0 + span, amount)
    assert curve.total == total + amount
    assert all(abs(curve.at(x) - then) <= 1 for x, then in zip(range(0, t0 + 1, 50), before, strict=True))
    values = [curve.at(x) for x in range(0, 5000, 7)]
    assert values == sorted(values)


def test_forgetting_keeps_what_is_asked_later():
    """A long stream stays small, and its later windows are as before."""
    curve = Curve(0)
    for t in range(5000):
        curve.grow(t, t + 1, 10)
    curve.forget(4000)
    assert len(curve._times) < 1100
    assert curve.between(4000, 5000) == 10_000


def test_the_first_token_says_that_the_prompt_is_done():
    """The prompt was computed between the start of execution and the first token; each token since the one before."""
    work = Work(0, visible=True, prompt_tokens=100, choices=1)
    work.show(2 * S, 1, 1 * S)
    work.show(3 * S, 2, 0)
    assert (work.prefill.between(0, S), work.prefill.between(S, 2 * S)) == (0, 100 * MICRO)
    assert work.decode.between(2 * S, 3 * S) == 2 * MICRO


def test_what_was_guessed_is_not_counted_twice():
    """A token that a divided window was given in advance is not given again when it is seen."""
    work = Work(0, visible=True, prompt_tokens=10, choices=1)
    work.show(S, 1, 0)
    work.freeze(S, 2 * S, 0, MICRO // 2)
    work.show(3 * S, 1, 0)
    assert work.decode.total == 2 * MICRO
    assert work.decode.between(S, 2 * S) == MICRO // 2


def test_hidden_tokens_are_placed_at_the_end():
    """A request that is not streamed tells its tokens when it ends: first the prompt at its pace, then the answer."""
    work = Work(0, visible=False, prompt_tokens=1000, choices=1)
    work.finish(2 * S, 50, prefill_per_s=1000.0, decode_per_s=1.0, failed=False)
    assert work.prefill.between(0, S) == 1000 * MICRO
    assert (work.decode.between(0, S), work.decode.between(S, 2 * S)) == (0, 50 * MICRO)


def test_a_refused_request_computed_nothing():
    """An HTTP error costs no tokens."""
    work = Work(0, visible=False, prompt_tokens=1000, choices=1)
    work.finish(S, None, prefill_per_s=1000.0, decode_per_s=1.0, failed=True)
    assert work.prefill.total == work.decode.total == work.prompt_left == 0
