"""The energy counters of NVIDIA boards, read through NVML: the source that `--energy auto` tries first.

NVML counts millijoules since the driver was loaded, for a whole board, on Volta and later. A call blocks for 3 to 20 ms
on an H200, so this is for the sampler's thread. NVML ignores CUDA_VISIBLE_DEVICES: `all` is every board of the machine,
and an engine on some of them needs their UUIDs named (`nvidia-smi -L`).
"""

import time
from contextlib import suppress
from typing import Any

import pynvml

from perjoule.sidecar.metering.pools import each_once
from perjoule.sidecar.ports import Condition, CounterError, Device, Reading, UnavailableError
from perjoule.sidecar.record import Status
from perjoule.sidecar.units import NS_PER_MS, UJ_PER_MJ

HELD_BACK_BY = {0x1: "gpu_idle", 0x2: "applications_clocks_setting", 0x4: "sw_power_cap", 0x8: "hw_slowdown", 0x10: "sync_boost",
                0x20: "sw_thermal_slowdown", 0x40: "hw_thermal_slowdown", 0x80: "hw_power_brake_slowdown",
                0x100: "display_clock_setting"}  # nvml.h, nvmlClocksEventReasons
MIG_REASON = "is split by MIG, which is not supported: the counter sees the whole board, not a slice"


