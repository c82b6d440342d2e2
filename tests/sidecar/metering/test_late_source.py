"""A meter whose source of energy becomes known while requests run."""

from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.metering.pools import read_pools
from perjoule.sidecar.ports import Device
from perjoule.sidecar.record import Status
from tests.sidecar.metering.test_meter import MS, Bench


class Late(Bench):
    """Its boards are known from `come` on."""

    def __init__(self, boards=1, gpus="all"):
        super().__init__(boards)
        self.meter, self.silent = Meter(pools=read_pools(gpus)), True

    def come(self):
        self.meter.reads([Device(f"GPU-{i}", "a board") for i in range(len(self.power_w))], self.now_ms * MS, source="nvml",
                         status=Status.MEASURED, boundary="gpu-board", period_ns=100 * MS, wrap_uj=None)
        self.silent = False
        return self


@given(st.integers(0, 1000), st.integers(1, 1500), st.integers(0, 400))
def test_joules_are_those_that_were_drawn_since(before_ms, after_ms, rest_ms):
    """Whenever it comes: all that its counter advanced is in an account, and a record of before has no number."""
    bench = Late().run_to(100)
    bench.begin("gone")
    bench.begin("r")
    bench.stream(["gone", "r"], 100 + before_ms)
    bench.end("gone")
    bench.come().run_to(bench.now_ms + rest_ms)
    bench.stream(["r"], bench.now_ms + after_ms)
    bench.end("r")
    bench.run_to(bench.now_ms + 1500)
    assert bench.charge("gone").status is Status.UNAVAILABLE
    assert bench.charge("gone").energy_uj is None
    balance = bench.meter.balance
    assert balance.conserved
    charge = bench.charge("r")
    assert (charge.energy_uj or 0) == balance.requests_uj
    assert charge.status is (Status.UNAVAILABLE if charge.energy_uj is None else Status.MIXED)
    assert charge.devices == ("GPU-0",)


def test_tokens_of_before_weigh_nothing():
    """Who has streamed for a minute when the counter comes pays no more than who begins then."""
    bench = Late().run_to(100)
    bench.begin("old", input_tokens=1)
    bench.stream(["old"], 60_000)
    bench.come().run_to(60_400)
    bench.begin("new", input_tokens=1)
    bench.stream(["old", "new"], 62_000)
    bench.end("old", 2464)
    bench.end("new", 64)
    bench.run_to(64_000)
    old_uj, new_uj = bench.charge("old").energy_uj, bench.charge("new").energy_uj
    assert new_uj < old_uj < 2 * new_uj
    assert bench.meter.balance.conserved


def test_pools_are_found_among_its_boards():
    """Each rank's requests pay for that rank's board."""
    bench = Late(2, "0=GPU-0;1=GPU-1").run_to(100).come().run_to(1000)
    bench.power_w = [100, 300]
    for rank in (0, 1):
        bench.begin(f"r{rank}", rank=rank)
    bench.stream(["r0", "r1"], 3000)
    for rank in (0, 1):
        bench.end(f"r{rank}")
    bench.run_to(5000)
    assert [bench.charge(f"r{rank}").devices for rank in (0, 1)] == [("GPU-0",), ("GPU-1",)]
    assert bench.charge("r1").energy_uj > 2 * bench.charge("r0").energy_uj
