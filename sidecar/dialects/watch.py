"""What is noted of one request while it passes: when, how many tokens, how it ended; told to the meter, and put into its facts."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from perjoule.sidecar.dialects.endpoints import Endpoint
from perjoule.sidecar.dialects.observer import BodyObserver, EventObserver, StreamObserver, observer_for
from perjoule.sidecar.dialects.requests import Asked
from perjoule.sidecar.dialects.usage import NO_USAGE, Usage, usage_in_head
from perjoule.sidecar.dialects.works import Product, work_tokens
from perjoule.sidecar.record import Charge, Outcome, RequestFacts, TokenSource, UnitSource


@dataclass(slots=True)
class Identity:
    """Who and what a request is, known before it is sent on."""

    record_id: str
    request_id: str
    tenant: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    rank: int | None = None  # of the engine's data-parallel ranks, if the client chose one


TELLS_IN_HEAD = "tgi"  # the engine


class Begun(Protocol):
    """A request that is sent to the engine: who it is and what it asks for."""

    @property
    def identity(self) -> Identity: ...
    @property
    def asked(self) -> Asked: ...


class Metering(Protocol):
    """What a watch tells of its request, and to whom. Times are monotonic and come in order."""

    def begin(self, watch: "Watch", t_ns: int) -> None: ...
    def prompt(self, record_id: str, tokens: int, cached: int) -> None: ...
    def tokens(self, record_id: str, t_ns: int, count: int) -> None: ...
    def end(self, facts: RequestFacts, t_ns: int) -> None: ...


class Watch:
    """One metered request, from sent to ended. Takes monotonic times; `arrival_unix_ns` is the wall clock's word for the first."""

    __slots__ = ("_arrival_ns", "_arrival_unix_ns", "_end_ns", "_endpoint", "_engine", "_first_byte_ns", "_first_token_ns",
                 "_in_head", "_last_token_ns", "_metering", "_observer", "_outcome", "_prompt_known", "_status", "_tokens", "asked",
                 "identity", "streamed")

    outlives_client = False  # whether it is computed even if nobody waits for its answer
    told: tuple[Charge, int] | None = None  # its charge and how long it ran, where both are known before

    def __init__(self, metering: Metering, endpoint: Endpoint, asked: Asked, identity: Identity, engine: str, t_ns: int,
                 unix_ns: int) -> None:
        self._metering, self._endpoint, self.asked, self.identity, self._engine = metering, endpoint, asked, identity, engine
        self._arrival_ns, self._arrival_unix_ns = t_ns, unix_ns
        self._first_byte_ns: int | None = None
        self._first_token_ns: int | None = None
        self._last_token_ns: int | None = None
        self._end_ns: int | None = None
        self._status: int | None = None
        self._observer: StreamObserver | BodyObserver | EventObserver | None = None
        self._prompt_known = asked.input_tokens is not None or asked.work_tokens is not None
        self._tokens = 0
        self._outcome: Outcome | None = None
        self._in_head: Usage | None = None
        self.streamed = asked.streamed

    def begin(self, t_ns: int) -> None:
        """It is sent on, and runs from here on: while the client was still uploading it, it cost nothing."""
        self._metering.begin(self, t_ns)

    @property
    def goes_on(self) -> bool:
        """Whether it is not over with its answer, as a job is not."""
        return False

    @property
    def saw_done(self) -> bool:
        """Whether the stream has said its last word (`[DONE]`)."""
        return self._observer is not None and self._observer.saw_done

    def head(self, t_ns: int, status: int, *, streamed: bool, encoding: bytes | None,
             headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """The engine has begun to answer."""
        self._status, self.streamed = status, streamed
        self._first_byte_ns = t_ns
        self._observer = observer_for(self._endpoint, streamed, encoding, self.asked.choices, self.asked.makes)
        if self._engine == TELLS_IN_HEAD and not streamed:
            self._read_head(headers)

    def _read_head(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """What the head of its answer says of what it cost."""
        self._in_head = usage = usage_in_head(headers)
        if usage is not None and self.asked.choices > 1:
            usage.queue_ns = None  # of several prompts it is the sum of what each waited
        if usage is not None and usage.input_tokens is not None and not self._prompt_known:
            self._prompt_known = True
            self._metering.prompt(self.identity.record_id, usage.input_tokens, 0)

    def body(self, t_ns: int, data: bytes) -> None:
        """A piece of the answer's body."""
        observer = self._observer
        if observer is None or self._end_ns is not None:
            return
        new = observer.feed(data)
        if not self._prompt_known and observer.usage is not None and observer.usage.input_tokens is not None:
            self._prompt_known = True
            self._metering.prompt(self.identity.record_id, observer.usage.input_tokens, observer.usage.cached_tokens or 0)
        if new and self.streamed and self.asked.decodes:
            if self._first_token_ns is None:
                self._first_token_ns = t_ns
            self._last_token_ns = t_ns
            self._tokens += new
            self._metering.tokens(self.identity.record_id, t_ns, new)

    @property
    def ordinary(self) -> bytes | None:
        """The bytes by which a whole event, should one come now, is known to be one more token; None if by none."""
        observer = self._observer
        return observer.ordinary if isinstance(observer, StreamObserver) and self._first_token_ns is not None else None

    def token(self, t_ns: int) -> None:
        """One more token: what `body` would find in an event with those bytes."""
        self._last_token_ns = t_ns
        self._tokens += 1
        assert self._observer is not None
        self._observer.output_frames += 1
        self._metering.tokens(self.identity.record_id, t_ns, 1)

    def end(self, t_ns: int, outcome: Outcome, error_type: str | None = None) -> None:
        """It is over; only the first end counts."""
        if self._end_ns is not None:
            return
        self._end_ns = t_ns
        if self._observer is not None:
            self._observer.finish()
            self._weigh()
        if outcome is Outcome.COMPLETED and self._status is not None and self._status >= 400:
            outcome, error_type = Outcome.ERRORED, str(self._status)
        elif outcome is Outcome.COMPLETED and self._observer is not None and self._observer.error is not None:
            outcome, error_type = Outcome.ERRORED, self._observer.error
        self._outcome = outcome
        self._metering.end(self.facts(t_ns, outcome, error_type), t_ns)

    def _weigh(self) -> None:
        """Tell how much work the answer says it was, where that is not what the request said."""
        assert self._observer is not None
        makes = self._observer.makes
        work = work_tokens(makes) if makes is not None and self.asked.work_tokens is not None else None
        if work is not None and work != self.asked.work_tokens:
            self.asked.work_tokens = work
            self._metering.prompt(self.identity.record_id, work, 0)

    @property
    def made(self) -> Product | None:
        """What came of it that is not tokens: as the answer says, and once it has come to a good end; None before, and of tokens."""
        makes = self._observer.makes if self._observer is not None else None
        if makes is None or (self._end_ns is None and makes.units_source is not UnitSource.ANSWERED):
            return None
        return makes if self._outcome in (None, Outcome.COMPLETED) else None

    def duration_ns(self, t_ns: int) -> int:
        return (self._end_ns or t_ns) - self._arrival_ns

    def facts(self, t_ns: int, outcome: Outcome, error_type: str | None) -> RequestFacts:
        """All that is known of it, had it ended now."""
        seen, who, asked = self._observer, self.identity, self.asked
        makes = seen.makes if seen is not None else asked.makes
        made = makes if outcome is Outcome.COMPLETED else None
        usage = (seen.usage if seen is not None else None) or NO_USAGE
        in_head = self._in_head or NO_USAGE
        input_tokens, input_source = _told(usage.input_tokens, in_head.input_tokens)
        output_tokens, output_source = _told(usage.output_tokens, in_head.output_tokens)
        if input_tokens is None:
            input_tokens = asked.input_tokens
            input_source = TokenSource.ESTIMATED if input_tokens is not None else None
        if output_tokens is None and self.streamed and asked.decodes:
            output_tokens, output_source = self._tokens, TokenSource.FRAMES
        return RequestFacts(
            record_id=who.record_id, request_id=who.request_id, arrival_unix_ns=self._arrival_unix_ns, end_ns=t_ns - self._arrival_ns,
            outcome=outcome, endpoint=self._endpoint.name, engine=self._engine, streamed=self.streamed, http_status=self._status,
            error_type=error_type, model=asked.model, response_model=seen.response_model if seen else None,
            response_id=seen.response_id if seen else None, finish_reason=seen.finish_reason if seen else None, tenant=who.tenant,
            trace_id=who.trace_id, span_id=who.span_id, parent_span_id=who.parent_span_id, first_byte_ns=self._since(self._first_byte_ns),
            first_token_ns=self._since(self._first_token_ns), last_token_ns=self._since(self._last_token_ns),
            queue_ns=_told(usage.queue_ns, in_head.queue_ns)[0], input_tokens=input_tokens, cached_tokens=usage.cached_tokens,
            output_tokens=output_tokens, reasoning_tokens=usage.reasoning_tokens, input_source=input_source, output_source=output_source,
            unit=makes.unit if makes else None, units=made.units if made else None, units_source=made.units_source if made else None,
            work_tokens=asked.work_tokens, steps=makes.steps if makes else None, width=makes.width if makes else None,
            height=makes.height if makes else None, frames=makes.frames if makes else None)

    def _since(self, t_ns: int | None) -> int | None:
        return None if t_ns is None else t_ns - self._arrival_ns


def _told(in_usage: int | None, in_head: int | None) -> tuple[int | None, TokenSource | None]:
    """What the answer's usage says, else what its head does, and which of them it was."""
    if in_usage is not None:
        return in_usage, TokenSource.USAGE
    return in_head, TokenSource.ENGINE if in_head is not None else None
