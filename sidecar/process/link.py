"""The meter's end of the wire to one worker process: what it tells goes to the desk, what it asks is answered, and if it dies its
requests end as errored."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from perjoule.sidecar.dialects.jobs import Kind as JobKind
from perjoule.sidecar.dialects.requests import Asked
from perjoule.sidecar.dialects.watch import Identity
from perjoule.sidecar.process.shared_desk import SharedDesk
from perjoule.sidecar.process.wire import Kind, Messages, asked_of, facts_of, look_of, message, opened_of, seen_of
from perjoule.sidecar.record import RequestFacts, TokenSource

logger = logging.getLogger("perjoule")


class Begun(NamedTuple):
    """What the desk is told of a worker's request."""

    identity: Identity
    asked: Asked


@dataclass(slots=True)
class Running:
    """A worker's request that runs, and what is recorded of it if the worker dies."""

    record_id: str
    begun_ns: int
    said: dict[str, Any]  # its facts at the beginning
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

    @property
    def in_flight(self) -> int:
        """Its requests that run."""
        return len(self._running)

    def say(self, kind: Kind, *said: Any) -> None:
        """Tell the worker."""
        if self._transport is not None:
            self._transport.write(message(kind, *said))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for kind, said in self._messages.feed(data):
            try:
                self._take(kind, said)
            except Exception:
                self._desk.failed()
                logger.exception("what a worker said could not be metered")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        now_ns = time.monotonic_ns()
        for number in self._running:
            self._desk.put(now_ns, self._died, number)
        self._lost()

    # what it says

    def _take(self, kind: Kind, said: Any) -> None:
        desk = self._desk
        if kind is Kind.FRAMES:
            for i in range(0, len(said), 3):
                desk.put(said[i + 1], self._shown, said[i], said[i + 2])
            self._latest_ns = said[-2]
        elif kind is Kind.BEGUN:
            number, t_ns, rank, asked, facts = said
            identity = Identity(facts["record_id"], facts["request_id"], facts["tenant"], rank=rank)
            self._running[number], self._latest_ns = Running(identity.record_id, t_ns, facts), t_ns
            desk.put(t_ns, self._begun, Begun(identity, asked_of(asked)))
        elif kind is Kind.PROMPT:
            desk.put(self._latest_ns, self._prompt, *said)
        elif kind is Kind.ENDED:
            number, t_ns, facts = said
            self._latest_ns = t_ns
            desk.put(t_ns, self._ended, number, facts_of(facts))
        elif kind is Kind.ASK:
            self._ask(*said)
        elif kind is Kind.FIND:
            self._answer(kind, *said)
        elif kind in (Kind.OUTLIVES, Kind.SAW, Kind.REMOVED, Kind.VIEW):
            self._take_of_job(kind, said)
        elif kind is Kind.ADMIT:
            question, t_ns, name = said
            self.say(Kind.ADMITTED, question, desk.limits.admit(name, t_ns))
        elif kind is Kind.FAILED:
            desk.failed()
        else:
            self._heard(kind)

    def _take_of_job(self, kind: Kind, said: Any) -> None:
        """A job is nobody's request any more: it is kept here, and goes on if the worker dies."""
        if kind is Kind.OUTLIVES:
            number, t_ns, facts, opened = said
            self._desk.put(t_ns, self._outlived, number)
            self._desk.outlives(facts_of(facts), opened_of(opened), t_ns)
        elif kind is Kind.SAW:
            job_kind, job_id, seen, t_ns = said
            self._desk.saw(JobKind(job_kind), job_id, seen_of(seen), t_ns)
        elif kind is Kind.REMOVED:
            self._desk.removed(*said)
        else:
            self._answer(kind, *said)

    def _ask(self, record_id: str, t_ns: int, settled: bool) -> None:
        self._desk.catch_up(t_ns)
        try:
            self._desk.ask(record_id, t_ns, lambda charge: self.say(Kind.TOLD, record_id, charge), settled=settled)
        except Exception:
            self.say(Kind.TOLD, record_id, None)
            raise

    def _begun(self, t_ns: int, begun: Begun) -> None:
        self._desk.begin(begun, t_ns)

    def _shown(self, t_ns: int, number: int, count: int) -> None:
        running = self._running[number]
        running.frames += count
        self._desk.tokens(running.record_id, t_ns, count)

    def _prompt(self, _: int, number: int, tokens: int, cached: int) -> None:
        self._desk.prompt(self._running[number].record_id, tokens, cached)

    def _ended(self, t_ns: int, number: int, facts: RequestFacts) -> None:
        del self._running[number]
        self._desk.end(facts, t_ns)

    def _died(self, t_ns: int, number: int) -> None:
        if (running := self._running.pop(number, None)) is not None:  # its end may have been on the way
            self._desk.end(running.facts(t_ns), t_ns)

    def _outlived(self, _: int, number: int) -> None:
        del self._running[number]

    def _answer(self, kind: Kind, question: int, asked: Any) -> None:
        task = asyncio.ensure_future(self._find(question, asked) if kind is Kind.FIND else self._view(question, asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _find(self, question: int, any_id: str) -> None:
        try:
            self.say(Kind.FOUND, question, await self._desk.find(any_id), None)
        except OSError as error:
            self.say(Kind.FOUND, question, None, str(error))

    async def _view(self, question: int, look: dict[str, Any]) -> None:
        try:
            self.say(Kind.VIEWED, question, await self._desk.view(look_of(look)), None)
        except OSError as error:
            self.say(Kind.VIEWED, question, None, str(error))
