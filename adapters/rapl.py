"""The RAPL counters of a host's processors and memory, as Linux shows them in powercap: for an engine on CPUs, and beside boards.

They are readable by root only since Linux 5.10 (CVE-2020-8694); a container needs /sys/class/powercap from its host.
"""

import time
from pathlib import Path

from perjoule.sidecar.metering.pools import each_once
from perjoule.sidecar.ports import CounterError, Device, Reading, UnavailableError
from perjoule.sidecar.record import Status
from perjoule.sidecar.units import NS_PER_MS

POWERCAP = Path("/sys/class/powercap")
PACKAGE, DRAM = "package-", "dram"  # what else is in a package is counted with it; psys would count packages twice


class Zone:
    """One counter in microjoules, carried on where it starts again at its range, if it is read before it does so twice (a package at
    250 W after some 17 minutes). Raises OSError where it may not be read."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.name  # intel-rapl:0 is a package, intel-rapl:0:1 is in it
        self.label = (folder / "name").read_text().strip()
        self._path = folder / "energy_uj"
        self._range_uj = int((folder / "max_energy_range_uj").read_text())
        self._latest_uj = self.total_uj = int(self._path.read_text())

    def read_uj(self) -> int:
        """In one thread only. Raises OSError."""
        value = int(self._path.read_text())
        advance = value - self._latest_uj
        self.total_uj += advance if advance >= 0 else advance + self._range_uj + 1
        self._latest_uj = value
        return self.total_uj


def zones_in(folder: Path) -> list[Zone]:
    """The packages, and the memory beside them. Raises OSError where there are none, or they may not be read."""
    zones = [Zone(zone) for zone in sorted(folder.glob("intel-rapl:*"))
             if (zone / "name").read_text().strip().startswith((PACKAGE, DRAM))]
    if not zones:
        raise FileNotFoundError(f"no RAPL counters in {folder}")
    return zones


class HostCounter:
    """Microjoules of the whole host since it was made. Raises OSError where there is no counter, or it may not be read."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        self._zones = zones_in(folder)
        self._start_uj = sum(zone.total_uj for zone in self._zones)

    def read_uj(self) -> int:
        """In one thread only. Raises OSError."""
        return sum(zone.read_uj() for zone in self._zones) - self._start_uj


class RaplCounter:
    """One group of CPU packages, each with its memory if all of them have a counter for it."""

    name = "rapl"
    status = Status.MEASURED
    period_ns = 100 * NS_PER_MS  # it changes every millisecond: this is how often it is asked for
    wrap_uj = None

    def __init__(self, gpus: str = "all", folder: Path = POWERCAP) -> None:
        """`gpus` is `all` or names as cpu-package-0 with commas between. Raises UnavailableError."""
        try:
            zones = zones_in(folder)
        except PermissionError as error:
            raise UnavailableError(f"rapl: {error.filename} is for root only (CVE-2020-8694): run as root, or read it in a "
                                   "`perjoule meter` that does") from error
        except (OSError, ValueError) as error:
            raise UnavailableError(f"rapl: {error}") from error
        there = {zone.label.replace(PACKAGE, "cpu-package-"): [zone] for zone in zones if zone.label.startswith(PACKAGE)}
        memory = {label: [each for each in zones if each.label == DRAM and each.name.startswith(f"{package.name}:")]
                  for label, (package,) in there.items()}
        has_memory = all(memory.values())
        self.boundary = "cpu-package+dram" if has_memory else "cpu-package"
        named = there if gpus == "all" else each_once(gpus)
        for label in named:
            if label not in there:
                raise UnavailableError(f"rapl: no package {label!r}; there is {', '.join(there) or 'none'}")
        self._zones = [there[label] + (memory[label] if has_memory else []) for label in named]
        self.devices = tuple(Device(label, label.replace("cpu-package-", "CPU package ")) for label in named)
        if not self.devices:
            raise UnavailableError(f"rapl: no package in {folder}")

    def read(self) -> tuple[Reading, ...]:
        """Every package, one after another. Raises CounterError."""
        return tuple(self._read(index) for index in range(len(self.devices)))

    def _read(self, index: int) -> Reading:
        before = time.monotonic_ns()
        try:
            total_uj = sum(zone.read_uj() for zone in self._zones[index])
        except (OSError, ValueError) as error:
            raise CounterError(f"rapl: {self.devices[index].uuid}: {error}") from error
        return Reading(before, time.monotonic_ns(), total_uj)

    def close(self) -> None:
        """Nothing is held open."""
