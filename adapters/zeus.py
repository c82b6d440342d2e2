"""Energy counters of devices that NVML does not know, through Zeus's device layer: AMD, Apple, Jetson, CPUs with RAPL.

Zeus is an extra (`pip install 'perjoule[zeus]'`) and takes a second and tens of megabytes to import, so it is imported
only when such a counter is opened. GPUs come first; where there are none the system on a chip, then the CPU packages.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from perjoule.sidecar.metering.pools import each_once
from perjoule.sidecar.ports import CounterError, Device, Reading, UnavailableError
from perjoule.sidecar.record import Status
from perjoule.sidecar.units import NS_PER_MS, UJ_PER_MJ

APPLE_PARTS = ("cpu_total_mj", "gpu_mj", "gpu_sram_mj", "dram_mj", "ane_mj")  # disjoint; all other fields are in these


@dataclass(frozen=True, slots=True)
class Source:
    """One device as Zeus reads it: a counter in millijoules, and the instant power in milliwatts where there is one."""

    device: Device
    energy_mj: Callable[[], float]
    power_mw: Callable[[], int] | None = None


class ZeusCounter:
    """One group of devices of one kind; `boundary` says which kind, and chips that only estimate say so in `status`."""

    name = "zeus"
    period_ns = 100 * NS_PER_MS
    wrap_uj = None  # Zeus carries RAPL's counters on when they wrap

    def __init__(self, gpus: str = "all", zeus: Any = None) -> None:
        """`gpus` is `all` or UUIDs with commas between; `zeus` is the module zeus.device. Raises UnavailableError."""
        zeus = zeus or _imported()
        there_are_boards = zeus.gpu.nvml_is_available() or zeus.gpu.amdsmi_is_available()
        reasons = []
        for find in (_boards,) if there_are_boards else (_chip, _packages):
            try:
                self.boundary, self.status, found = find(zeus)
            except Exception as error:  # Zeus has an error class for each kind of device, and lets others through
                reasons.append(str(error))
                continue
            self._sources = found if gpus == "all" else _named(gpus, found)
            self.devices = tuple(source.device for source in self._sources)
            return
        raise UnavailableError(f"zeus: no energy counter: {'; '.join(reasons)}")

    def read(self) -> tuple[Reading, ...]:
        """Every device's counter and instant power, one after another. Raises CounterError."""
        return tuple(_read(source) for source in self._sources)

    def close(self) -> None:
        """Nothing: Zeus's device layer lives as long as the process."""


def _imported() -> Any:
    try:
        import zeus.device
    except ImportError as error:
        raise UnavailableError(f"zeus: not installed ({error}): pip install 'perjoule[zeus]'") from error
    return zeus.device


def _named(gpus: str, found: Sequence[Source]) -> list[Source]:
    there = {source.device.uuid: source for source in found}
    named = each_once(gpus)
    for uuid in named:
        if uuid not in there:
            raise UnavailableError(f"zeus: no device {uuid!r}; there is {', '.join(there)}")
    return [there[uuid] for uuid in named]


def _read(source: Source) -> Reading:
    before = time.monotonic_ns()
    try:
        millijoules = source.energy_mj()
        after = time.monotonic_ns()
        return Reading(before, after, round(millijoules * UJ_PER_MJ), source.power_mw() if source.power_mw else None)
    except Exception as error:  # whatever the vendor's library raises
        raise CounterError(f"zeus: {source.device.uuid}: {error!r}") from error


def _boards(zeus: Any) -> tuple[str, Status, list[Source]]:
    found: list[Source] = []
    for gpu in zeus.get_gpus().gpus:
        uuid = _uuid(gpu)
        if not gpu.supports_get_total_energy_consumption():
            raise LookupError(f"{uuid} has none, or one that Zeus found to be wrong")
        power = None
        with suppress(Exception):  # not every board has an instant power
            gpu.get_instant_power_usage()
            power = gpu.get_instant_power_usage
        found.append(Source(Device(uuid, gpu.get_name()), gpu.get_total_energy_consumption, power))
    if not found:
        raise LookupError("there is a GPU driver, but no board")
    return "gpu-board", Status.MEASURED, found


def _uuid(gpu: Any) -> str:
    """Zeus numbers boards and names none, so the vendor's library is asked by the handle that Zeus holds."""
    vendor = type(gpu).__module__
    if vendor == "zeus.device.gpu.nvidia":
        pynvml = import_module("pynvml")
        uuid = str(pynvml.nvmlDeviceGetUUID(gpu.handle))
        with suppress(pynvml.NVMLError):  # boards without MIG say Not Supported
            if pynvml.nvmlDeviceGetMigMode(gpu.handle)[0]:
                raise LookupError(f"{uuid} is split by MIG, and its counter sees the whole board, not a slice")
        return uuid
    if vendor == "zeus.device.gpu.amd":
        return str(import_module("amdsmi").amdsmi_get_gpu_device_uuid(gpu.handle))
    return f"gpu-{gpu.gpu_index}"


def _chip(zeus: Any) -> tuple[str, Status, list[Source]]:
    soc = zeus.get_soc()

    def energy_mj() -> float:
        shown = soc.get_total_energy_consumption()
        parts = [getattr(shown, part, None) for part in ("total_energy_mj", *APPLE_PARTS)]  # Jetson has a total
        known = [float(part) for part in parts if part is not None]
        if not known:
            raise LookupError(f"no energy in {shown}")
        return sum(known)

    return "soc", Status.ESTIMATED, [Source(Device("soc-0", type(soc).__name__), energy_mj)]


def _packages(zeus: Any) -> tuple[str, Status, list[Source]]:
    cpus = zeus.get_cpus().cpus
    if not cpus:
        raise LookupError("RAPL shows no CPU package")
    dram = all(cpu.supports_get_dram_energy_consumption() for cpu in cpus)

    def source(cpu: Any) -> Source:
        def energy_mj() -> float:
            shown = cpu.get_total_energy_consumption()
            return float(shown.cpu_mj + shown.dram_mj if dram else shown.cpu_mj)

        return Source(Device(f"cpu-package-{cpu.cpu_index}", f"CPU package {cpu.cpu_index}"), energy_mj)

    return "cpu-package+dram" if dram else "cpu-package", Status.MEASURED, [source(cpu) for cpu in cpus]
