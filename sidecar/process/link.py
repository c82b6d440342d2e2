"""The meter's end of the wire to one worker process: what it tells goes to the desk, what it asks is answered, and if it dies its
requests end as errored."""

import asyncio
import logging
import time
from array import array
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, cast

from perjoule.sidecar.dialects.jobs import Kind as JobKind
from perjoule.sidecar.dialects.requests import Asked
from perjoule.sidecar.dialects.watch import Identity
from perjoule.sidecar.process.shared_desk import SharedDesk
from perjoule.sidecar.process.wire import Kind, Messages, asked_of, batch, facts_of, look_of, message, opened_of, seen_of
from perjoule.sidecar.record import FACTS, RequestFacts, TokenSource

MOST_AT_ONCE = 16  # replies that are sent together; more, and the first of them would wait for a millisecond

_who = itemgetter(FACTS.index("record_id"), FACTS.index("request_id"), FACTS.index("tenant"))

logger = logging.getLogger("perjoule")


@dataclass(slots=True)
class Running:
    """A worker's request that runs: what the desk is told of it, and what is recorded if the worker dies."""

    identity: Identity
    asked: Asked
    begun_ns: int
    said: list[Any]  # its facts at the beginning, unread
    frames: int = 0

    def facts(self, t_ns: int) -> RequestFacts:
        """As of now."""
        facts = facts_of(self.said)
        facts = replace(facts, end_ns=facts.end_ns + t_ns - self.begun_ns)
        return replace(facts, output_tokens=self.frames, output_source=TokenSource.FRAMES) if self.frames else facts


class Link(asyncio.Protocol):
    """One worker's. `heard` is told what is not metering, `lost` that the worker is gone."""

    def __init__(self, desk: SharedDesk, heard: Callable[[Kind], None], lost: Callable[[], None]) -> None:
        self._desk, self._heard, self._lost = desk, heard, lost
        self._messages = Messages()
        self._transport: asyncio.Transport | None = None
        self._running: dict[int, Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._latest_ns = 0  # of what it told; a worker's times come in order
        self._reads = False  # what is said meanwhile is sent together
        self._replies: list[bytes] = []
        self._takes: dict[int, Callable[..., None]] = {
            Kind.BEGUN: self._begins, Kind.PROMPT: self._has_prompt, Kind.FRAMES: self._shows, Kind.ENDED: self._ends, Kind.ASK: self._ask,
            Kind.FIND: self._find, Kind.ADMIT: self._admit, Kind.FAILED: desk.failed, Kind.OUTLIVES: self._outlives, Kind.SAW: self._saw,
            Kind.REMOVED: desk.removed, Kind.VIEW: self._view}

    @property
    def in_flight(self) -> int:
        """Its requests that run."""
        return len(self._running)

    def say(self, kind: Kind, *said: Any) -> None:
        """Tell the worker."""
        self._replies.append(message(kind, *said))
        if not self._reads or len(self._replies) == MOST_AT_ONCE:
            self._send()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        told, self._reads = self._messages.feed(data), True
        for kind, said in told:
            try:
                if (take := self._takes.get(kind)) is not None:
                    take(*said)
                else:
                    self._heard(Kind(kind))
            except Exception:
                self._desk.failed()
                logger.exception("what a worker said could not be metered")
        self._reads = False
        if self._replies:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        now_ns = time.monotonic_ns()
        for number in self._running:
            self._desk.put(now_ns, self._died, number)
        self._lost()

    # what it says

    def _begins(self, number: int, t_ns: int, rank: int | None, asked: list[Any], facts: list[Any]) -> None:
        record_id, request_id, tenant = _who(facts)
        running = Running(Identity(record_id, request_id, tenant, None, None, None, rank), asked_of(asked), t_ns, facts)
        self._running[number], self._latest_ns = running, t_ns
        self._desk.put(t_ns, self._begun, running)

    def _has_prompt(self, number: int, tokens: int, cached: int) -> None:
        self._desk.put(self._latest_ns, self._prompt, number, tokens, cached)

    def _shows(self, told: "array[int]") -> None:
        put, shown = self._desk.put, self._shown
        for i in range(0, len(told), 3):
            put(told[i + 1], shown, told[i], told[i + 2])
        self._latest_ns = told[-2]

    def _ends(self, number: int, t_ns: int, facts: list[Any]) -> None:
        self._latest_ns = t_ns
        self._desk.put(t_ns, self._ended, number, facts_of(facts))

    def _ask(self, record_id: str, t_ns: int, settled: bool) -> None:
        self._desk.catch_up(t_ns)
        try:
            self._desk.ask(record_id, t_ns, lambda charge: self.say(Kind.TOLD, record_id, charge), settled=settled)
        except Exception:
            self.say(Kind.TOLD, record_id, None)
            raise

    def _admit(self, question: int, t_ns: int, name: str) -> None:
        self.say(Kind.ADMITTED, question, self._desk.limits.admit(name, t_ns))

    def _outlives(self, number: int, t_ns: int, facts: list[Any], opened: list[Any]) -> None:
        """A job is nobody's request any more: it is kept here, and goes on if the worker dies."""
        self._desk.put(t_ns, self._outlived, number)
        self._desk.outlives(facts_of(facts), opened_of(opened), t_ns)

    def _saw(self, kind: str, job_id: str, seen: list[Any], t_ns: int) -> None:
        self._desk.saw(JobKind(kind), job_id, seen_of(seen), t_ns)

    def _find(self, question: int, any_id: str) -> None:
        self._answer(Kind.FOUND, question, self._desk.find(any_id))

    def _view(self, question: int, look: list[Any]) -> None:
        self._answer(Kind.VIEWED, question, self._desk.view(look_of(look)))

    # what it said, in its turn

    def _begun(self, t_ns: int, running: Running) -> None:
        self._desk.begin(running, t_ns)

    def _shown(self, t_ns: int, number: int, count: int) -> None:
        running = self._running[number]
        running.frames += count
        self._desk.tokens(running.identity.record_id, t_ns, count)

    def _prompt(self, _: int, number: int, tokens: int, cached: int) -> None:
        self._desk.prompt(self._running[number].identity.record_id, tokens, cached)

    def _ended(self, t_ns: int, number: int, facts: RequestFacts) -> None:
        del self._running[number]
        self._desk.end(facts, t_ns)

    def _died(self, t_ns: int, number: int) -> None:
        if (running := self._running.pop(number, None)) is not None:  # its end may have been on the way
            self._desk.end(running.facts(t_ns), t_ns)

    def _outlived(self, _: int, number: int) -> None:
        del self._running[number]

    # answers

    def _answer(self, kind: Kind, question: int, finding: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(self._once_found(kind, question, finding))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _once_found(self, kind: Kind, question: int, finding: Coroutine[Any, Any, Any]) -> None:
        try:
            self.say(kind, question, await finding, None)
        except OSError as error:
            self.say(kind, question, None, str(error))

    def _send(self) -> None:
        replies, self._replies = self._replies, []
        if self._transport is not None:
            self._transport.write(batch(replies))
