"""What traffic teaches: ratios move towards what is seen, never to nothing, and prompts are computed one after the other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.pace import SAME_STEP_NS, Pace, Ratio

MS = 1_000_000


def test_nothing_learned_is_the_prior():
    """Before any traffic the rates are the stated guesses."""
    assert Ratio(4.0, 25.0).value == pytest.approx(4.0)
    assert Pace().prefill_per_s.value == pytest.approx(10_000.0)


def test_another_model_is_learned_within_dozens_of_requests():
    """After fifty requests of a new engine the old one's rate is forgotten to a tenth."""
    pace = Pace()
    for _ in range(50):
        pace.learn_decode(100, 10_000 * MS)
    for _ in range(50):
        pace.learn_decode(800, 10_000 * MS)
    assert pace.decode_per_s.value == pytest.approx(80.0, rel=0.1)


@given(st.lists(st.tuples(st.floats(-10, 1e9), st.floats(-10, 1e9)), max_size=50))
def test_a_ratio_stays_positive(observations):
    """Whatever is observed (a count of 0, a span of 0), a rate is a positive number: nobody divides by nothing."""
    ratio = Ratio(4.0, 25.0)
    for above, below in observations:
        ratio.learn(above, below)
    assert ratio.value > 0


def test_a_prompt_waits_for_the_one_before_it():
    """Its computing began when it came, or when the previous first token was shown, whichever is later."""
    pace = Pace()
    assert pace.prefill_start(100 * MS, 300 * MS) == 100 * MS
    assert pace.prefill_start(150 * MS, 500 * MS) == 300 * MS
    assert pace.prefill_start(700 * MS, 800 * MS) == 700 * MS


def test_first_tokens_of_one_step_share_their_beginning():
    """Prompts that were computed in one batch do not wait for each other."""
    pace = Pace()
    pace.prefill_start(0, 100 * MS)
    assert pace.prefill_start(0, 300 * MS) == 100 * MS
    assert pace.prefill_start(0, 300 * MS + SAME_STEP_NS) == 100 * MS
    assert pace.last_prefill_ns == 300 * MS + SAME_STEP_NS
