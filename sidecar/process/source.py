"""Where the joules come from: a counter that was there at the start, one elsewhere that is waited for, as the engine is, or none."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.ports import EnergyCounter, Reading
from perjoule.sidecar.process.sampler import Sampler

AGAIN_FIRST_S, AGAIN_MOST_S = 0.5, 5.0

logger = logging.getLogger("perjoule")

Host = Callable[[], int]  # microjoules of the host beside the boards; raises OSError
Open = Callable[[], EnergyCounter]  # blocks; raises UnavailableError, or ValueError for pools that it has not


class Source:
    """`counter`, its `sampler`, and the `host` beside it, all None while there is no counter. Used on the event loop."""

    def __init__(self, meter: Meter, counter: EnergyCounter | None, *, awaited: Open | None, poll_ns: int,
                 host_of: Callable[[EnergyCounter], Host | None], deliver: Callable[[tuple[Reading, ...]], None]) -> None:
        """`deliver` is called in the sampler's thread. `awaited` opens what was not there at the start."""
        self.counter: EnergyCounter | None = None
        self.sampler: Sampler | None = None
        self.host: Host | None = None
        self._meter, self._awaited, self._host_of, self._deliver, self._poll_ns = meter, awaited, host_of, deliver, poll_ns
        if counter is not None:
            self._take(counter, host_of(counter))

    @property
    def failing(self) -> bool:
        """Whether there should be readings and are none."""
        return self._awaited is not None or (self.sampler is not None and self.sampler.failing)

    def start(self) -> None:
        """Begin to read, if there is a counter."""
        if self.sampler is not None:
            self.sampler.start()

    async def wait(self, news: Callable[[], Awaitable[None]]) -> None:
        """Until the source that is waited for is there, which `news` is then told; why it is not, is said whenever that changes."""
        said, again_s = "", AGAIN_FIRST_S
        while self._awaited is not None:
            try:
                self._take(*await asyncio.to_thread(self._opened, self._awaited))
            except Exception as why:  # whatever is wrong with it, it may be put right
                if str(why) != said:
                    said = str(why)
                    logger.warning("the source of energy is waited for; requests are served, and have no joules meanwhile: %s", why)
                await asyncio.sleep(again_s)
                again_s = min(2 * again_s, AGAIN_MOST_S)
                continue
            self._awaited = None
            self.start()
            await news()

    def close(self) -> None:
        """End the thread, and hang up."""
        if self.sampler is not None:
            self.sampler.stop()
        if self.counter is not None:
            self.counter.close()

    def _opened(self, open_: Open) -> tuple[EnergyCounter, Host | None]:
        counter = open_()
        return counter, self._host_of(counter)

    def _take(self, counter: EnergyCounter, host: Host | None) -> None:
        self._meter.reads(counter.devices, time.monotonic_ns(), source=counter.name, status=counter.status, boundary=counter.boundary,
                          period_ns=counter.period_ns, wrap_uj=counter.wrap_uj)
        self.counter, self.host = counter, host
        self.sampler = Sampler(counter, self._deliver, self._poll_ns, _failed)


def _failed(text: str) -> None:
    logger.warning("the energy counter cannot be read (requests are served, energy will be missing): %s", text)
