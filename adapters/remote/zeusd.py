"""The Zeus daemon (`zeusd:URL`, `zeusd:unix:PATH`), which reads boards, or CPU packages, for who may not: zeusd 0.5's HTTP API.

It reads when it is asked. It numbers boards and tells no UUIDs, so records name them by their place on the bus.
"""

import json
from typing import Any

from perjoule.adapters.remote import OPEN, Access, why_not
from perjoule.adapters.remote.page import Page, whole_uj
from perjoule.sidecar.metering.pools import each_once
from perjoule.sidecar.ports import CounterError, Device, Reading, UnavailableError
from perjoule.sidecar.record import Status
from perjoule.sidecar.units import NS_PER_MS, UJ_PER_MJ


class ZeusdCounter:
    """One group of boards, or where the daemon shows none, of CPU packages, with their memory if all of them have a counter for it."""

    name = "zeusd"
    status = Status.MEASURED
    period_ns = 100 * NS_PER_MS
    wrap_uj = None  # the daemon carries RAPL's counters on when they wrap

    def __init__(self, url: str, gpus: str = "all", access: Access = OPEN) -> None:
        """`gpus` is `all` or names as gpu-0000:01:00.0 with commas between. Raises UnavailableError."""
        self._page = Page(self.name, url, access)
        self._parts: tuple[str, ...] = ()
        try:
            found = self._discover()
            named = tuple(found) if gpus == "all" else each_once(gpus)
            for name in named:
                if name not in found:
                    raise UnavailableError(f"zeusd: no device {name!r}; there is {', '.join(found)}")
            if not named:
                raise UnavailableError(f"zeusd: no board of {url} has an energy counter that can be trusted")
            self._ids = [found[name][0] for name in named]
            self.devices = tuple(Device(name, found[name][1]) for name in named)
            self.read()
        except CounterError as error:
            self.close()
            raise why_not(error) from error
        except UnavailableError:
            self.close()
            raise

    def read(self) -> tuple[Reading, ...]:
        """Every device, read by the daemon at the same time. Raises CounterError."""
        before, after, rows = self._ask(self._path + ",".join(self._ids))
        try:
            return tuple(Reading(before, after, self._uj(rows[number])) for number in self._ids)
        except (KeyError, TypeError, ValueError) as error:
            raise CounterError(f"zeusd: {self._page.url} answered {rows!r:.120}, expected an object for each of {self._ids}: "
                               f"{error!r}") from error

    def close(self) -> None:
        """Hang up."""
        self._page.close()

    def _discover(self) -> dict[str, tuple[str, str]]:
        """The number and the model of every device that can be read, by the name that records use."""
        rows = self._ask("/discover")[2]
        try:
            groups = rows["enabled_api_groups"]
            if rows["gpus"] and "gpu-read" in groups:
                self.boundary, self._path, self._parts = "gpu-board", "/gpu/get_cumulative_energy?gpu_ids=", ("energy_mj",)
                return {f"gpu-{row['pci_address']}" if "pci_address" in row else f"gpu-{row['id']}": (str(row["id"]), str(row["name"]))
                        for row in rows["gpus"] if row.get("cumulative_energy_available", True)}
            if rows["cpus"] and "cpu-read" in groups:
                memory = all(row["dram_available"] for row in rows["cpus"])
                self.boundary = "cpu-package+dram" if memory else "cpu-package"
                self._path = f"/cpu/get_cumulative_energy?cpu=true&dram={str(memory).lower()}&cpu_ids="
                self._parts = ("cpu_energy_uj", "dram_energy_uj") if memory else ("cpu_energy_uj",)
                return {f"cpu-package-{row['id']}": (str(row["id"]), f"CPU package {row['id']}") for row in rows["cpus"]}
        except (KeyError, TypeError) as error:
            raise CounterError(f"zeusd: {self._page.url}/discover answered {rows!r:.120}, expected gpus, cpus and enabled_api_groups "
                               "(zeusd 0.4 or later)") from error
        raise UnavailableError(f"zeusd: {self._page.url} reads nothing: it shows {len(rows['gpus'])} boards and {len(rows['cpus'])} CPU "
                               f"packages, and was started with {', '.join(groups) or 'nothing'}, expected gpu-read or cpu-read")

    def _uj(self, row: dict[str, Any]) -> int:
        return sum(whole_uj(int(row[part]) * (UJ_PER_MJ if part.endswith("_mj") else 1)) for part in self._parts)

    def _ask(self, path: str) -> tuple[int, int, Any]:
        seen = self._page.get(path)
        try:
            return seen.before_ns, seen.after_ns, json.loads(seen.body)
        except ValueError as error:
            raise CounterError(f"zeusd: {self._page.url}{path} answered {seen.body[:80]!r}, expected JSON") from error
