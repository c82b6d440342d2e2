"""Where requests are metered: the meter, the records it settles, and those who wait for one. One for the whole sidecar.

Exchanges of this process come to it directly, those of worker processes through a link. Everything happens on the event loop.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from perjoule.sidecar.access.doors import Refusal
from perjoule.sidecar.access.limits import Limits
from perjoule.sidecar.dialects.jobs import Kind, Look, Opened, Seen
from perjoule.sidecar.dialects.jobwatch import View
from perjoule.sidecar.dialects.watch import Begun
from perjoule.sidecar.dialects.works import product_of
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.ports import Reading, Step
from perjoule.sidecar.record import Charge, EnergyRecord, RequestFacts
from perjoule.sidecar.records.recent import Recent
from perjoule.sidecar.relay.jobs import Jobs

logger = logging.getLogger("perjoule")

SETTLE_LIMIT_S = 1.0  # a settled value takes a window and a half (about 0.25 s); nobody waits longer than this for it


class Desk:
    """What a watch tells goes to the meter; what the meter settles goes to `deliver`, and to whoever asked for it."""

    at_hand = True  # `charge` answers at once

    def __init__(self, meter: Meter, recent: Recent, deliver: Callable[[Sequence[EnergyRecord]], None],
                 find_stored: Callable[[str], Awaitable[dict[str, Any] | None]], limits: Limits | None = None) -> None:
        """`deliver` takes records as they are settled; `find_stored` looks for one that is no longer recent."""
        self.meter, self.recent, self.limits = meter, recent, limits or Limits()
        self._deliver, self._find_stored = deliver, find_stored
        self.jobs = Jobs(self._job_over, self._job_runs, meter.power_w)
        self.failures = 0  # requests that could not be metered, or not to their end: their records may be lost
        # Called for every frame of every stream, so there is no step between.
        self.tokens, self.prompt = meter.tokens, meter.prompt

    # what a watch tells

    def begin(self, begun: Begun, t_ns: int) -> None:
        """A request is sent to the engine."""
        asked, identity = begun.asked, begun.identity
        tokens = asked.input_tokens if asked.work_tokens is None else asked.work_tokens
        self.meter.begin(identity.record_id, t_ns, model=asked.model, streamed=asked.streamed, input_tokens=tokens,
                         input_bytes=asked.input_bytes, choices=asked.choices, decodes=asked.decodes, rank=identity.rank,
                         tenant=identity.tenant)

    def end(self, facts: RequestFacts, t_ns: int) -> None:
        """It has ended."""
        self._settled(self.meter.end(facts.record_id, t_ns, facts))

    def outlives(self, facts: RequestFacts, opened: Opened, t_ns: int) -> None:
        """Its answer is over, and has named a job that is not."""
        self.jobs.open(facts, opened, t_ns)

    def saw(self, kind: Kind, job_id: str, seen: Seen, t_ns: int) -> None:
        """The engine has told a client something of a job."""
        self.jobs.saw(kind, job_id, seen, t_ns)

    def removed(self, job_ids: Sequence[str], t_ns: int) -> None:
        """A client has asked ComfyUI to take jobs out of its queue, all if none is named."""
        self.jobs.removed(Kind.COMFYUI, job_ids, t_ns)

    def failed(self) -> None:
        """A request could not be metered."""
        self.failures += 1

    # time, readings, and what the engine tells

    def step(self, step: Step) -> None:
        """The engine has told of a step."""
        self.meter.step(step)

    def sample(self, readings: Sequence[Reading]) -> None:
        """The counters have been read."""
        self._settled(self.meter.sample(readings))

    def tick(self, t_ns: int) -> None:
        """Time has passed."""
        self.jobs.tick(t_ns)
        self._settled(self.meter.tick(t_ns))

    # questions

    async def admit(self, name: str, t_ns: int) -> Refusal | None:
        """Take one request from the budget of the key of that name, or say why not."""
        return self.limits.admit(name, t_ns)

    def charge(self, record_id: str, t_ns: int) -> Charge:
        """What a request has cost up to now."""
        record = self.recent.get(record_id)  # it may be settled already, if this question was on its way for long
        return record.charge if record is not None else self.meter.charge(record_id, t_ns)

    def ask(self, record_id: str, t_ns: int, tell: Callable[[Charge | None], None], *, settled: bool) -> None:
        """`tell` the charge of a request that has just ended: now, or once it is `settled` (or as settled as it gets in time). A job that
        is not over is not waited for."""
        if not settled or self.jobs.is_open(record_id):
            tell(self.charge(record_id, t_ns))
            return
        waiting = asyncio.ensure_future(self._once_settled(record_id))
        waiting.add_done_callback(lambda done: tell(None if done.cancelled() or (record := done.result()) is None else record.charge))

    async def find(self, any_id: str) -> dict[str, Any] | None:
        """The record of a record id, of a client's request id or of a job's, as JSON; one that has ended is waited for until it is
        settled. Raises OSError while stored records cannot be read."""
        recent = self.recent.get(any_id)
        settling = self.meter.settling(any_id) or (recent.facts.record_id if recent is not None and not recent.charge.settled else None)
        if settling is not None:
            recent = await self._once_settled(settling)
        found = recent.as_json() if recent is not None else await self._find_stored(any_id)
        if found is None and (of_job := self.jobs.record_of(any_id)) is not None:
            return await self.find(of_job)
        return found

    async def view(self, look: Look) -> View | None:
        """What is known of a job, None for one that is not ours. Raises OSError while stored records cannot be read."""
        known = self.jobs.known(look.kind, look.id)
        if known is None:
            return None
        found = await self.find(known.record_id) if known.is_over else None
        told = made = None
        if found is not None:
            record = EnergyRecord.from_json(found)
            told, made = (record.charge, record.facts.end_ns), product_of(record.facts)
        return View(known.record_id, known.tenant, known.since_ns, told, made)

    async def _once_settled(self, record_id: str) -> EnergyRecord | None:
        return await self.recent.settled(record_id, SETTLE_LIMIT_S) or self.recent.get(record_id)

    def _job_over(self, facts: RequestFacts, t_ns: int) -> None:
        self._safely(lambda: self.end(facts, t_ns))

    def _job_runs(self, record_id: str, _t_ns: int) -> None:
        self._safely(lambda: self.meter.goes_first(record_id))

    def _safely(self, event: Callable[[], None]) -> None:
        """One job that cannot be metered stops no other."""
        try:
            event()
        except Exception:
            self.failed()
            logger.exception("metering a job failed")

    def _settled(self, records: Sequence[EnergyRecord]) -> None:
        if not records:
            return
        now_ns = time.monotonic_ns()
        for record in records:
            try:
                self.jobs.widen(record)
                self.recent.add(record)
                self.limits.spent(record, now_ns)
            except Exception:  # whatever it is, all of them are delivered
                self.failed()
                logger.exception("a settled record is not known everywhere")
        self._deliver(records)
