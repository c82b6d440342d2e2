"""What is asked now and then beside the traffic: how large the engine's batch may be, what it has to do, who else computes on its boards.

No answer is no harm: the batch then is what its requests show, and of neighbours nothing is said.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.metering.steady_state import Plateau
from perjoule.sidecar.ports import Condition, Load
from perjoule.sidecar.process.strangers import InFlight, Strangers
from perjoule.sidecar.units import NS_PER_S

LOOK_EVERY_S = 5.0  # at the load, while requests run: its page of metrics takes the engine some milliseconds to write
FRESH_S = 1.0  # a count that is no older is compared with the requests of this time
COUNT_EVERY_S = 60.0  # the processes on the boards
MOST_RANKS = 256  # that are shown
ENGINES = 1  # processes of an engine on each of its boards: vLLM has one worker there

logger = logging.getLogger("perjoule")


@dataclass(frozen=True, slots=True)
class Questions:
    """How to ask. The first two take the engine's URL, and answer None for what it does not tell; the others block: how many processes
    compute on each board that is known, by UUID, and how each board is."""

    largest_batch: Callable[[str], Awaitable[int | None]]
    load: Callable[[str], Awaitable[Load | None]]
    computing: Callable[[], Mapping[str, int]] | None = None
    conditions: Callable[[], Sequence[Condition]] | None = None


@dataclass(slots=True)
class Lookout:
    """Tells the meter how large the batch may be, where `told` (`--max-num-seqs`) does not, and people who else uses engine and boards.

    `load` is what the engine said at the last look, None while nothing of ours runs: then it is not asked.
    """

    meter: Meter
    ask: Questions
    url: str
    told: int
    ranks: int  # engine cores behind the URL
    computing: Mapping[str, int] = field(default_factory=dict, init=False)
    load: Load | None = field(default=None, init=False)
    strangers: Strangers = field(default_factory=Strangers, init=False)
    _named: int = field(default=0, init=False)
    _plateau: Plateau = field(default_factory=Plateau, init=False)
    _looked_ns: int = field(default=0, init=False)
    _rates: dict[str, float] = field(default_factory=dict, init=False)
    _warned: set[str] = field(default_factory=set, init=False)

    async def engine_is_news(self) -> None:
        """Another engine answers, or the first: what was known of it holds no more."""
        self._forget()
        if self.told:
            return
        self._plateau = Plateau()
        try:
            self._named = await self.ask.largest_batch(self.url) or 0
        except Exception:
            logger.debug("the engine's largest batch is not known", exc_info=True)
            self._named = 0
        self.meter.know_batch(self._named // self.ranks)

    async def watch_load(self) -> None:
        """For ever: look at what the engine has to do while requests run."""
        begun, waiting = self.meter.begun, 0
        while True:
            earlier = InFlight(self.meter)
            await asyncio.sleep(LOOK_EVERY_S - FRESH_S)
            lately = InFlight(self.meter)
            await asyncio.sleep(min(FRESH_S, LOOK_EVERY_S))
            if not self.meter.in_flight:
                self._forget()
                continue
            try:
                load = await self.ask.load(self.url)
            except Exception:
                logger.debug("the engine's load cannot be read", exc_info=True)
                load = None
            if load is None:
                self._forget()
                continue
            before = self._note(load, time.monotonic_ns())
            self.strangers.look((lately if load.lag_s <= FRESH_S else earlier).since(self.meter).strangers(load))
            self._warn(before, load)
            joined = self.meter.begun - begun - (load.waiting - waiting)
            begun, waiting = self.meter.begun, load.waiting
            if self.told or self._named:  # while it was asked, the engine may have become another
                continue
            self._plateau.look(load.running, load.waiting, max(0, joined))
            self.meter.know_batch(self._plateau.seen // self.ranks)

    def _forget(self) -> None:
        self.load, self.strangers, self._rates = None, Strangers(), {}

    def _note(self, load: Load, t_ns: int) -> Load | None:
        """Keep it, and what its counters did since the last look, which is returned."""
        before, since_s = self.load, (t_ns - self._looked_ns) / NS_PER_S
        self.load, self._looked_ns, self._rates = load, t_ns, {}
        for name in ("prompt_tokens", "cached_tokens", "output_tokens", "flops", "read_bytes", "written_bytes") if before else ():
            now, then = getattr(load, name), getattr(before, name)
            if now is not None and then is not None and now >= then and since_s > 0:  # else it has begun again
                self._rates[f"{name}_per_second"] = (now - then) / since_s
        return before

    def _warn(self, before: Load | None, load: Load) -> None:
        """Say what makes shares untrue: once."""
        if self.strangers.seen:
            self._once("strangers", "the engine runs at least %d requests that did not come through here: their joules are in the counter, "
                       "and are divided among those that did", self.strangers.seen)
        if before is not None and (load.preemptions or 0) > (before.preemptions or 0):
            self._once("preemptions", "the engine throws requests out of its batch for want of memory (%d times since it began), and "
                       "computes their prompts again: to whom that happens it does not say, so that all who run meanwhile bear it",
                       load.preemptions)

    def _once(self, what: str, text: str, *values: object) -> None:
        if what not in self._warned:
            self._warned.add(what)
            logger.warning(text, *values)

    def shown(self) -> dict[str, object] | None:
        """What the engine said last, for people; what it does not tell is left out."""
        load = self.load
        if load is None:
            return None
        told = {"running": load.running, "waiting": load.waiting, "unknown_requests": self.strangers.seen, "kv_use": load.kv_use,
                "preemptions": load.preemptions, **self._rates,
                "ranks": {name: list(both) for name, both in islice(load.ranks.items(), MOST_RANKS)} if len(load.ranks) > 1 else None}
        return {name: value for name, value in told.items() if value is not None}

    async def watch_boards(self) -> None:
        """For ever: count the processes that compute on each board."""
        computing = self.ask.computing
        while computing is not None:
            try:
                self.computing = await asyncio.to_thread(computing)
            except Exception:
                logger.debug("processes on the boards cannot be counted", exc_info=True)
            for uuid, count in self.shared.items():
                self._once(uuid, "%d processes compute on %s, where an engine has %d: the joules of the others are in its counter, "
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
