"""What is noted of a job while its creation and the questions about it pass: it begins as any request, and is not over with its answer."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from perjoule.sidecar.dialects.endpoints import Endpoint
from perjoule.sidecar.dialects.jobs import LONGEST_BODY, Kind, Look, Opened, Seen, Verb, job_created, seen_of
from perjoule.sidecar.dialects.observer import Inflate
from perjoule.sidecar.dialects.payload import parsed
from perjoule.sidecar.dialects.requests import Asked
from perjoule.sidecar.dialects.watch import Identity, Metering, Watch
from perjoule.sidecar.dialects.works import Product
from perjoule.sidecar.record import Charge, Outcome, RequestFacts

UNREADABLE = "job_unreadable"  # a job whose id nothing can be asked by


@dataclass(frozen=True, slots=True)
class View:
    """A job's record as a client may see it: since when the job is there and, if it is over, what it cost and for how long it ran."""

    record_id: str
    tenant: str | None
    since_ns: int
    told: tuple[Charge, int] | None = None
    made: Product | None = None


class Keeping(Metering, Protocol):
    """Where jobs are kept that outlive their requests, and what is seen of them is told."""

    def outlives(self, facts: RequestFacts, opened: Opened, t_ns: int) -> None: ...
    def saw(self, kind: Kind, job_id: str, seen: Seen, t_ns: int) -> None: ...


class Body:
    """Collects an answer's body to be read as JSON when it is whole; one that is too long is not read."""

    __slots__ = ("_data", "_encoding", "_too_long")

    def __init__(self, encoding: bytes | None) -> None:
        self._encoding = (encoding or b"identity").strip().lower()
        self._data, self._too_long = bytearray(), False

    def feed(self, data: bytes) -> None:
        """The next piece."""
        if len(self._data) + len(data) > LONGEST_BODY:
            self._too_long = True
            self._data.clear()
        if not self._too_long:
            self._data += data

    def payload(self) -> dict[str, Any] | None:
        """The JSON object in it, None if there is none."""
        text = bytes(self._data)
        if self._encoding != b"identity":
            try:
                text = Inflate(LONGEST_BODY)(text)
            except (zlib.error, OverflowError):
                return None
        return None if self._too_long else parsed(text)


class Creation(Watch):
    """A request that may create a job. If its answer names one, it goes on: `opened` is the job, and its record ends when that does."""

    __slots__ = ("_base", "_body", "_credential", "_keeping", "_kind", "opened")

    outlives_client = True

    def __init__(self, keeping: Keeping, endpoint: Endpoint, asked: Asked, identity: Identity, engine: str, t_ns: int, unix_ns: int, *,
                 kind: Kind, base: str, credential: tuple[tuple[str, str], ...]) -> None:
        super().__init__(keeping, endpoint, asked, identity, engine, t_ns, unix_ns)
        self._keeping, self._kind, self._base, self._credential = keeping, kind, base, credential
        self._body: Body | None = None
        self.opened: Opened | None = None

    @property
    def goes_on(self) -> bool:
        """Whether its answer has named a job."""
        return self.opened is not None

    def head(self, t_ns: int, status: int, *, streamed: bool, encoding: bytes | None,
             headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """The engine has begun to answer."""
        super().head(t_ns, status, streamed=streamed, encoding=encoding, headers=headers)
        self._body = Body(encoding) if 200 <= status < 300 and not streamed else None

    def body(self, t_ns: int, data: bytes) -> None:
        """A piece of the answer's body."""
        super().body(t_ns, data)
        if self._body is not None:
            self._body.feed(data)

    def end(self, t_ns: int, outcome: Outcome, error_type: str | None = None) -> None:
        """The answer is over."""
        body, self._body = self._body, None
        job_id = job_created(self._kind, body.payload()) if body is not None and outcome is Outcome.COMPLETED else None
        if job_id is None or self._end_ns is not None:
            super().end(t_ns, outcome, error_type)
            return
        if not job_id:
            super().end(t_ns, Outcome.ERRORED, UNREADABLE)
            return
        self._end_ns = t_ns
        if self._observer is not None:
            self._observer.finish()
            self._weigh()
        self.opened = Opened(self._kind, job_id, self._base, self._credential)
        self._keeping.outlives(self.facts(t_ns, Outcome.COMPLETED, None), self.opened, t_ns)

    def _weigh(self) -> None:
        if self._kind is not Kind.COMFYUI:  # whose answer says nothing of the work
            super()._weigh()


class Sight:
    """A client's question about a job of ours: the engine's answer passes, and what it says of the job is told. It has of a Watch what
    an exchange asks of one."""

    __slots__ = ("_body", "_keeping", "_look", "_since_ns", "_status", "identity", "made", "told")

    goes_on = False
    outlives_client = False
    saw_done = False
    ordinary: bytes | None = None

    def __init__(self, keeping: Keeping, look: Look, view: View) -> None:
        self._keeping, self._look = keeping, look
        self.identity, self.told, self.made, self._since_ns = Identity(view.record_id, ""), view.told, view.made, view.since_ns
        self._body: Body | None = None
        self._status = 0

    def begin(self, t_ns: int) -> None:
        """It costs nothing."""

    def head(self, _: int, status: int, *, streamed: bool, encoding: bytes | None,
             headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """The engine has begun to answer."""
        self._status = status
        self._body = Body(encoding) if self._look.verb is Verb.STATUS and not streamed else None

    def body(self, _: int, data: bytes) -> None:
        """A piece of the answer's body."""
        if self._body is not None:
            self._body.feed(data)

    def token(self, t_ns: int) -> None:
        """Never called: there is nothing ordinary in it."""

    def end(self, t_ns: int, outcome: Outcome, error_type: str | None = None) -> None:
        """The answer is over."""
        body, self._body = self._body, None
        look = self._look
        if outcome is Outcome.COMPLETED and self._status:
            seen = seen_of(look.kind, look.id, self._status, body.payload() if body is not None else None, look.verb)
            if seen is not None:
                self._keeping.saw(look.kind, look.id, seen, t_ns)
        self._status = 0

    def duration_ns(self, t_ns: int) -> int:
        """For how long the job has been there."""
        return t_ns - self._since_ns