class NvmlCounter:
    """One group of NVIDIA boards: all of them, in NVML's order, or those named, in the order given."""

    name = "nvml"
    status = Status.MEASURED
    period_ns = 100 * NS_PER_MS
    wrap_uj = None

    def __init__(self, gpus: str = "all", nvml: Any = pynvml) -> None:
        """`gpus` is `all` or whole UUIDs with commas between. Raises UnavailableError."""
        self._nvml = nvml
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            raise UnavailableError(f"nvml: no NVIDIA driver answers: {error}") from error
        try:
            self._handles = self._named(gpus) if gpus != "all" else self._all()
            self.devices = tuple(self._checked(handle) for handle in self._handles)
            modules = [self._is_module(handle) for handle in self._handles]
        except BaseException:
            self.close()
            raise
        self.boundary = "gpu-module" if any(modules) else "gpu-board"
        scopes = [nvml.NVML_POWER_SCOPE_MODULE if module else nvml.NVML_POWER_SCOPE_GPU for module in modules]
        self._instant = [(nvml.NVML_FI_DEV_POWER_INSTANT, scope) for scope in scopes]
        self._last: dict[int, int] = {}  # what each board's counter was

    def read(self) -> tuple[Reading, ...]:
        """Every board's counter, one after another, and its instant power where the counter has changed: each call takes an H200's host
        some 2 ms of a core. Raises CounterError."""
        return tuple(self._read(index) for index in range(len(self._handles)))

    def instant_mw(self, index: int) -> int | None:
        """A board's instant power (field 186), None where it has none; never NVML's power usage, a mean of 1 s."""
        try:
            field = self._nvml.nvmlDeviceGetFieldValues(self._handles[index], [self._instant[index]])[0]
        except self._nvml.NVMLError:
            return None
        return int(field.value.uiVal) if field.nvmlReturn == self._nvml.NVML_SUCCESS else None

    def average_mw(self, index: int) -> int | None:
        """NVML's power usage: on Ampere and later the mean of the last second. For `perjoule probe` only."""
        with suppress(self._nvml.NVMLError):
            return int(self._nvml.nvmlDeviceGetPowerUsage(self._handles[index]))
        return None

    def processes(self, index: int) -> list[int] | None:
        """The process ids that compute on a board, None where NVML does not say."""
        with suppress(self._nvml.NVMLError):
            found = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handles[index])
            return [int(process.pid) for process in found]
        return None

    def computing(self) -> dict[str, int]:
        """How many processes compute on each board, by UUID; without those of which NVML does not say. Blocks."""
        found = ((device.uuid, self.processes(index)) for index, device in enumerate(self.devices))
        return {uuid: len(pids) for uuid, pids in found if pids is not None}

    def conditions(self) -> tuple[Condition, ...]:
        """How every board is now. Blocks, for some milliseconds each."""
        return tuple(self._condition(index) for index in range(len(self._handles)))

    def _condition(self, index: int) -> Condition:
        nvml, handle = self._nvml, self._handles[index]
        reasons = self._told(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
        driver = self._told(nvml.nvmlSystemGetDriverVersion)
        return Condition(
            self.devices[index].uuid, temperature_c=self._told(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            sm_clock_mhz=self._told(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
            memory_clock_mhz=self._told(nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
            held_back_by=None if reasons is None else tuple(name for bit, name in HELD_BACK_BY.items() if reasons & bit),
            driver_version=None if driver is None else str(driver))

    def _told(self, ask: Any, *of: Any) -> Any:
        """What NVML answers, None where it does not."""
        with suppress(self._nvml.NVMLError):
            return ask(*of)
        return None

    def about(self, index: int) -> dict[str, str]:
        """What a person wants to know about a board, without what NVML does not tell. For `perjoule probe` only."""
        nvml, facts = self._nvml, {"MIG": "off"}
        with suppress(nvml.NVMLError):
            facts["driver"] = str(nvml.nvmlSystemGetDriverVersion())
        limit_w = self.devices[index].power_limit_w
        if limit_w is not None:
            facts["power limit"] = f"{limit_w} W"
        pids = self.processes(index)
        if pids is not None:
            facts["processes"] = ", ".join(map(str, pids)) or "none"
        return facts

    def close(self) -> None:
        """Let go of NVML."""
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def _read(self, index: int) -> Reading:
        before = time.monotonic_ns()
        try:
            millijoules = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handles[index])
        except self._nvml.NVMLError as error:
            raise CounterError(f"nvml: {self.devices[index].uuid}: {error}") from error
        after, changed = time.monotonic_ns(), self._last.get(index) != millijoules
        self._last[index] = millijoules
        return Reading(before, after, millijoules * UJ_PER_MJ, self.instant_mw(index) if changed else None)

    def _all(self) -> list[Any]:
        try:
            handles = [self._nvml.nvmlDeviceGetHandleByIndex(i) for i in range(self._nvml.nvmlDeviceGetCount())]
        except self._nvml.NVMLError as error:
            raise UnavailableError(f"nvml: a board cannot be opened: {error}; name those that can by UUID") from error
        if not handles:
            raise UnavailableError("nvml: the driver answers, but there is no board")
        return handles

    def _named(self, gpus: str) -> list[Any]:
        handles = []
        for uuid in each_once(gpus):
            if uuid.startswith("MIG-"):
                raise UnavailableError(f"nvml: {uuid} {MIG_REASON}")
            try:
                handles.append(self._nvml.nvmlDeviceGetHandleByUUID(uuid))
            except self._nvml.NVMLError as error:
                there = ", ".join(self._nvml.nvmlDeviceGetUUID(handle) for handle in self._all())
                raise UnavailableError(f"nvml: no board {uuid!r} ({error}); there is {there}") from error
        return handles

    def _checked(self, handle: Any) -> Device:
        """The board behind a handle, if its counter can be used."""
        nvml, uuid = self._nvml, ""
        try:
            uuid = str(nvml.nvmlDeviceGetUUID(handle))
            device = Device(uuid, str(nvml.nvmlDeviceGetName(handle)), self._power_limit_w(handle))
            nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except nvml.NVMLError as error:
            raise UnavailableError(f"nvml: {uuid or 'a board'} has no energy counter: {error}") from error
        with suppress(nvml.NVMLError):  # boards without MIG say Not Supported
            if nvml.nvmlDeviceGetMigMode(handle)[0]:
                raise UnavailableError(f"nvml: {uuid} {MIG_REASON}")
        return device

    def _power_limit_w(self, handle: Any) -> int | None:
        """The power cap, None where NVML does not say."""
        with suppress(self._nvml.NVMLError):
            return int(self._nvml.nvmlDeviceGetEnforcedPowerLimit(handle)) // 1000
        return None

    def _is_module(self, handle: Any) -> bool:
        """On Grace-Hopper the counter covers CPU and GPU together (Zeus PR #172)."""
        with suppress(self._nvml.NVMLError):
            return bool(self._nvml.nvmlDeviceGetC2cModeInfoV(handle).isC2cEnabled)
        return False
