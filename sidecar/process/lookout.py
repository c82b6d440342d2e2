"""What is asked now and then beside the traffic: how large the engine's batch may be, and who else computes on its boards.

No answer is no harm: the batch then is what its requests show, and of neighbours nothing is said.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.metering.steady_state import Plateau
from perjoule.sidecar.ports import Condition

LOOK_EVERY_S = 5.0  # at the queue, while requests run: its page of metrics takes the engine some milliseconds to write
COUNT_EVERY_S = 60.0  # the processes on the boards
ENGINES = 1  # processes of an engine on each of its boards: vLLM has one worker there

logger = logging.getLogger("perjoule")


class Queue(Protocol):
    """Requests in the engine's batch and before it, over all its ranks."""

    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Questions:
    """How to ask. The first two take the engine's URL, and answer None for what it does not tell; the others block: how many processes
    compute on each board that is known, by UUID, and how each board is."""

    largest_batch: Callable[[str], Awaitable[int | None]]
    queue: Callable[[str], Awaitable[Queue | None]]
    computing: Callable[[], Mapping[str, int]] | None = None
    conditions: Callable[[], Sequence[Condition]] | None = None


@dataclass(slots=True)
class Lookout:
    """Tells the meter how large the batch may be, where `told` (`--max-num-seqs`) does not, and people who shares the boards."""

    meter: Meter
    ask: Questions
    url: str
    told: int
    ranks: int  # engine cores behind the URL
    computing: Mapping[str, int] = field(default_factory=dict, init=False)
    _named: int = field(default=0, init=False)
    _plateau: Plateau = field(default_factory=Plateau, init=False)
    _warned: set[str] = field(default_factory=set, init=False)

    async def engine_is_news(self) -> None:
        """Another engine answers, or the first: what was known of its batch holds no more."""
        if self.told:
            return
        self._plateau = Plateau()
        try:
            self._named = await self.ask.largest_batch(self.url) or 0
        except Exception:
            logger.debug("the engine's largest batch is not known", exc_info=True)
            self._named = 0
        self.meter.know_batch(self._named)

    async def watch_queue(self) -> None:
        """For ever: look at the queue of an engine that does not name its limit."""
        begun, waiting = self.meter.begun, 0
        while not self.told:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._named or not self.meter.in_flight:
                continue
            try:
                queue = await self.ask.queue(self.url)
            except Exception:
                logger.debug("the engine's queue cannot be read", exc_info=True)
                continue
            if queue is None:
                continue
            joined = self.meter.begun - begun - (queue.waiting - waiting)
            begun, waiting = self.meter.begun, queue.waiting
            self._plateau.look(queue.running, queue.waiting, max(0, joined))
            if not self._named:  # while it was asked, the engine may have become another
                self.meter.know_batch(self._plateau.seen // self.ranks)

    async def watch_boards(self) -> None:
        """For ever: count the processes that compute on each board."""
        computing = self.ask.computing
        while computing is not None:
            try:
                self.computing = await asyncio.to_thread(computing)
            except Exception:
                logger.debug("processes on the boards cannot be counted", exc_info=True)
            for uuid, count in self.shared.items():
                if uuid not in self._warned:
                    self._warned.add(uuid)
                    logger.warning("%d processes compute on %s, where an engine has %d: the joules of the others are in its counter, "
                                   "and are divided among this engine's requests", count, uuid, ENGINES)
            await asyncio.sleep(COUNT_EVERY_S)

    async def conditions(self) -> dict[str, Condition]:
        """How each board is now, by UUID; empty where nobody says."""
        ask = self.ask.conditions
        return {} if ask is None else {condition.uuid: condition for condition in await asyncio.to_thread(ask)}

    @property
    def shared(self) -> dict[str, int]:
        """The boards on which more compute than the engine, and how many."""
        return {uuid: count for uuid, count in self.computing.items() if count > ENGINES}
