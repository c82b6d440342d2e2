"""Picks the energy source that `--energy` names, or the best one that works here, and says why the others do not."""

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from perjoule.sidecar.metering.pools import read_pools
from perjoule.sidecar.ports import EnergyCounter, UnavailableError

EXPECTED = ("auto, nvml, zeus, rapl, meter:HOST:PORT, dcgm:URL, zeusd:URL, triton:URL, trtllm:URL, replay:FILE or simulated[:URL]; "
            "meter and zeusd may be at unix:PATH, too")
REMOTE = ("meter", "dcgm", "zeusd", "triton", "trtllm")
IN_ORDER = ("nvml", "zeus")  # what auto tries: sensors only; a joule that is not measured has to be asked for
CLASSES = {
    "nvml": "perjoule.adapters.nvml:NvmlCounter",
    "zeus": "perjoule.adapters.zeus:ZeusCounter",
    "rapl": "perjoule.adapters.rapl:RaplCounter",
    "meter": "perjoule.adapters.remote.meter:MeterCounter",
    "dcgm": "perjoule.adapters.remote.exporter:DcgmCounter",
    "zeusd": "perjoule.adapters.remote.zeusd:ZeusdCounter",
    "triton": "perjoule.adapters.remote.exporter:TritonCounter",
    "trtllm": "perjoule.adapters.remote.trtllm:TrtllmCounter",
    "replay": "perjoule.adapters.replay:ReplayCounter",
    "simulated": "perjoule.adapters.simulated:SimulatedCounter",
    "engine": "perjoule.adapters.simulated:EngineCounter",
}


@dataclass(frozen=True, slots=True)
class Opened:
    """The counter that was opened, None where auto found none; (source, reason) for each that was tried in vain."""

    counter: EnergyCounter | None
    tried: tuple[tuple[str, str], ...] = ()


def open_counter(spec: str, gpus: str, in_flight: Callable[[], int], access: Any = None) -> Opened:
    """Open what `--energy SPEC --gpus GPUS` asks for; `in_flight` feeds the simulated source, in the sampler's thread.

    It reads every board of every pool. `access` (`remote.Access`) is how a source elsewhere is entered. Raises UnavailableError for a
    named source that does not work here, ValueError for one that is not known, for `gpus` that cannot be read, and for pools that the
    source has not.
    """
    pools = read_pools(gpus)
    opened = _opened(spec, pools.boards, in_flight, access)
    if opened.counter is not None:
        try:
            pools.places(opened.counter.devices)
        except ValueError:
            opened.counter.close()
            raise
    return opened


def _opened(spec: str, gpus: str, in_flight: Callable[[], int], access: Any) -> Opened:
    if spec == "auto":
        return _first_that_works(gpus)
    source, colon, where = spec.partition(":")
    if source in (*IN_ORDER, "rapl") and not colon:
        return Opened(_open(source, gpus))
    if source in REMOTE and where:
        return Opened(_open(source, where, gpus, *([] if access is None else [access])))
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


def _open(source: str, *arguments: Any) -> EnergyCounter:
    """Imported only now, so that nobody pays for a source that is not used."""
    counter: EnergyCounter = resolve_name(CLASSES[source])(*arguments)
    return counter
