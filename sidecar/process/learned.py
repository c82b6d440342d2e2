"""Which calibrations the meter goes by, one for each pool: begun with physics, loaded once the engine is known, then saved."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from perjoule.sidecar.metering.calibration import Calibration, Key
from perjoule.sidecar.metering.division import Division
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.ports import Device, Engine
from perjoule.sidecar.units import NS_PER_S

SAVE_EVERY_S = 5.0  # if there is a new version

logger = logging.getLogger("perjoule")


class Calibrations(Protocol):
    """Where calibrations are kept. Both calls block."""

    def load(self, key: Key) -> Calibration | None:
        """What was learned for this key."""

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep what Calibration.as_json gave. Raises OSError."""


def key_of(devices: Sequence[Device], engine: Engine) -> Key:
    """What a calibration of this engine on these boards holds for."""
    limits = {device.power_limit_w for device in devices}
    return Key(gpu=" + ".join(sorted({device.name for device in devices})), group=tuple(sorted(device.uuid for device in devices)),
               power_limit_w=limits.pop() if len(limits) == 1 else None, model=engine.model, engine=engine.name,
               engine_version=engine.version, precision=engine.precision)


class Learned:
    """The meter's calibrations between two runs. It is called on the event loop, and reads and writes in a thread."""

    def __init__(self, meter: Meter, kept: Calibrations | None) -> None:
        self._divisions, self._kept = meter.divisions, kept
        self._saved_ids: dict[Division, str] = {}
        for division in self._divisions:
            self._go_by(division, Calibration(key_of(division.group.devices, Engine("unknown"))))

    async def is_of(self, engine: Engine) -> None:
        """This engine answers now: go on with what was learned of it, or begin anew; what was learned of another is saved."""
        for division in self._divisions:
            key = key_of(division.group.devices, engine)
            if division.calibration.key == key:
                continue
            await self._save(division)
            found = await asyncio.to_thread(self._kept.load, key) if self._kept is not None and key.model is not None else None
            self._go_by(division, found or Calibration(key))
            logger.info("calibration %s%s", division.calibration.id, ", as it was kept" if found else "")

    async def keep(self) -> None:
        """Save each new version, for ever."""
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            for division in self._divisions:
                if division.calibration.id != self._saved_ids[division]:
                    await self._save(division)

    async def save(self) -> None:
        """Write down what was learned, of models that can be recognised again."""
        for division in self._divisions:
            await self._save(division)

    async def _save(self, division: Division) -> None:
        learned = division.calibration
        if not learned.learned_ns:
            return
        if learned.id != self._saved_ids[division]:
            step = learned.coefficients.steps / learned.coefficients.prefill
            logger.info("calibration %s: a step costs as much as %.0f prompt tokens", learned.id, step)
            self._saved_ids[division] = learned.id
        if self._kept is None or learned.key.model is None:
            return
        try:
            await asyncio.to_thread(self._kept.save, learned.as_json(time.time_ns() // NS_PER_S))
        except OSError as error:
            logger.warning("calibration %s is not kept: %s", learned.id, error)

    def _go_by(self, division: Division, calibration: Calibration) -> None:
        division.calibration = calibration
        self._saved_ids[division] = calibration.id
