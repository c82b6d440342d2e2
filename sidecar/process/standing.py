"""How things stand at this moment: the account of all joules, and each request in flight."""

import time
from typing import Any

from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.ports import EnergyCounter
from perjoule.sidecar.units import joules, seconds


def balance_of(meter: Meter, counter: EnergyCounter | None) -> dict[str, Any] | None:
    """The account, and until when it goes; None without a source."""
    if counter is None:
        return None
    until_ns = meter.divided_ns
    return {**meter.balance.as_json(), "unsettled": meter.unsettled,
            "until_unix_ns": None if until_ns is None else time.time_ns() - (time.monotonic_ns() - until_ns),
            "source": counter.name, "status": counter.status}


def in_flight_of(meter: Meter, counter: EnergyCounter | None) -> list[dict[str, Any]]:
    """The requests between arrival and end, and what each has cost so far."""
    now_ns = time.monotonic_ns()
    return [{"record_id": a.record_id, "model": a.model, "tenant": a.tenant,
             "age_seconds": seconds(now_ns - a.begin_ns), "output_frames": a.work.shown,
             "energy_joules_so_far": None if counter is None else joules(a.energy_uj),
             "status": "unavailable" if counter is None else counter.status} for a in meter.running]
