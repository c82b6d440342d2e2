"""The desk of several processes: what they tell, and what the counters show, is taken in the order in which it happened."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from perjoule.sidecar.access.limits import Limits
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.ports import Reading, Step
from perjoule.sidecar.process.desk import Desk
from perjoule.sidecar.process.in_order import InOrder
from perjoule.sidecar.record import EnergyRecord, RequestFacts
from perjoule.sidecar.records.recent import Recent
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

HOLD_NS = 15 * NS_PER_MS  # a worker sends what it has after 5 ms; then there are the wire and a busy machine

logger = logging.getLogger("perjoule")


class SharedDesk(Desk):
    """A Desk to which events come from links as well."""

    def __init__(self, meter: Meter, recent: Recent, deliver: Callable[[Sequence[EnergyRecord]], None],
                 find_stored: Callable[[str], Awaitable[dict[str, Any] | None]], limits: Limits | None = None) -> None:
        super().__init__(meter, recent, deliver, find_stored, limits)
        self._order = InOrder()
        self._due: asyncio.TimerHandle | None = None

    def put(self, t_ns: int, event: Callable[..., None], *of: Any) -> None:
        """Something happened at `t_ns`; `event(t_ns, *of)` will tell the meter."""
        self._order.put(t_ns, event, *of)
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(HOLD_NS / NS_PER_S, self._catch_up)

    def catch_up(self, t_ns: int) -> None:
        """Tell the meter what happened by `t_ns`. What cannot be metered is counted, and stops nothing (law 5)."""
        for event, at_ns, of in self._order.due(t_ns):
            try:
                event(at_ns, *of)
            except Exception:
                self.failed()
                logger.exception("what a worker said could not be metered")

    def sample(self, readings: Sequence[Reading]) -> None:
        """The counters have been read."""
        self.put(max(reading.t_after_ns for reading in readings), self._sample, readings)

    def step(self, step: Step) -> None:
        """The engine has told of a step."""
        self.put(step.t_ns, lambda _: self.meter.step(step))

    def tick(self, t_ns: int) -> None:
        """Time has passed."""
        self.catch_up(t_ns - HOLD_NS)
        super().tick(t_ns - HOLD_NS)

    def _job_over(self, facts: RequestFacts, t_ns: int) -> None:
        self.put(t_ns, lambda at_ns: self.end(facts, at_ns))

    def _job_runs(self, record_id: str, t_ns: int) -> None:
        self.put(t_ns, lambda _: self.meter.goes_first(record_id))

    def _sample(self, _: int, readings: Sequence[Reading]) -> None:
        super().sample(readings)

    def _catch_up(self) -> None:
        self._due = None
        self.catch_up(time.monotonic_ns() - HOLD_NS)
        if self._order:
            self._due = asyncio.get_running_loop().call_later(HOLD_NS / NS_PER_S, self._catch_up)
