"""One answer as the client gets it: head, framing, what is added, what is hidden. Bytes in, bytes out; nothing is sent here.

An answer that is not streamed is held until it is whole, since its energy goes into the head and heads go first. A stream goes
through piece by piece; its energy is in a comment at the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from perjoule.sidecar.dialects import inband, jobs
from perjoule.sidecar.dialects.works import Product
from perjoule.sidecar.http import heads
from perjoule.sidecar.http.heads import Framing, Head
from perjoule.sidecar.record import Charge
from perjoule.sidecar.telemetry import Header

# What is held in memory of an answer that is not streamed; a larger one (images) goes on without energy in its head.
HOLD_LIMIT = 4 * 1024 * 1024
HOLD_LIMIT_OF_MEDIA = 4 * HOLD_LIMIT  # of what an engine makes one at a time: images, videos
MEDIA = (b"audio/", b"video/")  # sent while they are made, unless their length is said
Told = tuple[Charge, int, Product | None]
TRAILERS = heads.line(b"Trailer", b", ".join(name.encode() for name in Header if name is not Header.INCLUDE))


@dataclass(slots=True)
class Additions:
    """What the operator and this client want added to an answer, or hidden from it. `job_id` is that of a job whose status it is: its
    energy then stands there, and not in `usage`; `at_once` says that the charge is known before the answer is; what is longer than
    `hold_limit` is not held."""

    headers: bool = False
    comment: bool = False
    trailers: bool = False
    in_usage: bool = False
    wait_settled: bool = False
    hide_usage: bool = False
    job_id: str | None = None
    at_once: bool = False
    hold_limit: int = HOLD_LIMIT

    @property
    def shown(self) -> bool:
        """Whether a charge is shown anywhere."""
        return self.headers or self.comment or self.trailers or self.in_usage


class Answer:
    """`open` once, `feed` for each piece, then `close` (clean end) or `abandon` (the engine broke off).

    `tell` is asked when its place in the answer has come. It answers the charge, for how long the request has run, and what was made
    that is not tokens; None where there is nothing to tell yet. It is None for an answer that is not metered: that passes as it came.
    `keep_alive` may be lowered by the framing.
    """

    __slots__ = ("_add", "_editor", "_framing", "_head", "_held", "_http11", "_record_path", "_tell", "is_stream", "keep_alive")

    def __init__(self, additions: Additions, tell: Callable[[], Told | None] | None, record_path: str, *, http11: bool,
                 keep_alive: bool) -> None:
        self._add, self._tell, self._record_path = additions, tell, record_path
        self._http11, self.keep_alive = http11, keep_alive
        self._held: bytes | bytearray | None = None  # the body of an answer whose head has not been given out
        self._editor: inband.StreamEditor | None = None
        self._framing = Framing.NONE
        self.is_stream = False

    @property
    def ends_with_the_connection(self) -> bool:
        """Whether a closed connection would be taken for a clean end."""
        return self._framing is Framing.CLOSE

    def may_tell(self, body: bytes) -> bool:
        """Whether this piece of a stream, not fed yet, may be where its charge is shown."""
        return self._editor is not None and self._editor.may_tell(body)

    def interim(self, head: Head) -> bytes:
        """An answer before the answer (1xx); HTTP/1.0 has none."""
        return heads.answer_head(head.status, head.reason, head.headers, Framing.NONE) if self._http11 else b""

    def open(self, head: Head) -> bytes:
        """The engine's head has come. Answers the client's, or nothing while it is held."""
        self._head = head
        self.is_stream = (heads.first(head.headers, b"content-type") or b"").lower().startswith(b"text/event-stream")
        add = self._add
        if self._tell is None:
            return self._head_bytes()
        if self.is_stream:
            if head.status == 200 and heads.first(head.headers, b"content-encoding") is None and not head.bodyless:
                self._editor = inband.StreamEditor(hide_usage=add.hide_usage, comment=self._comment if add.comment else None,
                                                   usage_energy=self._energy if add.in_usage else None)
        elif add.at_once and not add.in_usage:
            return self._head_bytes(self._energy_fields())
        elif (add.headers or add.in_usage) and self._may_hold(head):
            self._held = b""
            return b""
        return self._head_bytes(self._record_header())

    def _may_hold(self, head: Head) -> bool:
        """Whether the client can wait for this answer until it is whole."""
        if head.length is None:
            return not (heads.first(head.headers, b"content-type") or b"").lower().startswith(MEDIA)
        return head.length <= self._add.hold_limit

    @property
    def passes_tokens(self) -> bool:
        """Whether a whole event that is one more token, should one come now, goes out as a chunk of its own, unchanged."""
        return self._framing is Framing.CHUNKED and (self._editor is None or self._editor.is_at_rest)

    def feed(self, body: bytes) -> bytes:
        """A piece of the engine's body."""
        held = self._held
        if held is None:
            return self._framed(self._editor.feed(body) if self._editor is not None else body)
        if not held:
            held = body  # mostly the whole of it, which is then never copied
        else:
            held = bytearray(held) if isinstance(held, bytes) else held
            held += body
        self._held = held
        if len(held) <= self._add.hold_limit:
            return b""
        self._held = None
        return self._head_bytes(self._record_header()) + self._framed(bytes(held))

    def close(self) -> bytes:
        """The engine's body has ended cleanly: what was held, the energy, and the end of the client's body."""
        held, self._held = self._held, None
        if held is not None:
            return self._whole(held if isinstance(held, bytes) else bytes(held))
        rest = self._framed(self._editor.finish()) if self._editor is not None else b""
        return rest + (heads.last_chunk(self._trailers()) if self._framing is Framing.CHUNKED else b"")

    def abandon(self) -> bytes:
        """The engine broke off: what the client would have got by now, and no end."""
        return self._framed(self._editor.abandon()) if self._editor is not None else b""

    def forget(self) -> None:
        """It is over: let go of whoever tells the charge, who holds this answer, so that neither waits for the garbage collector (an
        answer of 4 MB that was held would wait, too)."""
        self._tell = self._editor = self._held = None

    def _whole(self, body: bytes) -> bytes:
        """An answer that was held, with its energy in front."""
        edited = body
        if self._add.in_usage and (energy := self._energy()):
            job_id = self._add.job_id
            edited = inband.with_energy_in_usage(body, energy) if job_id is None else jobs.with_energy(body, energy, job_id)
        add = self._energy_fields()
        known = self._head.length is not None and edited is body
        return self._head_bytes(add, None if known or self._head.bodyless else len(edited)) + (b"" if self._head.bodyless else edited)

    def _head_bytes(self, add: Sequence[bytes] = (), length: int | None = None) -> bytes:
        head = self._head
        if head.bodyless:
            self._framing = Framing.NONE
        elif length is not None or (head.length is not None and self._editor is None):
            self._framing = Framing.LENGTH
        elif self._http11:
            self._framing = Framing.CHUNKED
            if self._add.trailers and self._tell is not None:
                add = [*add, TRAILERS]
        else:
            self._framing, self.keep_alive = Framing.CLOSE, False
        return heads.answer_head(head.status, head.reason, head.headers, self._framing, length=length, keep_alive=self.keep_alive, add=add)

    def _framed(self, data: bytes) -> bytes:
        return heads.chunk(data) if self._framing is Framing.CHUNKED else data

    def _energy(self) -> dict[str, object]:
        """The energy object; empty where there is nothing to tell yet."""
        told = self._tell() if self._tell is not None else None
        return inband.energy_object(told[0], told[1], self._record_path, told[2]) if told is not None else {}

    def _energy_fields(self) -> list[bytes]:
        """The lines of the head, as far as they are wanted."""
        told = self._tell() if self._add.headers and self._tell is not None else None
        return inband.energy_headers(told[0], self._record_path, told[2]) if told is not None else self._record_header()

    def _comment(self) -> bytes:
        return inband.comment_bytes(self._energy())

    def _trailers(self) -> list[bytes]:
        """The lines of the engine's trailers, and of ours as far as they are wanted."""
        told = self._tell() if self._add.trailers and self._tell is not None else None
        ours = inband.energy_headers(told[0], self._record_path, told[2]) if told is not None else []
        return [*(heads.line(name, value) for name, value in self._head.trailers), *ours]

    def _record_header(self) -> list[bytes]:
        return [inband.record_header(self._record_path)] if self._add.headers else []
