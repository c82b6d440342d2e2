"""Which calibration the meter goes by: begun with physics, loaded once the engine is known, saved when there is a new version."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from perjoule.sidecar.calibration import Calibration, Key
from perjoule.sidecar.meter import Meter
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
    return Key(gpu=" + ".join(sorted({device.name for device in devices})), boards=len(devices),
               power_limit_w=limits.pop() if len(limits) == 1 else None, model=engine.model, engine=engine.name,
               engine_version=engine.version, precision=engine.precision)


class Learned:
    """The meter's calibration between two runs. It is called on the event loop, and reads and writes in a thread."""

    def __init__(self, meter: Meter, devices: Sequence[Device], kept: Calibrations | None) -> None:
        self._meter, self._devices, self._kept = meter, devices, kept
        self._saved_id = ""
        self._go_by(Calibration(key_of(devices, Engine("unknown"))))

    async def is_of(self, engine: Engine) -> None:
        """This engine answers now: go on with what was learned of it, or begin anew; what was learned of another is saved."""
        key = key_of(self._devices, engine)
        if self._meter.calibration.key == key:
            return
        await self.save()
        found = await asyncio.to_thread(self._kept.load, key) if self._kept is not None and key.model is not None else None
        self._go_by(found or Calibration(key))
        logger.info("calibration %s%s", self._saved_id, ", as it was kept" if found else "")

    async def keep(self) -> None:
        """Save each new version, for ever."""
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            if self._meter.calibration.id != self._saved_id:
                await self.save()

    async def save(self) -> None:
        """Write down what was learned, if it was learned of a model that can be recognised again."""
        learned = self._meter.calibration
        if not learned.learned_ns:
            return
        if learned.id != self._saved_id:
            step = learned.coefficients.steps / learned.coefficients.prefill
            logger.info("calibration %s: a step costs as much as %.0f prompt tokens", learned.id, step)
            self._saved_id = learned.id
        if self._kept is None or learned.key.model is None:
            return
        try:
            await asyncio.to_thread(self._kept.save, learned.as_json(time.time_ns() // NS_PER_S))
        except OSError as error:
            logger.warning("calibration %s is not kept: %s", learned.id, error)

    def _go_by(self, calibration: Calibration) -> None:
        self._meter.calibration = calibration
        self._saved_id = calibration.id
