"""What the inside asks of the outside: a counter of energy, and a place to put records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from perjoule.sidecar.record import EnergyRecord, Status


class CounterError(Exception):
    """An energy counter that cannot be read now; the text says which one and why."""


class SilentError(CounterError):
    """A counter elsewhere that cannot be reached, or has nothing to tell yet."""


class UnavailableError(Exception):
    """An energy source that cannot work on this machine; the text says why, for a person."""


class AbsentError(UnavailableError):
    """A source elsewhere that cannot be reached, or has nothing to tell yet: it may come."""


class TryLaterError(Exception):
    """A place that cannot take records now, though nothing is wrong with them; it asks for `after_s` seconds of patience."""

    def __init__(self, text: str, after_s: float = 0.0) -> None:
        super().__init__(text)
        self.after_s = after_s


class RefusedError(Exception):
    """A place that has taken the records but for `count` of them, which it will never take; the text says why."""

    def __init__(self, text: str, count: int) -> None:
        super().__init__(text)
        self.count = count


@dataclass(frozen=True, slots=True)
class Device:
    """One board with a counter of its own; `uuid` is how records name it. The limit is None where the driver tells none."""

    uuid: str
    name: str
    power_limit_w: int | None = None


@dataclass(frozen=True, slots=True)
class Condition:
    """How one board is at a moment, None where its driver does not say. `held_back_by` names what keeps its clock down (NVML's clock
    event reasons: `sw_power_cap`, `hw_thermal_slowdown`, …); nothing does if it is empty."""

    uuid: str
    temperature_c: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    held_back_by: tuple[str, ...] | None = None
    driver_version: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at one device: the counter's value, and when the call began and returned (monotonic).

    `power_mw` is the instant power, None where it was not looked at, or the device has no such sensor.
    """

    t_before_ns: int
    t_after_ns: int
    energy_uj: int
    power_mw: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What an engine tells of a step that has ended, and of those before it that nobody was told of; None for what it does not say.

    `t_ns` is when its outputs were there, `steps` how many it counts for. `first_arrivals_ns` says of each request that got its first
    token in it when it had arrived at the engine; the prompts of all these had `prompts_tokens`, of which `cached_tokens` were cached.
    `prefill_tokens` is how many of anybody's prompt were computed in this step.
    """

    t_ns: int
    steps: int = 1
    rank: int = 0
    took_ns: int | None = None
    prefill_tokens: int | None = None
    prompts_tokens: int | None = None
    cached_tokens: int = 0
    first_arrivals_ns: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Engine:
    """What answers at the upstream: its name as in `--engine`, and what else it says of itself, None for what it does not."""

    name: str
    version: str | None = None
    model: str | None = None
    precision: str | None = None

    def is_news(self, known: "Engine | None") -> bool:
        """Whether this is another engine or model, or tells more than `known` did. One that tells less of the same is not: it
        starts, or is too busy to answer everything."""
        if known is None:
            return True
        is_less = any(told is None and knew is not None for told, knew in ((self.version, known.version), (self.model, known.model),
                                                                           (self.precision, known.precision)))
        return self != known and not (is_less and self.model in (known.model, None))


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine says that it has to do at a moment, over all its ranks; None for what it does not tell.

    `running` and `waiting` are what is in its batch and before it, and may be `lag_s` old; `ranks` are the same two of each rank, by its
    name. They count sequences, of which a request may have several, or (`whole`) requests. Amounts are since it began; estimates of
    computing are for each board. `kv_use` is the part of its memory for context that is taken, in the fullest rank.
    """

    running: int
    waiting: int
    lag_s: float = 1.0
    whole: bool = False
    ranks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    kv_use: float | None = None
    preemptions: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    flops: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None


class EnergyCounter(Protocol):
    """A cumulative energy counter over one group of devices (boards that serve the same requests).

    `name` is what `--energy` calls it; `status` is what its joules may be called at best (MEASURED, or SIMULATED for a
    counter that no sensor stands behind); `boundary` says what the sensor sees ("gpu-board"); `period_ns` is how often
    a new value is expected; `wrap_uj` is where the counter starts again, None where it never does.
    """

    name: str
    status: Status
    boundary: str
    devices: tuple[Device, ...]
    period_ns: int
    wrap_uj: int | None

    def read(self) -> tuple[Reading, ...]:
        """Read every device once, in the order of `devices`. Blocks (3 to 20 ms on an H200); raises CounterError."""

    def close(self) -> None:
        """Release what was opened."""


class RecordSink(Protocol):
    """A place that records go to. Called from one thread of its own, never from the event loop."""

    name: str

    def put(self, records: Sequence[EnergyRecord]) -> None:
        """Take these records, durably where the place is durable. Raises OSError or a library's error: the batch is then
        tried again by the caller, so the same record may come twice and must count once. TryLaterError says that no record of
        it can be at fault, RefusedError that trying again is of no use."""

    def close(self) -> None:
        """Flush and release."""
