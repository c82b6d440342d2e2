"""Under what joules were measured: the engine, the source of energy, the method, the boards. Who compares two runs compares these first."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from perjoule import __version__
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.ports import Condition, EnergyCounter, Engine
from perjoule.sidecar.record import Status
from perjoule.sidecar.settings.config import Config
from perjoule.sidecar.units import NS_PER_MS


def setting_of(config: Config, engine: Engine, meter: Meter, counter: EnergyCounter | None) -> dict[str, Any]:
    """What holds for as long as engine and sidecar are the same, under the names of a result (docs/results.md); None: not known."""
    return {"perjoule": __version__, "engine": engine.name, "engine_version": engine.version, "model_id": engine.model,
            "weight_precision": engine.precision, "max_num_seqs": meter.divisions[0].group.steady.max_num_seqs or None,
            "energy_source": counter.name if counter is not None else None,
            "energy_status": counter.status if counter is not None else Status.UNAVAILABLE,
            "energy_method": config.method, "boundary": counter.boundary if counter is not None else None,
            "energy_period_ms": counter.period_ns / NS_PER_MS if counter is not None else None,
            "energy_clock_off_us": _clock_off_us(counter), "poll_ms": config.poll_ms, "workers": config.workers}


def _clock_off_us(counter: EnergyCounter | None) -> float | None:
    """How far off the times of readings may be: those of a source on another host have been translated. 0 on this one."""
    off_ns = None if counter is None else getattr(counter, "clock_uncertainty_ns", 0)
    return None if off_ns is None else off_ns / 1000


def boards_of(meter: Meter, counter: EnergyCounter | None, conditions: Mapping[str, Condition]) -> list[dict[str, Any]]:
    """Each board with a counter, and how it is now: `power_w`, temperature, clocks, and what holds them back."""
    draw = meter.boards_w if counter is not None else {}
    return [{**asdict(device), "power_w": draw.get(device.uuid), **asdict(conditions.get(device.uuid, Condition(device.uuid)))}
            for device in (counter.devices if counter is not None else ())]
