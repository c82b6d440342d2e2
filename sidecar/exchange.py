"""One request's answer on its way through: bytes go to the client's transport first, then the watch looks at them.

An exchange ends once: the engine ended its answer, the engine broke off, or the client left. It never turns an engine's failure
into a clean end: what was cut arrives cut.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perjoule.sidecar import heads, inband
from perjoule.sidecar.front import Downstream, error_answer
from perjoule.sidecar.heads import Framing
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome
from perjoule.sidecar.telemetry import Header
from perjoule.sidecar.upstream import Connection, Head, UpstreamError
from perjoule.sidecar.watch import Watch

# An answer that is not streamed waits here for its charge, since headers go first; a larger one (images) goes on without.
HOLD_LIMIT = 4 * 1024 * 1024
TRAILERS = b", ".join(name.encode() for name in Header if name is not Header.INCLUDE)


@dataclass(frozen=True, slots=True)
class Additions:
    """What the operator and this client want added to an answer, or hidden from it."""

    headers: bool = False
    comment: bool = False
    trailers: bool = False
    in_usage: bool = False
    wait_settled: bool = False
    hide_usage: bool = False


class Exchange:
    """Receives from one upstream connection, writes to one client. `done` is set when the engine's side is over or gone."""

    __slots__ = ("_add", "_client", "_editor", "_framing", "_head", "_held", "_http11", "_is_head", "_late", "_pending", "_records",
                 "_settled_charge", "_slow_after_s", "_slow_timer", "_watch", "begun", "connection", "done", "failure", "keep_alive",
                 "over")

    def __init__(self, client: Downstream, watch: Watch | None, additions: Additions, *, http11: bool, is_head: bool, keep_alive: bool,
                 slow_after_s: float, records: Callable[[list[EnergyRecord]], None]) -> None:
        self._client, self._watch, self._add, self._records = client, watch, additions, records
        self._http11, self._is_head, self._slow_after_s = http11, is_head, slow_after_s
        self.keep_alive = keep_alive
        self._head: Head | None = None
        self._framing = Framing.NONE
        self._editor: inband.StreamEditor | None = None
        self._held: list[bytes] | None = None  # a body whose head has not been sent yet
        self._late: list[bytes] | None = None  # the end of a stream that waits for its settled charge
        self._pending: tuple[int, bytes] | None = None  # a piece that the watch has not seen yet
        self._settled_charge: Charge | None = None
        self._slow_timer: asyncio.TimerHandle | None = None
        self.begun = False  # a byte has gone to the client
        self.over = False
        self.failure: UpstreamError | None = None
        self.connection: Connection | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        client.exchange = self

    # from the engine

    def received(self, head: Head | None, body: bytes, ended: bool) -> None:
        """Upstream.Receiver: a piece of the answer; with `ended`, the last."""
        if self.over:
            return
        t_ns = time.monotonic_ns()
        out = self._open(head, t_ns) if head is not None else b""
        if self._held is not None:
            self._hold(t_ns, body, ended)
            return
        if self._late is not None or (self._add.wait_settled and self._editor is not None and self._is_last(t_ns, body)):
            self._write(out)
            self._late = [*(self._late or ()), body]
        else:
            self._pending = (t_ns, body)
            self._write(out + self._frame(self._editor.feed(body) if self._editor is not None else body))
            self._look()
        if ended:
            self._let_go()
            if self._watch is not None:
                self._look()
                self._records(self._watch.end(t_ns, Outcome.COMPLETED))
            if self._late is None:
                self.conclude()
            self._set_done()

    def lost(self, error: UpstreamError) -> None:
        """Upstream.Receiver: the engine broke off. With nothing sent yet, whoever waits on `done` decides what to answer."""
        if self.over:
            return
        self.failure = error
        if self.begun:
            self.over = True
            if self._editor is not None:
                self._write(self._frame(self._editor.abandon() + b"".join(self._late or ())))
            self._end_watch(Outcome.ERRORED, error.kind)
            self._cut()
        self._set_done()

    def upstream_writable(self, writable: bool) -> None:
        """Upstream.Receiver: request bodies are sent whole, within the limit on their size; there is nothing to hold back."""

    # from the client

    def client_writable(self, writable: bool) -> None:
        """Front.Writer: the client's socket is full, or has room again; the engine's side waits with it, for a while."""
        if self.connection is None:
            return
        if writable:
            self.connection.resume()
            if self._slow_timer is not None:
                self._slow_timer.cancel()
                self._slow_timer = None
        else:
            self.connection.pause()
            self._slow_timer = asyncio.get_running_loop().call_later(self._slow_after_s, self._too_slow)

    def client_gone(self) -> None:
        """Front.Writer: nobody reads any more. The engine's connection is closed at once, so that it stops working for nobody."""
        if self.over:
            return
        self.over = True
        said_all = self._watch is not None and self._watch.saw_done
        self._end_watch(Outcome.COMPLETED if said_all else Outcome.CANCELLED, None if said_all else "client_disconnected")
        if self.connection is not None:
            self.connection.abandon()
        self._set_done()

    # ends

    def conclude(self, settled: Charge | None = None) -> None:
        """Send what is left: a held answer, the end of a stream, the last chunk. `settled` is the charge to show, if it is known."""
        if self.over:
            return
        self.over = True
        if self._held is not None:
            self._release(settled)
        elif self._editor is not None:
            self._settled_charge = settled
            rest = b"".join(self._editor.feed(piece) for piece in self._late or ()) + self._editor.finish()
            self._write(self._frame(rest))
        if self._framing is Framing.CHUNKED:
            assert self._head is not None
            self._write(heads.last_chunk([*self._head.trailers, *self._trailers(settled)]))
        if not self.keep_alive and self._client.transport is not None:
            self._client.transport.close()
        self._detach()

    def refuse(self, error: UpstreamError) -> None:
        """Nothing has been sent and nothing will come: answer the failure."""
        if self.over:
            return
        self.over = True
        self._end_watch(Outcome.ERRORED, error.kind)
        self._write(error_answer(error.status, str(error), error.kind, keep_alive=self.keep_alive))
        self._detach()

    def fail(self) -> None:
        """Something of ours broke: it is the sidecar's error, and no clean end."""
        if not self.over:
            self.over = True
            self._end_watch(Outcome.ERRORED, "sidecar_error")
            if self.connection is not None:
                self.connection.abandon()
            if self.begun:
                self._cut()
            self._detach()

    def again(self) -> None:
        """Forget a connection that had gone stale before it answered; another is about to be tried."""
        self.failure, self.connection = None, None
        self.done = asyncio.get_running_loop().create_future()

    # inside

    def _open(self, head: Head, t_ns: int) -> bytes:
        """Note the head; answer its bytes, or nothing while it is held back."""
        self._head = head
        kind = (heads.first(head.headers, b"content-type") or b"").lower()
        encoding = heads.first(head.headers, b"content-encoding")
        is_stream = kind.startswith(b"text/event-stream")
        watch = self._watch
        if watch is not None:
            watch.head(t_ns, head.status, streamed=is_stream, encoding=encoding)
        editable = watch is not None and not head.bodyless and encoding is None
        if editable and is_stream and head.status == 200:
            add = self._add
            self._editor = inband.StreamEditor(hide_usage=add.hide_usage, comment=self._comment if add.comment else None,
                                               usage_energy=self._energy if add.in_usage else None)
        elif watch is not None and not is_stream and (self._add.headers or self._add.in_usage) and (head.length or 0) <= HOLD_LIMIT:
            self._held = []
            return b""
        return self._head_bytes(length=None, add=self._record_header())

    def _head_bytes(self, *, length: int | None, add: list[tuple[bytes, bytes]]) -> bytes:
        head = self._head
        assert head is not None
        if head.bodyless:
            self._framing = Framing.NONE
        elif length is not None or (head.length is not None and self._editor is None):
            self._framing = Framing.LENGTH
        elif self._http11:
            self._framing = Framing.CHUNKED
        else:
            self._framing, self.keep_alive = Framing.CLOSE, False
        if self._framing is Framing.CHUNKED and self._add.trailers and self._watch is not None:
            add = [*add, (b"Trailer", TRAILERS)]
        return heads.answer_head(head.status, head.reason, head.headers, self._framing, length=length, keep_alive=self.keep_alive, add=add)

    def _hold(self, t_ns: int, body: bytes, ended: bool) -> None:
        assert self._held is not None
        self._held.append(body)
        if self._watch is not None:
            self._watch.body(t_ns, body)
        if ended:
            self._let_go()
            if self._watch is not None:
                self._records(self._watch.end(t_ns, Outcome.COMPLETED))
            if not self._add.wait_settled:
                self.conclude()
            self._set_done()
        elif sum(map(len, self._held)) > HOLD_LIMIT:
            held, self._held = b"".join(self._held), None
            self._write(self._head_bytes(length=None, add=self._record_header()) + self._frame(held))

    def _release(self, settled: Charge | None) -> None:
        """The whole of an answer that was held back, with its charge in front."""
        assert self._head is not None
        assert self._watch is not None
        body = b"".join(self._held or ())
        charge = settled or self._watch.charge(time.monotonic_ns())
        add = inband.energy_headers(charge, self._record_path) if self._add.headers else self._record_header()
        length = None
        if self._head.bodyless:
            body = b""
        else:
            edited = inband.with_energy_in_usage(body, self._energy_of(charge)) if self._add.in_usage else body
            length = len(edited) if edited is not body or self._head.length is None else None
            body = edited
        self._write(self._head_bytes(length=length, add=add) + body)

    def _is_last(self, t_ns: int, body: bytes) -> bool:
        """Whether this piece says the stream's last word; the watch has then seen it already."""
        assert self._watch is not None
        self._watch.body(t_ns, body)
        return self._watch.saw_done

    def _look(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None and self._watch is not None:
            self._watch.body(*pending)

    def _comment(self) -> bytes:
        return inband.comment_bytes(self._energy())

    def _energy(self) -> dict[str, Any]:
        assert self._watch is not None
        self._look()
        return self._energy_of(self._settled_charge or self._watch.charge(time.monotonic_ns()))

    def _energy_of(self, charge: Charge) -> dict[str, Any]:
        assert self._watch is not None
        return inband.energy_object(charge, self._watch.duration_ns(time.monotonic_ns()), self._record_path)

    @property
    def _record_path(self) -> str:
        assert self._watch is not None
        return f"/energy/{self._watch.identity.record_id}"

    def _record_header(self) -> list[tuple[bytes, bytes]]:
        return [(Header.RECORD.encode(), self._record_path.encode())] if self._watch is not None and self._add.headers else []

    def _trailers(self, settled: Charge | None) -> list[tuple[bytes, bytes]]:
        if not self._add.trailers or self._watch is None:
            return []
        return inband.energy_headers(settled or self._watch.charge(time.monotonic_ns()), self._record_path)

    def _frame(self, data: bytes) -> bytes:
        return heads.chunk(data) if self._framing is Framing.CHUNKED else data

    def _write(self, data: bytes) -> None:
        if data and self._client.transport is not None:
            self.begun = True
            self._client.transport.write(data)

    def _end_watch(self, outcome: Outcome, error_type: str | None) -> None:
        if self._watch is not None:
            self._look()
            self._records(self._watch.end(time.monotonic_ns(), outcome, error_type))

    def _too_slow(self) -> None:
        if not self.over:
            self.over = True
            self._end_watch(Outcome.CANCELLED, "slow_reader")
            if self.connection is not None:
                self.connection.abandon()
            self.keep_alive = False
            if self._client.transport is not None:
                self._client.transport.abort()
            self._set_done()

    def _cut(self) -> None:
        """End the client's connection so that it cannot be taken for a clean end."""
        self.keep_alive = False
        transport = self._client.transport
        if transport is not None:
            if self._framing is Framing.CLOSE:
                transport.abort()  # here a closed connection is the clean end: reset it instead
            else:
                transport.close()
        self._detach()

    def _let_go(self) -> None:
        """The connection is its pool's again, and must not stay paused for the sake of this client."""
        connection, self.connection = self.connection, None
        if connection is not None and self._slow_timer is not None:
            connection.resume()

    def _detach(self) -> None:
        if self._client.exchange is self:
            self._client.exchange = None
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None

    def _set_done(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
