"""Rules as prices: what each method weighs, and that somebody is always at work."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.terms import NOTHING, Terms
from perjoule.sidecar.metering.weighing import METHODS, MICRO, prices, weigh
from perjoule.sidecar.metering.work import Work

MODEL = Terms(0.0145, 1.7, 0.018, 1.6e-5)
PROMPT, ANSWER = Terms(1000, 0, 0, 0), Terms(0, 2.5, 20, 20 * 300)
amounts = st.builds(Terms, *[st.floats(0, 1e6)] * 4)


@pytest.mark.parametrize(("method", "prompt", "answer"), [
    ("token-share", 1000, 20), ("steady-rate", 0, 20), ("step-model", 14.5, 2.5 * 1.7 + 20 * 0.018 + 6000 * 1.6e-5)])
def test_what_a_method_weighs(method, prompt, answer):
    """A prompt of 1000 tokens, and 20 tokens of an answer whose steps eight others shared."""
    assert weigh([PROMPT, ANSWER], prices(method, MODEL)) == pytest.approx([prompt * MICRO, answer * MICRO], abs=1)


def test_every_method_has_prices():
    """Each of the published names means something, and only token counts are the same whatever the model."""
    assert {method: prices(method, MODEL) is MODEL for method in METHODS} == {
        "token-share": False, "step-model": True, "steady-rate": False}


def test_somebody_is_at_work_where_nothing_is_known():
    """A window without evidence is the earliest's whose prompt is not known to be done; a window whose tokens the rule does not count is
    nobody's."""
    decodes, *prompts = (Work(begin_ns, visible=False, prompt_tokens=10.0, choices=1) for begin_ns in range(3))
    decodes.first_ns = 5
    assert weigh([NOTHING] * 3, MODEL, [decodes, *prompts]) == [0, 1, 0]
    assert weigh([NOTHING] * 2, MODEL, [decodes, decodes]) == [1, 0]
    assert weigh([NOTHING, NOTHING], MODEL) == [1, 0]
    assert weigh([PROMPT], prices("steady-rate", MODEL)) == [0]
    assert weigh([], MODEL) == []


@given(st.lists(amounts, max_size=8), st.sampled_from(METHODS))
def test_weights_are_whole_numbers_of_which_none_is_negative(given_amounts, method):
    """So a window can be divided by them to the microjoule."""
    weights = weigh(given_amounts, prices(method, MODEL))
    assert len(weights) == len(given_amounts)
    assert all(isinstance(weight, int) and weight >= 0 for weight in weights)


@given(amounts, amounts, amounts)
def test_two_halves_weigh_what_the_whole_does(a, b, price):
    """Additivity: a request cut in two pays the same in sum."""
    assert a.plus(b).dot(price) == pytest.approx(a.dot(price) + b.dot(price), rel=1e-9)
