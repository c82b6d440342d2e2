"""Zeus's device layer without devices: stands in for the module zeus.device, with what perjoule asks of it."""

from types import SimpleNamespace
from typing import Any


class ZeusInitError(Exception):
    """What get_gpus, get_soc and get_cpus raise where there is nothing (Zeus has a class for each)."""


class FakeGpu:
    """One AMD-like board: a counter in millijoules that moves with each look."""

    def __init__(self, index: int, *, counter: bool = True, instant: bool = True) -> None:
        self.gpu_index = index
        self.energy_mj = 1_000
        self._counter = counter
        self._instant = instant

    def get_name(self) -> str:
        return "AMD Instinct MI300X"

    def supports_get_total_energy_consumption(self) -> bool:
        return self._counter

    def get_total_energy_consumption(self) -> int:
        self.energy_mj += 50
        return self.energy_mj

    def get_instant_power_usage(self) -> int:
        if not self._instant:
            raise RuntimeError("Instant power usage is not supported on this AMD GPU.")
        return 140_000


class FakeCpu:
    """One package with RAPL, with or without DRAM."""

    def __init__(self, index: int, *, dram: bool = True) -> None:
        self.cpu_index = index
        self.cpu_mj = 500.25
        self._dram = dram

    def supports_get_dram_energy_consumption(self) -> bool:
        return self._dram

    def get_total_energy_consumption(self) -> Any:
        self.cpu_mj += 10.5
        return SimpleNamespace(cpu_mj=self.cpu_mj, dram_mj=100.0 if self._dram else None)


class FakeSoc:
    """A chip whose measurement is whatever fields it is given."""

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def get_total_energy_consumption(self) -> Any:
        return SimpleNamespace(**self._fields)


class FakeZeus:
    """zeus.device on a machine with these devices; None is what Zeus cannot find."""

    def __init__(self, gpus: list[FakeGpu] | None = None, soc: FakeSoc | None = None,
                 cpus: list[FakeCpu] | None = None) -> None:
        self._gpus, self._soc, self._cpus = gpus, soc, cpus
        self.gpu = SimpleNamespace(nvml_is_available=lambda: False, amdsmi_is_available=lambda: gpus is not None)

    def get_gpus(self) -> Any:
        if self._gpus is None:
            raise ZeusInitError("NVML and AMDSMI unavailable.")
        return SimpleNamespace(gpus=self._gpus)

    def get_soc(self) -> Any:
        if self._soc is None:
            raise ZeusInitError("No observable SoC was found on the current machine.")
        return self._soc

    def get_cpus(self) -> Any:
        if self._cpus is None:
            raise ZeusInitError("RAPL unavailable.")
        return SimpleNamespace(cpus=self._cpus)
