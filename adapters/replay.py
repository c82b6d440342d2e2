"""A recorded board, played again: the counter of a real GPU for machines that have none.

A recording is gzipped JSON: `counter` has a row for each change of the counter, [t_before_ns, t_after_ns, mJ] of the
call, and `power` one for each change of the instant power, [t_ns, mW]. The joules are a real board's, but not those of
the traffic in front of the sidecar, so they are called simulated.
"""

import gzip
import json
import time
from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from perjoule.sidecar.ports import Device, Reading, UnavailableError
from perjoule.sidecar.record import Status
from perjoule.sidecar.units import UJ_PER_MJ


class ReplayCounter:
    """Plays a recording in real time from the first read on, and over again, the counter carried on."""

    name = "replay"
    status = Status.SIMULATED
    boundary = "gpu-board"
    wrap_uj = None

    def __init__(self, path: str | Path, now: Callable[[], int] = time.monotonic_ns) -> None:
        """Raises UnavailableError for a file that is no recording."""
        recording = _recording(Path(path))
        try:
            counter = [(int(before), int(mj) * UJ_PER_MJ) for before, _, mj in recording["counter"]]
            power = [(int(t), int(mw)) for t, mw in recording.get("power", ())]
        except (KeyError, TypeError, ValueError) as error:
            raise UnavailableError(f"replay: {path}: expected rows [t, t, mJ] in `counter` and [t, mW] in `power`, "
                                   f"got {error!r}") from error
        if len(counter) < 2 or any(t1 <= t0 or e1 < e0 for (t0, e0), (t1, e1) in pairwise(counter)):
            raise UnavailableError(f"replay: {path}: expected two or more rows in `counter`, rising in time and energy")
        self._times = [t for t, _ in counter]  # the call's begin keeps the beat better than its end
        self._energies = [energy_uj for _, energy_uj in counter]
        self._power_times = [t for t, _ in power]
        self._powers = [mw for _, mw in power]
        self._now = now
        self._start_ns: int | None = None
        self.devices = (Device(f"replay:{Path(path).name}", f"{recording.get('gpu') or 'a GPU'} (replayed)"),)
        self.period_ns = int(median(t1 - t0 for t0, t1 in pairwise(self._times)))

    def read(self) -> tuple[Reading, ...]:
        """The one board as it stood at this point of the recording."""
        now_ns = self._now()
        if self._start_ns is None:
            self._start_ns = now_ns
        rounds, into_ns = divmod(now_ns - self._start_ns, self._times[-1] - self._times[0])
        t_ns = self._times[0] + into_ns
        shown_uj = self._energies[bisect_right(self._times, t_ns) - 1]
        energy_uj = rounds * (self._energies[-1] - self._energies[0]) + shown_uj
        at = max(0, bisect_right(self._power_times, t_ns) - 1)
        return (Reading(now_ns, self._now(), energy_uj, self._powers[at] if self._powers else None),)

    def close(self) -> None:
        """Nothing is held open."""


def _recording(path: Path) -> dict[str, Any]:
    try:
        with gzip.open(path) as file:
            recording = json.load(file)
    except (OSError, EOFError, ValueError) as error:  # missing, not gzip, cut short, not JSON
        raise UnavailableError(f"replay: cannot read {path}: {error}") from error
    if not isinstance(recording, dict):
        raise UnavailableError(f"replay: {path}: expected a JSON object with `counter`, got {type(recording).__name__}")
    return recording
