"""What the live page shows, as one JSON object: the last minutes to begin with, what is news four times a second, the rest every second."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import Any

import orjson

from perjoule.sidecar.admin.port import AdminView
from perjoule.sidecar.metering.history import NAME_MOST, SLOT_NS, SLOTS, Slot
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.record import EnergyRecord, Outcome
from perjoule.sidecar.records.archive import Archive
from perjoule.sidecar.units import NS_PER_MS, joules, seconds

ROWS = 8  # requests in flight that are shown one by one, the oldest first
PERCENTILES = (0.5, 0.9, 0.99)
DIGITS = 6  # of joules in a slot: a microjoule

Json = dict[str, Any]


class Live:
    """Made of what the service knows. Nothing is computed until somebody asks."""

    def __init__(self, view: AdminView, meter: Meter, archive: Archive) -> None:
        self._view, self._meter, self._archive = view, meter, archive
        self._shown = 0  # slots below this one have been told

    async def past(self) -> Json:
        """The slots of the last minutes that `news` has told by now. They do not change any more, and are many: a thread writes them."""
        slots = list(self._meter.history.whole(0, self._shown))
        written = await asyncio.to_thread(lambda: orjson.dumps([_told(number, slot) for number, slot in slots]))
        return {"slot_s": seconds(SLOT_NS), "slots_most": SLOTS, "slots": orjson.Fragment(written)}

    def news(self) -> Json:
        """What changes all the time, and the slots that are new since this was last asked."""
        meter, now_ns = self._meter, time.monotonic_ns()
        since, self._shown = self._shown, (meter.divided_ns or 0) // SLOT_NS
        slots = [_told(number, slot) for number, slot in meter.history.whole(since, self._shown)]
        balance = self._view.balance()
        return {"now": now_ns / SLOT_NS, "power_w": meter.power_w(now_ns), "balance": balance and _exact(balance),
                "in_flight": meter.in_flight, "requests": self._requests(now_ns), "slots": slots}

    async def state(self) -> Json:
        """What changes slowly: the engine, the boards, the calibration, where records go, how long requests took."""
        ready, why = self._view.ready()
        recent = await asyncio.to_thread(summary, self._archive.recent.all(), time.time_ns() - SLOTS * SLOT_NS)
        return {"setting": self._view.setting(), "ready": ready, "why": why, "boards": await self._view.boards(),
                "sinks": [{"name": box.name, "pending": box.pending, "stored": box.stored, "dropped": box.dropped, "failing": box.failing}
                          for box in self._archive.outboxes],
                "calibration": [{"pool": number, "id": calibration.id, "state": calibration.state,
                                 "window_error": calibration.window_error, "learned_s": seconds(calibration.learned_ns)}
                                for number, calibration in enumerate(division.calibration for division in self._meter.divisions)],
                "steady_j_per_token": self._steady_j_per_token(), "records_most": self._archive.recent.capacity,
                **recent}

    def _requests(self, now_ns: int) -> list[Json]:
        has_source = self._view.balance() is not None
        return [{"id": a.record_id, "model": _clip(a.model), "tenant": _clip(a.tenant), "age_s": round(seconds(now_ns - a.begin_ns), 2),
                 "frames": a.work.shown, "begun": a.work.first_ns is not None,
                 "j": joules(a.energy_uj) if has_source and a.windows else None}
                for a in islice(self._meter.running, ROWS)]

    def _steady_j_per_token(self) -> float | None:
        groups = [division.group for division in self._meter.divisions]
        tokens = sum(group.steady_tokens for group in groups)
        return joules(sum(group.steady_uj for group in groups)) / tokens if tokens else None


def summary(records: Sequence[EnergyRecord], since_unix_ns: int) -> Json:
    """How long requests took and what they cost, of those that ended since; times are of completed ones, null where there was none."""
    records = [record for record in records if record.facts.arrival_unix_ns + record.facts.end_ns >= since_unix_ns]
    done = [record.facts for record in records if record.facts.outcome is Outcome.COMPLETED]
    paid = [(record.charge.energy_uj, record.facts.output_tokens) for record in records
            if record.charge.energy_uj is not None and record.facts.output_tokens]
    tokens = sum(tokens for _, tokens in paid)
    return {"outcomes": Counter(record.facts.outcome.value for record in records), "records": len(records),
            "ttft": _percentiles([facts.first_token_ns for facts in done if facts.first_token_ns is not None]),
            "tpot": _percentiles([
                (facts.last_token_ns - facts.first_token_ns) // (facts.output_tokens - 1) for facts in done
                if facts.first_token_ns is not None and facts.last_token_ns is not None and (facts.output_tokens or 0) > 1
                and facts.output_tokens is not None]),
            "e2e": _percentiles([facts.end_ns for facts in done]),
            "j_per_token": joules(sum(uj for uj, _ in paid)) / tokens if tokens else None,
            "j_per_unit": _per_unit(records)}


def _per_unit(records: Sequence[EnergyRecord]) -> dict[str, float]:
    """What an image took, and a second of video or sound, of those that were made; nothing of none."""
    sums: dict[str, tuple[int, float]] = {}
    for record in records:
        uj, unit, units = record.charge.energy_uj, record.facts.unit, record.facts.units
        if uj is not None and unit is not None and units:
            so_far_uj, so_far = sums.get(unit.value, (0, 0.0))
            sums[unit.value] = so_far_uj + uj, so_far + units
    return {unit: joules(uj) / units for unit, (uj, units) in sums.items()}


def _percentiles(times_ns: list[int]) -> list[float] | None:
    """In milliseconds, by nearest rank; None of nothing."""
    times_ns.sort()
    last = len(times_ns) - 1
    return [times_ns[round(part * last)] / NS_PER_MS for part in PERCENTILES] if times_ns else None


def _told(number: int, slot: Slot) -> list[Any]:
    """A slot as the page reads it; joules by name as pairs, since a name may be anything."""
    named = ([[name, round(joules(uj), DIGITS)] for name, uj in uses.items() if uj] for uses in (slot.models, slot.tenants))
    idle_j, unattributed_j = (round(joules(uj), DIGITS) for uj in (slot.idle_uj, slot.unattributed_uj))
    return [number, slot.phase, idle_j, unattributed_j, round(slot.tokens, 3), *named]


def _exact(balance: Json) -> Json:
    """Microjoules as text: 18 days of eight boards are more than a number of JavaScript holds to the last digit."""
    return {name: str(value) if name.endswith("_uj") and value is not None else value for name, value in balance.items()}


def _clip(name: str | None) -> str | None:
    return name and name[:NAME_MOST]
