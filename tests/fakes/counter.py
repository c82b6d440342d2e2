"""What every energy counter promises, as one check that runs on fakes and on real hardware alike."""

import time
from itertools import pairwise

from perjoule.sidecar.ports import EnergyCounter, Reading
from perjoule.sidecar.record import Status


def check_contract(counter: EnergyCounter, reads: int = 20, pause_s: float = 0.01, *, held: bool = False) -> list[tuple[Reading, ...]]:
    """Read some times and hold every promise of the port against what came; returns the readings. One that is `held` was looked at
    elsewhere, or before, and may come again as it is."""
    assert counter.name
    assert counter.boundary
    assert counter.status in (Status.MEASURED, Status.ESTIMATED, Status.SIMULATED)
    assert counter.devices
    assert len({device.uuid for device in counter.devices}) == len(counter.devices)
    assert counter.period_ns > 0
    assert counter.wrap_uj is None or counter.wrap_uj > 0
    rows = []
    for _ in range(reads):
        begin_ns = time.monotonic_ns()
        rows.append(counter.read())
        end_ns = time.monotonic_ns()
        assert len(rows[-1]) == len(counter.devices)
        for reading in rows[-1]:
            assert (0 if held else begin_ns) <= reading.t_before_ns <= reading.t_after_ns <= end_ns
            assert type(reading.energy_uj) is int
            assert reading.energy_uj >= 0
            assert reading.power_mw is None or (type(reading.power_mw) is int and 0 <= reading.power_mw < 10_000_000)
        time.sleep(pause_s)
    for earlier, later in pairwise(rows):
        for one, other in zip(earlier, later, strict=True):
            assert other.t_before_ns >= one.t_after_ns or (held and other == one)
            assert other.energy_uj >= one.energy_uj
    return rows
