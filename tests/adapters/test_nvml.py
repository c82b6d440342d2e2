"""NVML: millijoules become microjoules, boards are named whole, what cannot be measured is refused with a reason."""

import pynvml
import pytest

from perjoule.adapters.nvml import NvmlCounter
from perjoule.sidecar.ports import Condition, CounterError, UnavailableError
from perjoule.sidecar.record import Status
from tests.fakes.nvml import FakeBoard, FakeNvml


def test_reads_microjoules_and_milliwatts() -> None:
    """The counter's millijoules times a thousand, and field 186 as it is."""
    counter = NvmlCounter("all", FakeNvml(FakeBoard("GPU-a", energy_mj=1_000, step_mj=0, power_mw=127_345)))
    (reading,) = counter.read()
    assert (reading.energy_uj, reading.power_mw) == (1_000_000, 127_345)
    assert (counter.status, counter.boundary) == (Status.MEASURED, "gpu-board")


@pytest.mark.parametrize("board", [
    FakeBoard("GPU-a", power_mw=None),
    FakeBoard("GPU-a", fails={"nvmlDeviceGetFieldValues": pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}),
])
def test_no_instant_power_is_none(board: FakeBoard) -> None:
    """A board without field 186 has no power, and never the average under another name."""
    assert NvmlCounter("all", FakeNvml(board)).read()[0].power_mw is None


def test_named_boards_in_the_order_named() -> None:
    """`gpus` picks and orders; a board named twice counts once."""
    nvml = FakeNvml(FakeBoard("GPU-a", energy_mj=1), FakeBoard("GPU-b", energy_mj=2), FakeBoard("GPU-c", energy_mj=3))
    counter = NvmlCounter("GPU-c, GPU-a,GPU-c", nvml)
    assert [device.uuid for device in counter.devices] == ["GPU-c", "GPU-a"]
    assert counter.read()[0].energy_uj % 13_000_000 == 3_000


@pytest.mark.parametrize(("gpus", "said"), [
    ("GPU-x", ["GPU-x", "GPU-a, GPU-b"]),
    ("GPU-", ["'GPU-'", "GPU-a, GPU-b"]),
    ("", ["''", "GPU-a, GPU-b"]),
    ("MIG-a", ["MIG-a", "MIG", "whole board"]),
])
def test_unknown_uuid_is_refused(gpus: str, said: list[str]) -> None:
    """A UUID that is not there (a prefix is not one) is refused, with those that are."""
    nvml = FakeNvml(FakeBoard("GPU-a"), FakeBoard("GPU-b"))
    with pytest.raises(UnavailableError) as caught:
        NvmlCounter(gpus, nvml)
    assert all(text in str(caught.value) for text in said)
    assert nvml.opened == 0


@pytest.mark.parametrize(("nvml", "said"), [
    (FakeNvml(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND), "NVML Shared Library Not Found"),
    (FakeNvml(init_error=pynvml.NVML_ERROR_DRIVER_NOT_LOADED), "Driver Not Loaded"),
    (FakeNvml(), "no board"),
    (FakeNvml(FakeBoard("GPU-a"), FakeBoard("GPU-m", mig=True)), "GPU-m is split by MIG"),
    (FakeNvml(FakeBoard("GPU-old", fails={"nvmlDeviceGetTotalEnergyConsumption": pynvml.NVML_ERROR_NOT_SUPPORTED})),
     "GPU-old has no energy counter: Not Supported"),
    (FakeNvml(FakeBoard("GPU-a", fails={"nvmlDeviceGetHandleByIndex": pynvml.NVML_ERROR_GPU_IS_LOST})), "GPU is lost"),
])
def test_what_cannot_be_measured_is_refused(nvml: FakeNvml, said: str) -> None:
    """No driver, no board, MIG, no counter, a dead board: a reason for a person, and NVML is let go."""
    with pytest.raises(UnavailableError, match=said):
        NvmlCounter("all", nvml)
    assert nvml.opened == 0


def test_a_board_that_knows_no_mig_is_fine() -> None:
    """NVML says Not Supported for MIG mode on most boards; that is no reason to refuse."""
    assert NvmlCounter("all", FakeNvml(FakeBoard("GPU-a", mig=None))).devices[0].uuid == "GPU-a"


def test_grace_hopper_says_module() -> None:
    """Where CPU and GPU share a counter the boundary says so."""
    assert NvmlCounter("all", FakeNvml(FakeBoard("GPU-g", c2c=True))).boundary == "gpu-module"


def test_a_read_that_fails_names_the_board() -> None:
    """An NVML error while running is a CounterError with board and reason, and the next read may work."""
    board = FakeBoard("GPU-a")
    counter = NvmlCounter("all", FakeNvml(board))
    board.fails["nvmlDeviceGetTotalEnergyConsumption"] = pynvml.NVML_ERROR_GPU_IS_LOST
    with pytest.raises(CounterError, match="GPU-a: GPU is lost"):
        counter.read()
    board.fails.clear()
    assert counter.read()


def test_close_lets_go_and_may_be_called_twice() -> None:
    """After close NVML is shut down; a second close is harmless."""
    nvml = FakeNvml(FakeBoard("GPU-a"))
    counter = NvmlCounter("all", nvml)
    counter.close()
    counter.close()
    assert nvml.opened == 0


def test_facts_for_the_probe() -> None:
    """Driver, limit and processes where NVML tells them, nothing where it does not."""
    board = FakeBoard("GPU-a", pids=(7, 8))
    counter = NvmlCounter("all", FakeNvml(board))
    assert counter.about(0) == {"MIG": "off", "driver": "580.159", "power limit": "700 W", "processes": "7, 8"}
    board.fails = dict.fromkeys(["nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetPowerUsage"],
                                pynvml.NVML_ERROR_NO_PERMISSION)
    assert "processes" not in counter.about(0)
    assert (counter.processes(0), counter.average_mw(0)) == (None, None)


def test_the_fake_raises_what_pynvml_raises() -> None:
    """The fake's errors are pynvml's own classes, so a handler that works on one works on the other."""
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        FakeNvml().nvmlDeviceGetCount()
    with pytest.raises(pynvml.NVMLError_LibraryNotFound):
        FakeNvml(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND).nvmlInit()


def test_the_power_cap_is_part_of_the_board() -> None:
    """In watts where NVML tells it, None where it does not."""
    asked = ("nvmlDeviceGetTemperature", "nvmlDeviceGetClockInfo", "nvmlDeviceGetCurrentClocksEventReasons")
    silent = FakeBoard("GPU-b", fails=dict.fromkeys(asked, pynvml.NVML_ERROR_NOT_SUPPORTED))
    counter = NvmlCounter(nvml=FakeNvml(FakeBoard("GPU-a", clock_reasons=0x4 | 0x40), silent))
    hot, unknown = counter.conditions()
    assert hot == Condition("GPU-a", 41, 1980, 3201, ("sw_power_cap", "hw_thermal_slowdown"), "580.159")
    assert unknown == Condition("GPU-b", driver_version="580.159")


def test_power_is_looked_at_when_the_counter_has_changed() -> None:
    """And not between: a call into the driver costs the host a part of a core."""
    board = FakeBoard("GPU-a", step_mj=0, power_mw=300_000)
    counter = NvmlCounter(nvml=FakeNvml(board))
    assert counter.read()[0].power_mw == 300_000
    board.power_mw = 500_000
    assert counter.read()[0].power_mw is None
    board.energy_mj += 40_000
    assert counter.read()[0].power_mw == 500_000
