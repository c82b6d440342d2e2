"""One device: its counter, the windows that wait to be divided, and what it draws when nothing runs."""

from collections import deque
from dataclasses import dataclass
from statistics import quantiles

from perjoule.sidecar.ports import Device, Reading
from perjoule.sidecar.steady_state import SteadyStateDetector
from perjoule.sidecar.timeline import Timeline, Window
from perjoule.sidecar.units import energy_uj, power_w

IDLE_WINDOWS = 40  # idle windows that the loaded idle power is learned from


@dataclass(frozen=True, slots=True)
class Split:
    """A window's microjoules: idle + shared is all of it; active is the part of shared above the loaded idle."""

    idle_uj: int
    shared_uj: int
    active_uj: int


class Board:
    """A device of the group. Windows up to `divided_ns` have been divided; the others wait."""

    def __init__(self, device: Device, period_ns: int, wrap_uj: int | None, max_num_seqs: int) -> None:
        self.device = device
        self.timeline = Timeline(period_ns, wrap_uj)
        self.waiting: deque[Window] = deque()
        self.divided_ns: int | None = None
        self.steady = SteadyStateDetector(max_num_seqs)
        self.weight_per_ns = 0.0  # of all requests, in the last window that was shared
        self._idle_w: deque[float] = deque(maxlen=IDLE_WINDOWS)

    def add(self, reading: Reading) -> None:
        """Take a reading, and keep the window that it closes."""
        window = self.timeline.add(reading)
        if self.divided_ns is None:
            self.divided_ns = self.timeline.origin_ns
        if window is not None:
            self.waiting.append(window)

    def saw_idle(self, window: Window) -> None:
        """Nothing ran in this window."""
        self._idle_w.append(power_w(window.energy_uj, window.t1_ns - window.t0_ns))

    @property
    def idle_w(self) -> float | None:
        """The loaded idle: the lower quartile of idle windows, since the engine's tail after an abort is idle time too."""
        return quantiles(self._idle_w, n=4)[0] if len(self._idle_w) > 1 else self._idle_w[0] if self._idle_w else None

    def split(self, window: Window, busy_ns: int) -> Split:
        """Part a window in which something ran for `busy_ns`. Until the loaded idle is known, each nanosecond counts the same."""
        drawn_uj, span_ns, idle_w = window.energy_uj, window.t1_ns - window.t0_ns, self.idle_w
        if idle_w is None:
            idle_uj = drawn_uj * (span_ns - busy_ns) // span_ns
            return Split(idle_uj, drawn_uj - idle_uj, 0)
        idle_uj = min(drawn_uj, energy_uj(idle_w, span_ns - busy_ns))
        shared_uj = drawn_uj - idle_uj
        return Split(idle_uj, shared_uj, max(0, shared_uj - energy_uj(idle_w, busy_ns)))

    def undivided(self, since_ns: int, t_ns: int) -> Split:
        """What was drawn between two moments after `divided_ns`, as far as it is known: windows that wait, and instant power."""
        divided_ns = self.divided_ns
        if divided_ns is None or t_ns <= max(since_ns, divided_ns):
            return Split(0, 0, 0)
        span_ns = t_ns - max(since_ns, divided_ns)
        drawn_uj = sum(w.energy_uj for w in self.waiting) + self.timeline.energy_since_change(t_ns)
        drawn_uj = drawn_uj * span_ns // (t_ns - divided_ns)
        return Split(0, drawn_uj, max(0, drawn_uj - energy_uj(self.idle_w or 0.0, span_ns)))
