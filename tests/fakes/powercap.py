"""A powercap tree as Linux makes it: two packages, of which one has its memory and its cores apart, and the platform, which holds all."""

from pathlib import Path

RANGE = 262_143_328_850
ZONES = {"package-0": "intel-rapl:0", "core": "intel-rapl:0:0", "dram": "intel-rapl:0:1", "package-1": "intel-rapl:1",
         "psys": "intel-rapl:2"}


class Powercap:
    """Every counter stands at 1000 µJ."""

    def __init__(self, folder: Path, zones: dict[str, str] = ZONES) -> None:
        self.files = {}
        for label, name in zones.items():
            (folder / name).mkdir()
            for file, text in (("name", label.partition(" ")[0]), ("energy_uj", 1_000), ("max_energy_range_uj", RANGE)):
                (folder / name / file).write_text(f"{text}\n")
            self.files[label] = folder / name / "energy_uj"

    def put(self, label: str, uj: int) -> None:
        self.files[label].write_text(f"{uj}\n")
