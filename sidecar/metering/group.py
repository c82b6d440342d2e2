"""The boards that serve one engine together: their counters as one, the windows that wait to be divided, the idle draw.

Tensor- and pipeline-parallel boards work on the same steps, so their joules are divided alike: windows run on the beat of the first
board's counter, and of the others' counters, whose changes fall between, each window gets its part by time. Every microjoule of
every counter is in exactly one window.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import quantiles

from perjoule.sidecar.metering.steady_state import SteadyStateDetector
from perjoule.sidecar.metering.timeline import Timeline, Window
from perjoule.sidecar.ports import Device, Reading
from perjoule.sidecar.units import NS_PER_S, energy_uj, power_w

IDLE_WINDOWS = 40  # idle windows that the loaded idle power is learned from
SILENCE_NS = NS_PER_S  # a counter that says nothing for this long, or for two of its periods, is not waited for


@dataclass(frozen=True, slots=True)
class Split:
    """A window's microjoules: idle + shared is all of it; active is the part of shared above the loaded idle."""

    idle_uj: int
    shared_uj: int
    active_uj: int


class Follower:
    """A board beside the first: its windows, given out by time."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self._windows: deque[Window] = deque()
        self._given_uj = 0  # of the first of them

    def keep(self, window: Window) -> None:
        """A window of this board has closed."""
        self._windows.append(window)

    @property
    def waiting_uj(self) -> int:
        """What no window of the group holds yet."""
        return sum(window.energy_uj for window in self._windows) - self._given_uj

    def give(self, until_ns: int) -> tuple[int, str]:
        """All its microjoules up to `until_ns` that were not given before, and why they cannot be divided, if so."""
        uj, gap = 0, ""
        while self._windows and self._windows[0].t0_ns < until_ns:
            window = self._windows[0]
            gap = gap or window.gap
            ended = window.t1_ns <= until_ns
            upto_uj = window.energy_uj if ended else window.energy_uj * (until_ns - window.t0_ns) // (window.t1_ns - window.t0_ns)
            uj += upto_uj - self._given_uj
            self._given_uj = upto_uj
            if not ended:
                break
            self._windows.popleft()
            self._given_uj = 0
        return uj, gap


class Group:
    """Windows up to `divided_ns` have been divided; the others wait."""

    def __init__(self, devices: Sequence[Device], period_ns: int, wrap_uj: int | None, max_num_seqs: int) -> None:
        self.devices = tuple(devices)
        self._first = Timeline(period_ns, wrap_uj)
        self._others = [Follower(Timeline(period_ns, wrap_uj)) for _ in self.devices[1:]]
        self.silence_ns = max(SILENCE_NS, 2 * period_ns)
        self.timelines = [self._first, *(other.timeline for other in self._others)]
        self._closed: deque[Window] = deque()  # of the first board, waiting for the others
        self.waiting: deque[Window] = deque()
        self.origin_ns: int | None = None  # before it, not every board had been seen
        self.divided_ns: int | None = None
        self.steady = SteadyStateDetector(max_num_seqs)
        self.steady_uj, self.steady_tokens = 0, 0.0  # shared in steady windows, and output tokens in them
        self.weight_per_ns = 0.0  # of all requests, in the last window that was shared
        self.idle_w: float | None = None  # the loaded idle; None until something is known of it
        self._idle_powers: deque[float] = deque(maxlen=IDLE_WINDOWS)

    def add(self, readings: Sequence[Reading]) -> None:
        """Take one reading of each board, and keep the windows that they close."""
        window = self._first.add(readings[0])
        for other, reading in zip(self._others, readings[1:], strict=True):
            if (part := other.timeline.add(reading)) is not None:
                other.keep(part)
        if window is not None:
            self._closed.append(window)
        self._close(max(reading.t_after_ns for reading in readings))

    def _close(self, t_ns: int) -> None:
        """Windows of the group, for those of the first board whose time every other board has told of."""
        if self.origin_ns is None:
            origins = [timeline.origin_ns for timeline in self.timelines]
            if None in origins:
                self._closed.clear()
                return
            latest_ns = max(origin for origin in origins if origin is not None)
            while self._closed and self._closed[0].t0_ns < latest_ns:
                self._closed.popleft()
            if not self._closed and len(self.devices) > 1:
                return
            self.origin_ns = self.divided_ns = self._closed[0].t0_ns if self._closed else latest_ns
            for other in self._others:
                other.give(self.origin_ns)  # nobody knows what the first board drew meanwhile
        while self._closed:
            window = self._closed[0]
            told = all((other.timeline.changed_ns or 0) >= window.t1_ns for other in self._others)
            if not told and t_ns < window.t1_ns + self.silence_ns:
                return
            self._closed.popleft()
            energy, gap = window.energy_uj, window.gap or ("" if told else "stale")
            for other in self._others:
                uj, why = other.give(window.t1_ns)
                energy, gap = energy + uj, gap or why
            self.waiting.append(replace(window, energy_uj=energy, gap=gap))

    def is_alive(self, t_ns: int) -> bool:
        """Whether every counter has moved lately."""
        return self.changed_ns > max(0, t_ns - self.silence_ns)

    @property
    def changed_ns(self) -> int:
        """When the slowest of the counters has last moved; 0 if one never has."""
        changed_ns = self._first.changed_ns or 0
        for other in self._others:
            changed_ns = min(changed_ns, other.timeline.changed_ns or 0)
        return changed_ns

    @property
    def power_w(self) -> float | None:
        """What the boards draw now, None if that is not known of one."""
        powers = [timeline.power_w for timeline in self.timelines]
        return None if None in powers else sum((power for power in powers if power is not None), 0.0)

    def saw_idle(self, window: Window) -> None:
        """Nothing ran in this window. The loaded idle is the lower quartile of such, since an engine's tail after an abort is one, too."""
        powers = self._idle_powers
        powers.append(power_w(window.energy_uj, window.t1_ns - window.t0_ns))
        self.idle_w = quantiles(powers, n=4, method="inclusive")[0] if len(powers) > 1 else powers[0]

    def split(self, window: Window, busy_ns: int) -> Split:
        """Part a window in which something ran for `busy_ns`. Until the loaded idle is known, each nanosecond counts the same, and where
        no more was drawn than that."""
        drawn_uj, span_ns, idle_w = window.energy_uj, window.t1_ns - window.t0_ns, self.idle_w
        by_time_uj = drawn_uj * (span_ns - busy_ns) // span_ns
        if idle_w is None:
            return Split(by_time_uj, drawn_uj - by_time_uj, 0)
        idle_uj = min(by_time_uj, energy_uj(idle_w, span_ns - busy_ns))  # who ran drew no less than if nobody had
        shared_uj = drawn_uj - idle_uj
        return Split(idle_uj, shared_uj, max(0, shared_uj - energy_uj(idle_w, busy_ns)))

    def at_steady_rate(self, tokens: float, shared_uj: int) -> int:
        """Microjoules for so many output tokens outside the steady state, by ML.ENERGY's rule: J per output token over the steady
        state (arXiv 2505.06371, equation 2) times the tokens; no more than were drawn, and all of them before there was any."""
        return min(shared_uj, round(self.steady_uj * tokens / self.steady_tokens)) if self.steady_tokens else shared_uj

    def undivided(self, since_ns: int, t_ns: int) -> Split:
        """What was drawn between two moments after `divided_ns`, as far as it is known: windows that wait, and instant power."""
        divided_ns = self.divided_ns
        if divided_ns is None or t_ns <= max(since_ns, divided_ns):
            return Split(0, 0, 0)
        span_ns = t_ns - max(since_ns, divided_ns)
        drawn_uj = self._first.energy_since_change(t_ns)
        for window in self.waiting:
            drawn_uj += window.energy_uj
        for window in self._closed:
            drawn_uj += window.energy_uj
        for other in self._others:
            drawn_uj += other.waiting_uj + other.timeline.energy_since_change(t_ns)
        drawn_uj = drawn_uj * span_ns // (t_ns - divided_ns)
        return Split(0, drawn_uj, max(0, drawn_uj - energy_uj(self.idle_w or 0.0, span_ns)))
