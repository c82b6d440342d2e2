"""On which cores a run of bench/relay.py puts what, and what machine that was."""

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

CPUS = Path("/sys/devices/system/cpu")


class Cores(NamedTuple):
    """Who runs where. Nothing else of ours runs on the relay's cores; other people's processes may."""

    relay: Sequence[int]
    engine: Sequence[int]
    load: Sequence[int]


def divided(cpus: Sequence[int], for_relay: int = 1) -> Cores:
    """The last cores for the relay (the first ones serve interrupts), the others for engine and load: each its own where there are
    four or more. Raises ValueError."""
    if len(cpus) <= for_relay:
        raise ValueError(f"got {len(cpus)} cores, expected more than the {for_relay} of the relay")
    others, relay = cpus[:-for_relay], cpus[-for_relay:]
    if len(others) < 3:
        return Cores(relay, others, others)
    half = len(others) // 2
    return Cores(relay, others[:half], others[half:])


def whole_cores() -> list[int]:
    """The CPUs that this process may use, one of each physical core where that leaves two or more."""
    allowed = sorted(os.sched_getaffinity(0))
    first = [cpu for cpu in allowed if cpu == min(_siblings(cpu) & set(allowed))]
    return first if len(first) > 1 else allowed


def _siblings(cpu: int) -> set[int]:
    """All hardware threads of this one's core."""
    try:
        text = (CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text()
    except OSError:
        return {cpu}
    spans = [part.partition("-") for part in text.strip().split(",")]
    return {each for first, _, last in spans for each in range(int(first), int(last or first) + 1)}


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """What is started in the block runs on these cores alone, like this thread meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def machine() -> dict[str, Any]:
    """What a reader must know of the machine to place the numbers."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), platform.machine())
    return {"cpu": model, "cpus": os.cpu_count(), "python": platform.python_version(),
            "load_average": os.getloadavg()}
