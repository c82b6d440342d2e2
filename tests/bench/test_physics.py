"""Every physics: what a step is made of adds up, and each has the shape that it is named after."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.physics import H200, Linear, Part, Roofline
from perjoule.bench.recorded_steps import DECODE, PREFILL, RECORDED, Measured, Recorded

FAMILY = {"linear": H200, "roofline": Roofline(), "experts": Roofline(experts=0.9), "recorded": RECORDED}
parts = st.lists(st.builds(Part, st.sampled_from((0, 0, 1, 300, 2048)), st.integers(0, 30_000)), min_size=1, max_size=64)


@pytest.mark.parametrize("name", FAMILY)
@given(parts)
def test_a_step_takes_time_and_nobody_is_paid_for_it(name, members):
    """Any step lasts, has one own part a member, and no part of it is below zero."""
    cost = FAMILY[name].step(members)
    assert cost.ns > 0
    assert len(cost.own_uj) == len(members)
    assert min(cost.shared_uj, *cost.own_uj) >= 0


@pytest.mark.parametrize("name", sorted(FAMILY.keys() - {"recorded"}))  # measured, so with the noise of measurements
@given(parts, st.builds(Part, st.sampled_from((0, 500)), st.integers(0, 30_000)))
def test_one_more_member_never_makes_a_step_cheaper_or_shorter(name, members, late):
    """Whoever joins adds time and joules, or nothing."""
    before, after = FAMILY[name].step(members), FAMILY[name].step([*members, late])
    assert after.ns >= before.ns
    assert after.shared_uj + sum(after.own_uj) + 2 >= before.shared_uj + sum(before.own_uj)


def test_linear_is_what_its_numbers_say():
    """A prompt of 10 beside a decode at context 40: the fixed part, and each one's own."""
    cost = Linear().step([Part(10, 0), Part(0, 40)])
    assert cost == (5_000_000 + 10 * 30_000, 1_700_000, [10 * 14_000, 20_000 + 40 * 20])


def test_a_roofline_step_is_flat_below_the_floor_and_linear_above_it():
    """A decode step of the 8B shape takes 4.2 ms; 50 prompt tokens hide under it, 2,048 take 32 µs each."""
    roofline = Roofline(attention_ns=0.0)
    assert roofline.step([Part(0, 0)]).ns == roofline.step([Part(0, 0), Part(50, 0)]).ns == 4_200_000
    assert roofline.step([Part(0, 0), Part(50, 0)]).shared_uj == roofline.step([Part(0, 0)]).shared_uj
    assert roofline.step([Part(2048, 0)]).ns == 2048 * 32_000


def test_a_roofline_decode_token_costs_about_129_prompt_tokens_over_the_batch():
    """The floor over the time of a prompt token is what field studies compute for this GPU: about 130."""
    roofline = Roofline()
    assert roofline.weights_ns / roofline.token_ns == pytest.approx(129, rel=0.03)


def test_a_larger_step_reads_more_experts_until_all_are_read():
    """With nine tenths of the weights in experts, one token reads 16 % of all weights, many tokens read them all."""
    experts = Roofline(experts=0.9, cached_token_ns=0.0)
    one, eight, all_of_them = (experts.step([Part(0, 0)] * n).ns / experts.weights_ns for n in (1, 8, 128))
    assert one == pytest.approx(0.1 + 0.9 * 0.0625)
    assert one < eight < all_of_them == pytest.approx(1.0, abs=0.001)


def test_a_table_gives_its_points_back_and_lies_between_them():
    """At a point of the table a step is what was measured there; half way between two, half way."""
    at_point, between = RECORDED.step([Part(0, 256)]), RECORDED.step([Part(0, 640)])
    assert at_point.ns == DECODE[0][0].us * 1000
    assert between.ns == (DECODE[0][0].us + DECODE[0][1].us) * 500
    assert at_point.shared_uj == DECODE[0][0].mj * 1000 + round(128.0 * at_point.ns / 1000)


def test_what_a_prompt_adds_to_a_recorded_step_is_its_own():
    """2,048 prompt tokens beside nothing pay what they add, and nothing of it is shared."""
    cost = RECORDED.step([Part(2048, 0)])
    assert cost.own_uj == [pytest.approx(PREFILL[0].mj * 1000)]


@pytest.mark.parametrize(("axes", "table", "said"), [
    (((0, 1), (1, 1), (0, 1)), (), "expected at least two rising numbers"),
    (((0,), (1, 2), (0, 1)), (), "expected at least two rising numbers"),
    (((0, 1), (1, 2), (0, 1)), (((Measured(1, 1),) * 2,) * 2,), r"got a table of \[1, 2, 2\], expected \[2, 2, 2\]"),
    (((0, 1), (1, 2), (0, 1)), (((Measured(1, 1),) * 2,) * 2, ((Measured(1, 1),) * 3,) * 2), "got a table of"),
])
def test_a_table_that_is_no_table_is_refused(axes, table, said):
    """Axes that do not rise and tables of another shape are named."""
    with pytest.raises(ValueError, match=said):
        Recorded(*axes, table, 128.0)


@pytest.mark.parametrize("name", FAMILY)
def test_at_another_speed_joules_stay(name):
    """Half as fast: twice the time, half the idle power, the same joules."""
    real = FAMILY[name]
    slow = real.at_speed(0.5)
    step = [Part(700, 0), Part(0, 900)]
    assert slow.step(step) == real.step(step)._replace(ns=2 * real.step(step).ns)
    assert slow.idle_w == real.idle_w / 2
