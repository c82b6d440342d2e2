"""Several pools of boards: each divides its own joules among its own requests, and a record is the sum of what its pools charge."""

from dataclasses import replace

import pytest

from perjoule.sidecar.metering.pools import read_pools
from perjoule.sidecar.metering.weighing import METHODS
from perjoule.sidecar.record import Status
from tests.sidecar.metering.test_meter import MS, Bench

S_UJ = 1_000_000  # of one watt in a second


def bench(gpus, *power_w, **more):
    """Boards at these powers that have been idle at 100 W for a second."""
    it = Bench(len(power_w), pools=read_pools(gpus), **more)
    it.power_w = [100] * len(power_w)
    it.run_to(1000)
    it.power_w = list(power_w)
    return it


def test_a_rank_pays_for_its_own_boards():
    """Two requests side by side on two ranks: each is charged what its rank drew, and names its board."""
    it = bench("0=GPU-0;1=GPU-1", 400, 200)
    for rank, name in enumerate("ab"):
        it.begin(name, rank=rank)
    it.stream("ab", 2000)
    for name in "ab":
        it.end(name, 40)
    it.power_w = [100, 100]
    it.run_to(3000)
    for name, power_w, uuid in (("a", 400, "GPU-0"), ("b", 200, "GPU-1")):
        charge = it.charge(name)
        assert charge.energy_uj == pytest.approx(power_w * S_UJ, rel=0.05)
        assert charge.active_uj == pytest.approx((power_w - 100) * S_UJ, rel=0.05)
        assert (charge.devices, charge.status) == ((uuid,), Status.MEASURED)


def test_an_idle_rank_charges_nobody():
    """What its board draws while the other one works is idle."""
    it = bench("0=GPU-0;1=GPU-1", 400, 100)
    it.begin("a", rank=0)
    it.stream("a", 2000)
    it.end("a", 40)
    it.run_to(3000)
    idle = it.meter.divisions[1].balance
    assert idle.requests_uj == 0
    assert idle.idle_uj == idle.measured_uj > 0


@pytest.mark.parametrize("rank", [None, 7])
def test_without_a_rank_it_is_counted_where_the_fewest_are(rank):
    """As the engine's balancer would; the record names every board that it may have run on, and is mixed."""
    it = bench("0=GPU-0;1=GPU-1", 400, 200)
    it.begin("a", rank=0)
    it.begin("b", rank=rank)
    it.stream("ab", 2000)
    assert it.meter.charge("b", it.now_ms * MS).status is Status.PROVISIONAL
    for name in "ab":
        it.end(name, 40)
    it.power_w = [100, 100]
    it.run_to(3000)
    assert it.charge("b").energy_uj == pytest.approx(200 * S_UJ, rel=0.05)
    assert (it.charge("b").devices, it.charge("b").status) == (("GPU-0", "GPU-1"), Status.MIXED)
    assert it.charge("a").status is Status.MEASURED


class HalfSilent:
    """A meter whose second board shows the same value for ever."""

    def __init__(self, meter):
        self._meter, self._frozen = meter, None

    def __getattr__(self, name):
        return getattr(self._meter, name)

    def sample(self, readings):
        self._frozen = self._frozen or readings[1]
        return self._meter.sample([readings[0], replace(readings[1], energy_uj=self._frozen.energy_uj)])


def test_a_rank_whose_counter_falls_silent_keeps_nobody_else_waiting():
    """A request of the other rank is settled as soon as ever."""
    it = bench("0=GPU-0;1=GPU-1", 400, 200)
    it.begin("a", rank=0)
    it.stream("a", 1500)
    it.end("a", 20)
    it.meter = HalfSilent(it.meter)
    it.begin("b", rank=0)
    it.begin("c", rank=1)
    it.stream("bc", 2500)
    for name in "bc":
        it.end(name, 40)
    it.run_to(5000)
    assert it.settled["b"][0] - 2500 <= 250
    assert it.charge("b").status is Status.MEASURED
    assert it.charge("c").status is not Status.MEASURED


def prompt_and_stream(it):
    """A second of prompt, then a second of output; the boards do as told."""
    it.power_w = [500, 100]
    it.begin("a", input_tokens=5000)
    it.run_to(2000)
    it.power_w = [100, 300]
    it.tokens("a")
    it.stream("a", 3000)
    it.end("a", 41)
    it.power_w = [100, 100]
    it.run_to(4000)


@pytest.mark.parametrize("method", METHODS)
def test_the_stages_of_a_request_add(method):
    """Its prompt's joules from one pool, its output's from the other; what a pool draws during the other stage is idle."""
    it = bench("prefill=GPU-0;decode=GPU-1", 100, 100, method=method)
    prompt_and_stream(it)
    charge = it.charge("a")
    assert charge.prefill_uj == pytest.approx(500 * S_UJ, rel=0.06)
    assert charge.decode_uj == pytest.approx(300 * S_UJ, rel=0.06)
    assert charge.active_uj == pytest.approx(600 * S_UJ, rel=0.08)
    assert (charge.devices, charge.status) == (("GPU-0", "GPU-1"), Status.MEASURED)
    assert (charge.calibration_id is not None) is (method == "step-model")


def test_a_prompt_weighs_in_the_prefill_pool_only():
    """A long prompt beside a stream costs the stream nothing in the prefill pool, and itself nothing in the decode pool."""
    it = bench("prefill=GPU-0;decode=GPU-1", 100, 300)
    it.begin("stream")
    it.stream(["stream"], 2000)
    it.power_w = [500, 300]
    it.begin("prompt", input_tokens=20_000)
    it.stream(["stream"], 3000)
    it.end("prompt", status=None)
    it.end("stream", 80)
    it.power_w = [100, 100]
    it.run_to(4000)
    assert it.charge("prompt").energy_uj == pytest.approx(500 * S_UJ, rel=0.06)
    assert it.charge("stream").energy_uj == pytest.approx(300 * 2 * S_UJ, rel=0.06)


def test_what_is_said_early_of_two_stages_is_near_the_end():
    """The provisional charge leaves out the pool that the request has left."""
    it = bench("prefill=GPU-0;decode=GPU-1", 100, 300)
    it.begin("a")
    it.stream("a", 2950)
    early = it.meter.charge("a", it.now_ms * MS)
    it.end("a")
    it.run_to(4000)
    assert early.energy_uj == pytest.approx(it.charge("a").energy_uj, rel=0.1)


def test_each_pool_learns_for_itself():
    """Blocks of windows of different boards do not mix."""
    it = bench("0=GPU-0;1=GPU-1", 400, 200)
    it.begin("a", rank=1)
    it.stream("a", 4500)
    it.end("a", 140)
    it.run_to(5000)
    assert [division.calibration.learned_ns > 0 for division in it.meter.divisions] == [False, True]
