"""Simulated requests through the real meter: all is settled, all adds up, and one alone pays what it costs."""

from functools import partial

import pytest

from perjoule.bench.physics import H200, Roofline
from perjoule.bench.recorded_steps import RECORDED
from perjoule.bench.simulated_run import Request, play, worth
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

REQUESTS = [Request(0, 300, 40), Request(0, 5000, 10), Request(700 * NS_PER_MS, 20, 120)]


@pytest.mark.parametrize("physics", [H200, Roofline(), RECORDED], ids=["linear", "roofline", "recorded"])
def test_every_request_gets_one_record_and_they_sum_to_what_was_drawn(physics):
    """Records come in the order of the requests, and their joules are all that was drawn but the idle, within rounding of time."""
    done = play(REQUESTS, physics, partial(Meter, method="token-share"))
    assert [record.facts.input_tokens for record in done.records] == [300, 5000, 20]
    assert [sequence.generated for sequence in done.sequences] == [40, 10, 120]
    assert sum(record.charge.energy_uj or 0 for record in done.records) == pytest.approx(done.busy_uj, rel=0.02)


def test_a_run_is_worth_what_its_requests_cost():
    """What the engine draws beside idle is the sum of the joules that the simulator says its sequences took."""
    done = play(REQUESTS, H200)
    assert worth(REQUESTS, H200) == done.busy_uj == sum(sequence.prefill_uj + sequence.decode_uj for sequence in done.sequences)


def test_one_alone_is_worth_what_it_pays():
    """A lone request, whenever it comes, is charged all that the engine draws for it."""
    alone = [Request(3 * NS_PER_S, 1000, 50)]
    (record,) = play(alone, Roofline()).records
    assert record.charge.energy_uj == pytest.approx(worth(alone, Roofline()), rel=0.02)


def test_shorter_windows_are_more_of_them():
    """A counter of 10 ms gives some ten times the windows of one of 100 ms, and the same joules."""
    long, short = (play(REQUESTS, H200, period_ns=ms * NS_PER_MS).records[2].charge for ms in (100, 10))
    assert short.windows > 5 * long.windows
    assert short.energy_uj == pytest.approx(long.energy_uj, rel=0.1)
