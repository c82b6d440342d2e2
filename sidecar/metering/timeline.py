"""A cumulative energy counter, looked at now and then: windows from change to change, resets, gaps, and what lies between.

Data-centre GPUs publish a new value every 100 ms (measured on an H200: 95 % within 98 to 102 ms); between two changes the
counter says nothing, so a window runs from one change to the next, whenever it was looked at.
"""

from dataclasses import dataclass

from perjoule.sidecar.ports import Reading
from perjoule.sidecar.units import NS_PER_S, energy_uj, power_w

STRAY = 0.5  # of a period: a change further off belongs to another beat
PHASE, PERIOD = 0.05, 0.002  # how much of what a change was off by goes into the beat's phase, and into its period (alpha-beta filter)
SHORTEST_GAP_NS = NS_PER_S  # no window up to this long is called a gap


@dataclass(frozen=True, slots=True)
class Window:
    """Energy drawn in (t0, t1]. `gap` says why it cannot be divided among requests: the counter was not seen for long
    ("stale"), or began again ("reset": then what was drawn is not known and `energy_uj` is 0)."""

    t0_ns: int
    t1_ns: int
    energy_uj: int
    gap: str = ""


class Beat:
    """When a counter has changed, of which it is only known that it was between two looks.

    A counter keeps a beat (H200: 95 % of changes within 98 to 102 ms), so the change was a period after the one before, or as near
    to that as the looks allow. Looking every 20 ms that dates changes to 2.3 to 2.9 ms, the middle between the looks to 5.9 to 6.6 (one
    standard deviation, on four recordings, against looks every 7 ms). Without a beat it is never outside of the looks.
    """

    def __init__(self, period_ns: int) -> None:
        self._period_ns = float(period_ns)
        self._last_ns: int | None = None

    def date(self, earliest_ns: int, latest_ns: int) -> int:
        """The change that fell between these two looks."""
        middle_ns, before_ns = (earliest_ns + latest_ns) // 2, self._last_ns
        self._last_ns = middle_ns
        if before_ns is not None and latest_ns - before_ns < (1 + STRAY) * self._period_ns:
            expected_ns = before_ns + round(self._period_ns)
            off_ns = middle_ns - expected_ns
            self._last_ns = min(max(expected_ns + round(PHASE * off_ns), earliest_ns), latest_ns)
            if abs(off_ns) < STRAY * self._period_ns:
                self._period_ns += PERIOD * off_ns
        return self._last_ns


class Timeline:
    """One device's counter. `origin_ns` is the first change: before it, nothing was measured."""

    def __init__(self, period_ns: int, wrap_uj: int | None = None) -> None:
        self._wrap_uj = wrap_uj
        self._beat = Beat(period_ns)
        self._longest_ns = max(SHORTEST_GAP_NS, 5 * period_ns)
        self._value_uj: int | None = None
        self._looked_ns: int | None = None  # the last look that saw no change
        self._power_mw: int | None = None
        self._last: Window | None = None
        self.drawn_uj = 0  # in all windows
        self.origin_ns: int | None = None
        self.changed_ns: int | None = None

    def add(self, reading: Reading) -> Window | None:
        """Take one reading; answers the window that it closes, if it does."""
        if self.changed_ns is not None and reading.t_after_ns <= self.changed_ns:
            return None  # late: its window is closed already
        if reading.power_mw is not None:
            self._power_mw = reading.power_mw
        before, value = self._value_uj, reading.energy_uj
        if value == before:
            self._looked_ns = reading.t_before_ns
            return None
        # A call's begin keeps the counter's beat better than its end (H200 under load: 90 % within 97 to 103 ms against 85 to 115 ms).
        t_ns = self._beat.date(reading.t_before_ns if self._looked_ns is None else self._looked_ns, reading.t_before_ns)
        self._value_uj, self._looked_ns = value, None
        if before is None:
            return None  # the first look
        previous, self.changed_ns = self.changed_ns, t_ns
        if previous is None:
            self.origin_ns = t_ns  # the first change: the window that it ends began before anybody looked
            return None
        self._last = self._window(previous, t_ns, value - before)
        self.drawn_uj += self._last.energy_uj
        return self._last

    def _window(self, t0_ns: int, t1_ns: int, delta_uj: int) -> Window:
        if delta_uj < 0 and self._wrap_uj is not None:
            delta_uj += self._wrap_uj
        if delta_uj < 0:
            return Window(t0_ns, t1_ns, 0, "reset")
        return Window(t0_ns, t1_ns, delta_uj, "stale" if t1_ns - t0_ns > self._longest_ns else "")

    @property
    def power_w(self) -> float | None:
        """Power now: the sensor's if there is one, else the mean of the last window."""
        if self._power_mw is not None:
            return self._power_mw / 1000
        return power_w(self._last.energy_uj, self._last.t1_ns - self._last.t0_ns) if self._last is not None else None

    def energy_since_change(self, t_ns: int) -> int:
        """An estimate of what was drawn after the last change, which no window holds yet; at most one second's worth."""
        power, changed = self.power_w, self.changed_ns
        if power is None or changed is None or t_ns <= changed:
            return 0
        return energy_uj(power, min(t_ns - changed, self._longest_ns))
