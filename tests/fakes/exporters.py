"""Pages as those who publish counters make them: dcgm-exporter 4, Triton 2.5x, zeusd 0.5, trtllm-serve 1.2, with counters that move."""

import json
import time
from collections.abc import Callable

UUIDS = ("GPU-6d5c0ac5-74d7-3130-46f1-e93ed57f469a", "GPU-1f027ee8-6e1e-2b8c-0108-3d370e5f0418")


def ticking(power_w: float = 300.0, every_s: float = 0.05) -> Callable[[], float]:
    """Joules of a board, which come in steps as an exporter shows them."""
    return lambda: 1000.0 + power_w * every_s * (time.monotonic_ns() // round(every_s * 1e9) % 1_000_000)


def dcgm(joules: Callable[[], float], uuids: tuple[str, ...] = UUIDS, more: str = "") -> Callable[[], bytes]:
    """dcgm-exporter's page, as the ones that people have posted: other fields around, HELP and TYPE, millijoules."""
    def page() -> bytes:
        rows = []
        for field, kind, text, shown in (
                ("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W).", "68.244000"),
                ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter", "Total energy consumption since boot (in mJ).",
                 f"{joules() * 1000:.0f}"),
                ("DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization (in %).", "99")):
            rows += [f"# HELP {field} {text}", f"# TYPE {field} {kind}"]
            rows += [f'{field}{{gpu="{gpu}",UUID="{uuid}",pci_bus_id="00000000:37:00.0",device="nvidia{gpu}",modelName="NVIDIA H200",'
                     f'Hostname="node-1",DCGM_FI_DRIVER_VERSION="580.95.05"{more}}} {shown}' for gpu, uuid in enumerate(uuids)]
        return "\n".join([*rows, ""]).encode()
    return page


def triton(joules: Callable[[], float]) -> Callable[[], bytes]:
    """Triton's page: joules since the server started."""
    def page() -> bytes:
        rows = ["# HELP nv_energy_consumption GPU energy consumption in joules since the Triton Server started",
                "# TYPE nv_energy_consumption counter",
                *(f'nv_energy_consumption{{gpu_uuid="{uuid}"}} {joules():.6f}' for uuid in UUIDS),
                "# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)", "# TYPE nv_gpu_utilization gauge",
                *(f'nv_gpu_utilization{{gpu_uuid="{uuid}"}} 0.000000' for uuid in UUIDS)]
        return "\n".join([*rows, ""]).encode()
    return page


def trtllm(joules: Callable[[], float]) -> dict[str, Callable[[], bytes]]:
    """trtllm-serve with `enable_energy_metrics`."""
    return {"/energy_metrics": lambda: json.dumps({"total_energy_j": round(joules(), 4), "query_time": time.perf_counter()}).encode()}


def zeusd(joules: Callable[[], float], *, boards: int = 2, packages: int = 0, memory: bool = True) -> dict[str, Callable[[], bytes]]:
    """The Zeus daemon with what it may read."""
    def discover() -> bytes:
        return json.dumps({
            "gpus": [{"id": n, "name": "NVIDIA A40", "pci_address": f"0000:{n + 1:02}:00.0", "cumulative_energy_available": True}
                     for n in range(boards)],
            "cpus": [{"id": n, "dram_available": memory} for n in range(packages)],
            "enabled_api_groups": ["gpu-read", "cpu-read"], "auth_required": False}).encode()

    def energy() -> bytes:
        return json.dumps({str(n): {"energy_mj": round(joules() * 1000)} for n in range(boards)}).encode()

    def cpu() -> bytes:
        return json.dumps({str(n): {"cpu_energy_uj": round(joules() * 1e6), "dram_energy_uj": 500 if memory else None}
                           for n in range(packages)}).encode()

    numbers = ",".join(map(str, range(packages)))
    return {"/discover": discover, "/gpu/get_cumulative_energy?gpu_ids=" + ",".join(map(str, range(boards))): energy,
            f"/cpu/get_cumulative_energy?cpu=true&dram={str(memory).lower()}&cpu_ids={numbers}": cpu}
