"""The desk as a worker process has it: what it is told goes over a wire to the meter's process, in batches, and charges are asked for."""

import asyncio
from array import array
from collections.abc import Callable
from itertools import count
from typing import Any

from perjoule.sidecar.access.doors import Refusal
from perjoule.sidecar.dialects.jobs import Kind as JobKind
from perjoule.sidecar.dialects.jobs import Look, Opened, Seen
from perjoule.sidecar.dialects.jobwatch import View
from perjoule.sidecar.dialects.watch import Watch
from perjoule.sidecar.process.wire import Kind, batch, charge_of, frames, message, refusal_of, view_of
from perjoule.sidecar.record import Charge, Outcome, RequestFacts
from perjoule.sidecar.units import NS_PER_MS

FLUSH_S = 0.005  # what is told waits no longer than this; the meter waits a little longer before it counts it
MOMENT_NS = NS_PER_MS  # shorter than an engine's step: what is told as one came of one
ANSWER_LIMIT_S = 2.0  # a meter that has not answered by then is in trouble, and the client gets its answer without


class RemoteDesk:
    """Desk, from afar. `send` takes bytes for the wire; what comes back goes to `told` and `answered`."""

    at_hand = False

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._out: list[bytes] = []  # what is ready to be sent
        self._messages: list[bytes] = []  # what was told after it, and before the frames
        self._frames = array("q")
        self._places: dict[int, int] = {}  # where in it the latest of a request is
        self._timed = False  # whether what is told will be sent by a timer
        self._count = count(1)
        self._numbers: dict[str, int] = {}  # of the requests that run
        self._asking: dict[str, tuple[Callable[[Charge | None], None], float]] = {}  # whom to tell, and until when; in order
        self._limited = False  # whether a timer looks after them
        self._questions: dict[int, asyncio.Future[list[Any]]] = {}

    # what a relay asks and a watch tells

    async def admit(self, name: str, t_ns: int) -> Refusal | None:
        """Take one request from the budget of that key; or why not. A meter that does not answer refuses nobody."""
        try:
            (refused,) = await self._answer(Kind.ADMIT, t_ns, name)
        except OSError:
            return None
        return None if refused is None else refusal_of(refused)

    def begin(self, watch: Watch, t_ns: int) -> None:
        """A request is sent to the engine. Its facts go along as they are to be recorded should this process die."""
        number = self._numbers[watch.identity.record_id] = next(self._count)
        self._say(Kind.BEGUN, number, t_ns, watch.identity.rank, watch.asked, watch.facts(t_ns, Outcome.ERRORED, "worker_died"))

    def prompt(self, record_id: str, tokens: int, cached: int) -> None:
        """The engine has said how long its prompt is."""
        self._say(Kind.PROMPT, self._numbers[record_id], tokens, cached)

    def tokens(self, record_id: str, t_ns: int, count: int) -> None:
        """Frames with output have become visible. Those of one request within a moment are told as one."""
        number, frames = self._numbers[record_id], self._frames
        place = self._places.get(number)
        if place is not None and t_ns - frames[place + 1] < MOMENT_NS:
            frames[place + 2] += count
            return
        self._places[number] = len(frames)
        frames.extend((number, t_ns, count))
        if not self._timed:
            self._flush_soon()

    def end(self, facts: RequestFacts, t_ns: int) -> None:
        """It has ended."""
        self._say(Kind.ENDED, self._numbers.pop(facts.record_id), t_ns, facts)

    def outlives(self, facts: RequestFacts, opened: Opened, t_ns: int) -> None:
        """Its answer is over, and has named a job that is not. The client may ask another worker about it next."""
        self._say(Kind.OUTLIVES, self._numbers.pop(facts.record_id), t_ns, facts, opened)
        self.flush()

    def saw(self, kind: JobKind, job_id: str, seen: Seen, t_ns: int) -> None:
        """The engine has told a client something of a job."""
        self._say(Kind.SAW, kind, job_id, seen, t_ns)

    def removed(self, job_ids: tuple[str, ...], t_ns: int) -> None:
        """A client has asked ComfyUI to take jobs out of its queue."""
        self._say(Kind.REMOVED, job_ids, t_ns)

    def failed(self) -> None:
        """A request could not be metered."""
        self._say(Kind.FAILED)

    # questions

    def charge(self, record_id: str, t_ns: int) -> Charge:
        """Not known here: it is asked for."""
        raise RuntimeError("the charge is known to another process; ask for it")

    def ask(self, record_id: str, t_ns: int, tell: Callable[[Charge | None], None], *, settled: bool) -> None:
        """`tell` the charge of a request that has just ended, None if the meter does not answer."""
        loop = asyncio.get_running_loop()
        self._asking[record_id] = tell, loop.time() + ANSWER_LIMIT_S
        if not self._limited:
            self._limited = True
            loop.call_later(ANSWER_LIMIT_S, self._give_up)
        self._say(Kind.ASK, record_id, t_ns, settled)
        self.flush()

    async def find(self, any_id: str) -> dict[str, Any] | None:
        """The record of a record id or of a client's request id, as JSON. Raises OSError while stored records cannot be read."""
        found, error = await self._answer(Kind.FIND, any_id)
        if error is not None:
            raise OSError(error)
        return found if isinstance(found, dict) else None

    async def view(self, look: Look) -> View | None:
        """What is known of a job, None for one that is not ours. Raises OSError while stored records cannot be read."""
        found, error = await self._answer(Kind.VIEW, look)
        if error is not None:
            raise OSError(error)
        return view_of(found) if found is not None else None

    # from the wire

    def heard(self, kind: int, said: list[Any]) -> None:
        """An answer of the meter."""
        if kind == Kind.TOLD:
            self._tell(said[0], None if said[1] is None else charge_of(said[1]))
        elif (waiting := self._questions.pop(said[0], None)) is not None and not waiting.done():
            waiting.set_result(said[1:])

    def lost(self) -> None:
        """The meter is gone: nobody waits for it any longer."""
        for record_id in list(self._asking):
            self._tell(record_id, None)
        for waiting in self._questions.values():
            if not waiting.done():
                waiting.set_exception(OSError("the meter is gone"))

    # inside

    def flush(self) -> None:
        """Send what has been told."""
        self._close()
        if self._out:
            out, self._out = self._out, []
            self._send(b"".join(out))

    def _say(self, kind: Kind, *said: Any) -> None:
        if self._frames:
            self._close()  # so that everything stays in order
        self._messages.append(message(kind, *said))
        if not self._timed:
            self._flush_soon()

    def _close(self) -> None:
        """What was told is put into bytes: the messages, and the frames since the last of them."""
        if self._messages:
            self._out.append(batch(self._messages))
            self._messages = []
        if self._frames:
            self._out.append(frames(self._frames))
            self._frames = array("q")
            self._places.clear()

    def _flush_soon(self) -> None:
        self._timed = True
        asyncio.get_running_loop().call_later(FLUSH_S, self._flush_now)

    def _flush_now(self) -> None:
        self._timed = False
        self.flush()

    def _give_up(self) -> None:
        """Nobody waits for longer than the limit: one timer for all, which goes on to the limit of the next."""
        loop = asyncio.get_running_loop()
        for record_id, (_, until_s) in self._asking.items():
            if until_s > loop.time():
                loop.call_at(until_s, self._give_up)
                return
            loop.call_soon(self._tell, record_id, None)
        self._limited = False

    def _tell(self, record_id: str, charge: Charge | None) -> None:
        tell, _ = self._asking.pop(record_id, (None, 0.0))
        if tell is not None:
            tell(charge)

    async def _answer(self, kind: Kind, *said: Any) -> list[Any]:
        """What the meter says to a question. Raises OSError if it does not answer."""
        question = next(self._count)
        self._questions[question] = waiting = asyncio.get_running_loop().create_future()
        self._say(kind, question, *said)
        self.flush()
        try:
            return await asyncio.wait_for(waiting, ANSWER_LIMIT_S)
        except TimeoutError as error:
            raise OSError("the meter does not answer") from error
        finally:
            self._questions.pop(question, None)
