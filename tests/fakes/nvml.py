"""NVML without a driver: stands in for the module pynvml, with its own error classes, constants and structures."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml


@dataclass
class FakeBoard:
    """One board. Each look at its counter moves it by `step_mj`; `fails` maps function names to NVML error codes."""

    uuid: str
    name: str = "NVIDIA H200"
    energy_mj: int = 35_000_000
    step_mj: int = 13_000
    power_mw: int | None = 127_000  # None: the board has no field 186
    average_mw: int = 128_000
    mig: bool | None = False  # None: a board that knows no MIG
    c2c: bool = False
    pids: tuple[int, ...] = ()
    temperature_c: int = 41
    clocks_mhz: dict[int, int] = field(default_factory=lambda: {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 3201})
    clock_reasons: int = 0
    fails: dict[str, int] = field(default_factory=dict)


class FakeNvml:
    """The functions that perjoule calls, as pynvml has them. `opened` counts nvmlInit less nvmlShutdown."""

    def __init__(self, *boards: FakeBoard, init_error: int | None = None) -> None:
        self.boards = boards
        self.init_error = init_error
        self.opened = 0

    def __getattr__(self, name: str) -> Any:
        """Whatever is not faked (errors, constants, structures) is pynvml's own; its functions would need a driver."""
        if name.startswith(("NVML", "c_nvml")):
            return getattr(pynvml, name)
        raise AttributeError(f"the fake NVML has no {name}")

    def nvmlInit(self) -> None:
        if self.init_error is not None:
            raise pynvml.NVMLError(self.init_error)
        self.opened += 1

    def nvmlShutdown(self) -> None:
        self._check(None, "nvmlShutdown")
        self.opened -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        self._check(None, "nvmlSystemGetDriverVersion")
        return "580.159"

    def nvmlDeviceGetCount(self) -> int:
        self._check(None, "nvmlDeviceGetCount")
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeBoard:
        self._check(None, "nvmlDeviceGetHandleByIndex")
        if not 0 <= index < len(self.boards):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return self._check(self.boards[index], "nvmlDeviceGetHandleByIndex")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> FakeBoard:
        self._check(None, "nvmlDeviceGetHandleByUUID")
        for board in self.boards:
            if board.uuid == uuid:
                return self._check(board, "nvmlDeviceGetHandleByUUID")
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetUUID(self, board: FakeBoard) -> str:
        return self._check(board, "nvmlDeviceGetUUID").uuid

    def nvmlDeviceGetName(self, board: FakeBoard) -> str:
        return self._check(board, "nvmlDeviceGetName").name

    def nvmlDeviceGetMigMode(self, board: FakeBoard) -> list[int]:
        if self._check(board, "nvmlDeviceGetMigMode").mig is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(bool(board.mig)), int(bool(board.mig))]

    def nvmlDeviceGetC2cModeInfoV(self, board: FakeBoard) -> Any:
        self._check(board, "nvmlDeviceGetC2cModeInfoV")
        if not board.c2c:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(isC2cEnabled=1)

    def nvmlDeviceGetTotalEnergyConsumption(self, board: FakeBoard) -> int:
        self._check(board, "nvmlDeviceGetTotalEnergyConsumption").energy_mj += board.step_mj
        return board.energy_mj

    def nvmlDeviceGetPowerUsage(self, board: FakeBoard) -> int:
        return self._check(board, "nvmlDeviceGetPowerUsage").average_mw

    def nvmlDeviceGetEnforcedPowerLimit(self, board: FakeBoard) -> int:
        self._check(board, "nvmlDeviceGetEnforcedPowerLimit")
        return 700_000

    def nvmlDeviceGetComputeRunningProcesses(self, board: FakeBoard) -> list[Any]:
        return [SimpleNamespace(pid=pid) for pid in self._check(board, "nvmlDeviceGetComputeRunningProcesses").pids]

    def nvmlDeviceGetTemperature(self, board: FakeBoard, sensor: int) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return self._check(board, "nvmlDeviceGetTemperature").temperature_c

    def nvmlDeviceGetClockInfo(self, board: FakeBoard, clock: int) -> int:
        return self._check(board, "nvmlDeviceGetClockInfo").clocks_mhz[clock]

    def nvmlDeviceGetCurrentClocksEventReasons(self, board: FakeBoard) -> int:
        return self._check(board, "nvmlDeviceGetCurrentClocksEventReasons").clock_reasons

    def nvmlDeviceGetFieldValues(self, board: FakeBoard, fields: list[tuple[int, int]]) -> Any:
        self._check(board, "nvmlDeviceGetFieldValues")
        values = (pynvml.c_nvmlFieldValue_t * len(fields))()
        for value, (field_id, scope) in zip(values, fields, strict=True):
            value.fieldId, value.scopeId = field_id, scope
            if field_id == pynvml.NVML_FI_DEV_POWER_INSTANT and board.power_mw is not None:
                value.value.uiVal = board.power_mw
            else:
                value.nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED
        return values

    def _check(self, board: FakeBoard | None, function: str) -> Any:
        if not self.opened:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        if board and function in board.fails:
            raise pynvml.NVMLError(board.fails[function])
        return board
