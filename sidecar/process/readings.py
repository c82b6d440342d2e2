"""What a `perjoule meter` and its sidecars say to each other: lines of JSON over one connection, version 1.

    sidecar  {"perjoule_meter": 1, "token": …}            first; the token only if there is one
    meter    {"perjoule_meter": 1, "boot_id": …, …}       the counter: source, status, boundary, period, devices; or {"refused": why}
    meter    {"r": [[before, after, uj, mw], …]}          each look at the counter, a row for each device
    meter    {"failing": why}                             when reading it begins to fail
    meter    {"quiet": true}                              when it has had nothing to say for half a second
    sidecar  {"ping": t}                                  now and then
    meter    {"pong": t, "t": now}                        at once

All times are nanoseconds of the CLOCK_MONOTONIC of whoever says them. A kernel has one such clock for all its containers, and one boot
id: who has the same needs no offset.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from perjoule.sidecar.ports import Device, EnergyCounter, Reading
from perjoule.sidecar.record import Status

VERSION = 1
LONGEST = 1 << 20  # bytes of a line
MOST = (1 << 63) - 1  # of a number: ledgers and JSON take no more
QUIET_S = 0.5


class WireError(ValueError):
    """What came is not of this protocol; the text says what came."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The counter that a meter reads."""

    boot_id: str
    name: str
    status: Status
    boundary: str
    period_ns: int
    devices: tuple[Device, ...]

    @property
    def what(self) -> str:
        """What must not change while a sidecar runs."""
        return " ".join((self.name, self.status, self.boundary, *(device.uuid for device in self.devices)))


def ask(token: str | None) -> bytes:
    """How a sidecar begins."""
    return line({"perjoule_meter": VERSION} | ({"token": token} if token else {}))


def hello(counter: EnergyCounter, boot_id: str) -> bytes:
    """How a meter answers."""
    return line({"perjoule_meter": VERSION, "boot_id": boot_id, "name": counter.name, "status": counter.status,
                 "boundary": counter.boundary, "period_ns": counter.period_ns, "devices": [asdict(device) for device in counter.devices]})


def read_hello(text: bytes) -> Hello:
    """What the meter answered. Raises WireError, which says why it refused."""
    row = parse(text)
    if "refused" in row:
        raise WireError(f"it refused: {row['refused']}")
    try:
        if row["perjoule_meter"] != VERSION:
            raise WireError(f"it speaks version {row['perjoule_meter']}, expected {VERSION}")
        devices = tuple(Device(str(each["uuid"]), str(each["name"]), each.get("power_limit_w")) for each in row["devices"])
        told = Hello(str(row["boot_id"]), str(row["name"]), Status(row["status"]), str(row["boundary"]), int(row["period_ns"]), devices)
    except (KeyError, TypeError, AttributeError) as error:
        raise WireError(f"it answered {text[:120]!r}, expected the hello of a perjoule meter") from error
    except ValueError as error:
        raise error if isinstance(error, WireError) else WireError(f"it answered {text[:120]!r}: {error}") from error
    if not devices or told.period_ns <= 0:
        raise WireError(f"it answered {text[:120]!r}, expected devices and a period")
    return told


def rows(readings: Sequence[Reading]) -> bytes:
    """One look at the counter."""
    return line({"r": [[each.t_before_ns, each.t_after_ns, each.energy_uj, each.power_mw] for each in readings]})


def read_rows(row: Any, count: int) -> tuple[Reading, ...]:
    """The same, in the meter's time. Raises WireError."""
    try:
        readings = tuple(Reading(*each) for each in row)
    except TypeError as error:
        raise WireError(f"a look has {row!r:.120}, expected rows of 4") from error
    if len(readings) != count or any(type(value) is not int or not 0 <= value <= MOST for each in readings
                                     for value in (each.t_before_ns, each.t_after_ns, each.energy_uj, each.power_mw or 0)):
        raise WireError(f"a look has {row!r:.120}, expected {count} rows of whole numbers from 0 to {MOST}")
    return readings


def line(row: dict[str, Any]) -> bytes:
    """As it goes over the connection."""
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


def parse(text: bytes) -> dict[str, Any]:
    """A line that came. Raises WireError."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"it said {text[:120]!r}, expected JSON") from error
    if not isinstance(row, dict):
        raise WireError(f"it said {text[:120]!r}, expected an object")
    return row
