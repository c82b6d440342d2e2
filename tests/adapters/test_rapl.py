"""What a host and its CPUs draw: counters followed over the end of their range, counted once, and missing where they are."""

import builtins
from pathlib import Path
from typing import Any

import pytest

from perjoule.adapters.rapl import HostCounter, RaplCounter
from perjoule.sidecar.ports import CounterError, UnavailableError
from tests.fakes.powercap import RANGE, ZONES, Powercap


def test_packages_and_memory_are_counted_once(tmp_path: Path) -> None:
    """What is in a package, or is the whole platform, is not counted again."""
    host = Powercap(tmp_path)
    counter = HostCounter(tmp_path)
    assert counter.read_uj() == 0
    for label, uj in (("package-0", 1_500), ("core", 1_400), ("dram", 1_020), ("package-1", 1_003), ("psys", 9_999)):
        host.put(label, uj)
    assert counter.read_uj() == 500 + 20 + 3


def test_a_counter_that_starts_again_is_followed(tmp_path: Path) -> None:
    """Its range is known: the value after the last is 0."""
    host = Powercap(tmp_path)
    counter = HostCounter(tmp_path)
    host.put("package-0", RANGE)
    counter.read_uj()
    host.put("package-0", 4)
    assert counter.read_uj() == RANGE - 1_000 + 5


def test_without_counters_there_is_no_number(tmp_path: Path) -> None:
    """Not 0."""
    with pytest.raises(OSError, match="no RAPL counters"):
        HostCounter(tmp_path)
    with pytest.raises(UnavailableError, match="no RAPL counters"):
        RaplCounter(folder=tmp_path)


def test_memory_counts_for_its_package_where_every_package_has_it(tmp_path: Path) -> None:
    """With one package's memory unknown, the boundary is the packages alone, for all of them."""
    host = Powercap(tmp_path)
    counter = RaplCounter(folder=tmp_path)
    assert counter.boundary == "cpu-package"
    host.put("dram", 5_000)
    assert [reading.energy_uj for reading in counter.read()] == [1_000, 1_000]
    (tmp_path / "more").mkdir()
    full = Powercap(tmp_path / "more", ZONES | {"dram of package-1": "intel-rapl:1:0"})
    counter = RaplCounter(folder=tmp_path / "more")
    assert counter.boundary == "cpu-package+dram"
    full.put("dram of package-1", 7_000)
    assert [reading.energy_uj for reading in counter.read()] == [2_000, 8_000]


def test_packages_can_be_chosen(tmp_path: Path) -> None:
    """By the names that records use; one that is not there is refused with those that are."""
    Powercap(tmp_path)
    assert [device.uuid for device in RaplCounter("cpu-package-1", tmp_path).devices] == ["cpu-package-1"]
    with pytest.raises(UnavailableError, match="no package 'GPU-a'; there is cpu-package-0, cpu-package-1"):
        RaplCounter("GPU-a", tmp_path)


def test_who_may_not_read_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since Linux 5.10 only root may. (Tests may run as root, whom a file's mode does not stop: the open is refused instead.)"""
    Powercap(tmp_path)
    opened = Path.read_text

    def refused(path: Path, *args: Any, **more: Any) -> str:
        if path.name == "energy_uj":
            raise builtins.PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **more)

    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(UnavailableError, match=r"energy_uj is for root only \(CVE-2020-8694\): run as root"):
        RaplCounter(folder=tmp_path)


def test_a_counter_that_goes_away_is_an_error(tmp_path: Path) -> None:
    """And works again when it is back."""
    host = Powercap(tmp_path)
    counter = RaplCounter(folder=tmp_path)
    host.files["package-0"].unlink()
    with pytest.raises(CounterError, match="cpu-package-0"):
        counter.read()
    host.put("package-0", 1_500)
    assert counter.read()[0].energy_uj == 1_500
