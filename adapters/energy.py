"""Picks the energy source that `--energy` names, or the best one that works here, and says why the others do not."""

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from perjoule.sidecar.metering.pools import read_pools
from perjoule.sidecar.ports import EnergyCounter, UnavailableError

EXPECTED = "auto, nvml, zeus, dcgm:URL, replay:FILE or simulated[:URL]"
IN_ORDER = ("nvml", "zeus")  # what auto tries: sensors only; a joule that is not measured has to be asked for
CLASSES = {
    "nvml": "perjoule.adapters.nvml:NvmlCounter",
    "zeus": "perjoule.adapters.zeus:ZeusCounter",
    "replay": "perjoule.adapters.replay:ReplayCounter",
    "simulated": "perjoule.adapters.simulated:SimulatedCounter",
    "engine": "perjoule.adapters.simulated:EngineCounter",
}


class NotBuiltError(Exception):
    """A source that is planned and named, but not there yet."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The counter that was opened, None where auto found none; (source, reason) for each that was tried in vain."""

    counter: EnergyCounter | None
    tried: tuple[tuple[str, str], ...] = ()


def open_counter(spec: str, gpus: str, in_flight: Callable[[], int]) -> Opened:
    """Open what `--energy SPEC --gpus GPUS` asks for; `in_flight` feeds the simulated source, in the sampler's thread.

    It reads every board of every pool. Raises UnavailableError for a named source that does not work here, NotBuiltError for dcgm,
    ValueError for one that is not known, for `gpus` that cannot be read, and for pools that the source has not.
    """
    pools = read_pools(gpus)
    opened = _opened(spec, pools.boards, in_flight)
    if opened.counter is not None:
        try:
            pools.places(opened.counter.devices)
        except ValueError:
            opened.counter.close()
            raise
    return opened


def _opened(spec: str, gpus: str, in_flight: Callable[[], int]) -> Opened:
    if spec == "auto":
        return _first_that_works(gpus)
    source, colon, where = spec.partition(":")
    if source == "dcgm":
        raise NotBuiltError(f"not built yet: dcgm (got --energy {spec}); until then expected one of {EXPECTED}")
    if source in IN_ORDER and not colon:
        return Opened(_open(source, gpus))
    if source == "replay" and where:
        return Opened(_open("replay", where))
    if source == "simulated" and bool(where) == bool(colon):
        return Opened(_open("engine", where) if where else _open("simulated", in_flight))
    raise ValueError(f"--energy: got {spec!r}, expected {EXPECTED}")


def _first_that_works(gpus: str) -> Opened:
    tried: list[tuple[str, str]] = []
    for source in IN_ORDER:
        try:
            return Opened(_open(source, gpus), tuple(tried))
        except UnavailableError as reason:
            tried.append((source, str(reason)))
    return Opened(None, tuple(tried))


def _open(source: str, argument: Any) -> EnergyCounter:
    """Imported only now, so that nobody pays for a source that is not used."""
    counter: EnergyCounter = resolve_name(CLASSES[source])(argument)
    return counter
