"""Polls an energy counter at four rates, a quarter of the time each, and keeps what it saw for `perjoule probe`."""

import time
from collections.abc import Callable

from perjoule.adapters.nvml import NvmlCounter
from perjoule.bench.sensor import Span
from perjoule.sidecar.ports import EnergyCounter, Reading
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

RATES_NS = (1 * NS_PER_MS, 10 * NS_PER_MS, 100 * NS_PER_MS, 500 * NS_PER_MS)
LOOK_NS = 10 * NS_PER_MS  # instant power is cheap on NVML: it is looked at this often between polls
EDGE_NS = 1 * NS_PER_S  # how long to wait for a change at the begin and end of a span


def measure(counter: EnergyCounter, seconds: float, progress: Callable[[float], None] = lambda share: None,
            now: Callable[[], int] = time.monotonic_ns,
            sleep: Callable[[float], None] = time.sleep) -> list[list[Span]]:
    """Poll at each of the rates; for each device a list of spans, from change to change. Raises CounterError."""
    by_rate = []
    for done, poll_ns in enumerate(RATES_NS):
        look = Look(counter, now, sleep)
        look.until_changed()
        begin_ns = end_ns = now()
        end_ns += int(seconds * NS_PER_S / len(RATES_NS))
        while now() < end_ns:
            look.wait(min(poll_ns, end_ns - now()))
            look.read()
            progress((done + (now() - begin_ns) / (end_ns - begin_ns)) / len(RATES_NS))
        look.until_changed()
        by_rate.append([Span(poll_ns, *seen) for seen in zip(look.readings, look.powers, strict=True)])
    return [list(spans) for spans in zip(*by_rate, strict=True)]


class Look:
    """Reads a counter and keeps what was seen, device by device."""

    def __init__(self, counter: EnergyCounter, now: Callable[[], int], sleep: Callable[[float], None]) -> None:
        self.readings: list[list[Reading]] = [[] for _ in counter.devices]
        self.powers: list[list[tuple[int, int]]] = [[] for _ in counter.devices]
        self._counter = counter
        self._now = now
        self._sleep = sleep

    def read(self) -> None:
        """One look at all devices."""
        for index, reading in enumerate(self._counter.read()):
            self.readings[index].append(reading)
            self._keep_power(index, reading.t_after_ns, reading.power_mw)

    def until_changed(self) -> None:
        """Read closely until every device shows a new value, so that a span's edges are sharp; not longer than 1 s."""
        self.read()
        before = [seen[-1].energy_uj for seen in self.readings]
        end_ns = self._now() + EDGE_NS
        while self._now() < end_ns and any(
                seen[-1].energy_uj == was for seen, was in zip(self.readings, before, strict=True)):
            self._sleep(RATES_NS[0] / NS_PER_S)
            self.read()

    def wait(self, for_ns: int) -> None:
        """Sleep; where instant power can be read without the counter, look at it meanwhile."""
        end_ns = self._now() + for_ns
        while (left_ns := end_ns - self._now()) > 0:
            self._sleep(min(left_ns, LOOK_NS) / NS_PER_S)
            if isinstance(self._counter, NvmlCounter):
                for index in range(len(self.powers)):
                    self._keep_power(index, self._now(), self._counter.instant_mw(index))

    def _keep_power(self, index: int, t_ns: int, power_mw: int | None) -> None:
        if power_mw is not None:
            self.powers[index].append((t_ns, power_mw))
