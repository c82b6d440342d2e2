"""Zeus: boards first, the chip and CPUs only where there are none, and nothing invented."""

import subprocess
import sys

import pytest

from perjoule.adapters.zeus import ZeusCounter
from perjoule.sidecar.ports import CounterError, UnavailableError
from perjoule.sidecar.record import Status
from tests.fakes.zeus import FakeCpu, FakeGpu, FakeSoc, FakeZeus


def test_boards_come_before_cpus() -> None:
    """With boards there, CPUs are not read; millijoules become microjoules, a missing power None."""
    counter = ZeusCounter("all", FakeZeus(gpus=[FakeGpu(0), FakeGpu(1, instant=False)], cpus=[FakeCpu(0)]))
    assert (counter.boundary, counter.status) == ("gpu-board", Status.MEASURED)
    assert [(r.energy_uj, r.power_mw) for r in counter.read()] == [(1_050_000, 140_000), (1_050_000, None)]


def test_cpu_packages_with_their_memory() -> None:
    """Without boards a package and its DRAM add up, and the boundary says that both are in."""
    counter = ZeusCounter("all", FakeZeus(cpus=[FakeCpu(0)]))
    assert (counter.boundary, counter.status) == ("cpu-package+dram", Status.MEASURED)
    assert counter.read()[0].energy_uj == 610_750
    assert ZeusCounter("all", FakeZeus(cpus=[FakeCpu(0, dram=False)])).boundary == "cpu-package"


def test_a_chip_is_an_estimate() -> None:
    """Apple's parts add up without counting a core inside its cluster twice, and are called estimated."""
    soc = FakeSoc(cpu_total_mj=3, gpu_mj=12, dram_mj=None, efficiency_cores_mj=[1, 1])
    counter = ZeusCounter("all", FakeZeus(soc=soc))
    assert (counter.boundary, counter.status) == ("soc", Status.ESTIMATED)
    assert counter.read()[0].energy_uj == 15_000


def test_a_chip_that_shows_nothing_is_an_error() -> None:
    """No known part is not 0 J."""
    with pytest.raises(CounterError, match="no energy"):
        ZeusCounter("all", FakeZeus(soc=FakeSoc(gpu_mj=None))).read()


@pytest.mark.parametrize(("zeus", "said"), [
    (FakeZeus(), "No observable SoC.*RAPL unavailable"),
    (FakeZeus(cpus=[]), "no CPU package"),
    (FakeZeus(gpus=[]), "no board"),
    (FakeZeus(gpus=[FakeGpu(0, counter=False)], cpus=[FakeCpu(0)]), "gpu-0 has none"),
])
def test_no_counter_is_refused(zeus: FakeZeus, said: str) -> None:
    """Nothing there, or a board without a counter (its CPU is no substitute): a reason."""
    with pytest.raises(UnavailableError, match=said):
        ZeusCounter("all", zeus)


def test_named_devices() -> None:
    """`gpus` picks, orders and counts once; an unknown name is refused with those that are there."""
    zeus = FakeZeus(gpus=[FakeGpu(0), FakeGpu(1)])
    assert [device.uuid for device in ZeusCounter("gpu-1,gpu-0, gpu-1", zeus).devices] == ["gpu-1", "gpu-0"]
    with pytest.raises(UnavailableError, match="'gpu-7'; there is gpu-0, gpu-1"):
        ZeusCounter("gpu-7", zeus)


def test_zeus_is_imported_only_when_opened() -> None:
    """Importing the adapter does not import Zeus, which takes a second."""
    code = "import sys, perjoule.adapters.zeus; sys.exit('zeus' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
