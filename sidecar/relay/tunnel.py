"""A client and the engine joined byte for byte, once both speak WebSocket: what comes in on one side goes out on the other.

Each side's end is passed on as it was: no more to send as such (half close), a reset as a reset. A side that takes nothing for too
long is cut off, and so is one that does not follow when the other has ended. Nothing is cut off for being idle.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from perjoule.sidecar.dialects.realtime import Realtime
from perjoule.sidecar.http.connection import Connection
from perjoule.sidecar.http.downstream import Downstream, reset
from perjoule.sidecar.record import Outcome

logger = logging.getLogger("perjoule")


class Side(asyncio.Protocol):
    """One of the two connections. `before` is the protocol that had it until now, and hears of its end from us."""

    __slots__ = ("_at_full", "_before", "_slow_timer", "_too_slow", "_tunnel", "gone", "has_ended", "look", "other", "to_blame",
                 "transport")

    other: "Side"
    transport: asyncio.Transport

    def __init__(self, tunnel: "Tunnel", before: asyncio.Protocol, to_blame: tuple[Outcome, str], too_slow: tuple[Outcome, str],
                 look: Callable[[int, bytes], None] | None) -> None:
        """`to_blame` is how a session ended that this side ended; `look` is shown what comes from here."""
        self._tunnel, self._before, self.to_blame, self._too_slow, self.look = tunnel, before, to_blame, too_slow, look
        self.has_ended = self.gone = False  # it sends nothing more; its connection is no more
        self._slow_timer: asyncio.TimerHandle | None = None
        self._at_full = 0  # bytes that waited to be taken when that was last looked at

    def send(self, data: bytes) -> None:
        """Bytes for it."""
        if data and not self.transport.is_closing():
            self.transport.write(data)

    def listen(self, on: bool) -> None:
        """Whether to take bytes from it."""
        if not self.transport.is_closing():
            if on:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self.other.send(data)
        if self.look is not None:
            self._tunnel.show(self.look, data)

    def eof_received(self) -> bool:
        """It sends nothing more, but may still listen: True keeps the connection. Under TLS nobody can, and it closes by itself."""
        self.has_ended = True
        self._tunnel.ended_by(self)
        other = self.other.transport
        if self.other.has_ended or not other.can_write_eof():
            other.close()
            return False
        if not other.is_closing():
            other.write_eof()
        return self.transport.get_extra_info("sslcontext") is None

    def pause_writing(self) -> None:
        """It takes less than comes: the other side waits."""
        self.other.listen(False)
        self._at_full = self.transport.get_write_buffer_size()
        self._slow_timer = asyncio.get_running_loop().call_later(self._tunnel.patience_s, self._cut_if_stuck)

    def resume_writing(self) -> None:
        self._stop_timer()
        self.other.listen(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._stop_timer()
        self._tunnel.ended_by(self)
        self._before.connection_lost(exc)
        if self.other.gone:
            self._tunnel.over()
        elif exc is not None:
            reset(self.other.transport)
        else:
            self.other.transport.close()

    # inside

    def _cut_if_stuck(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left < self._at_full:
            self._at_full = left
            self._slow_timer = asyncio.get_running_loop().call_later(self._tunnel.patience_s, self._cut_if_stuck)
        else:
            self._tunnel.cut(*self._too_slow)

    def _stop_timer(self) -> None:
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None


class Tunnel:
    """Both sides, from the engine's 101 on. `done` is set when both connections are gone."""

    __slots__ = ("_cause", "_client", "_deadline", "_engine", "_failed", "_session", "done", "patience_s")

    def __init__(self, client: Downstream, engine: Connection, answer: bytes, session: Realtime | None, *, patience_s: float,
                 failed: Callable[[], None]) -> None:
        """Takes both connections. `answer` is the head of the engine's consent; `session` is who watches, if anybody does; `failed`
        counts a failure of watching; `patience_s` is how long a side may take nothing."""
        self._session, self.patience_s, self._failed = session, patience_s, failed
        self._cause: tuple[Outcome, str] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._client = Side(self, client, (Outcome.CANCELLED, "client_disconnected"), (Outcome.CANCELLED, "slow_reader"),
                            session.client_sent if session is not None else None)
        self._engine = Side(self, engine, (Outcome.ERRORED, "upstream_closed"), (Outcome.ERRORED, "upstream_slow"),
                            session.engine_sent if session is not None else None)
        self._client.other, self._engine.other = self._engine, self._client
        self._engine.transport = engine.hand_over(self._engine)
        self._client.transport, behind = client.hand_over(self._client)
        self._client.listen(True)  # it was paused if it sent much before the consent
        self._client.send(answer)
        self._client.data_received(behind)

    def from_engine(self, data: bytes) -> None:
        """What came with its consent."""
        self._engine.data_received(data)

    def show(self, look: Callable[[int, bytes], None], data: bytes) -> None:
        """To who watches, who may fail without harm to the traffic (law 5)."""
        try:
            look(time.monotonic_ns(), data)
        except Exception:
            self._failed()
            logger.exception("metering a WebSocket failed; its traffic goes on")

    def ended_by(self, side: Side) -> None:
        """One side sends nothing more; the first to do so has ended the session, and the other one has so long to follow. When that is
        the engine, nothing more is to be seen."""
        if self._cause is None:
            self._cause = side.to_blame
            self._deadline = asyncio.get_running_loop().call_later(self.patience_s, self.cut, *side.to_blame)
        if side is self._engine:
            self._end_session()

    def cut(self, outcome: Outcome, error_type: str) -> None:
        """End both connections now. No Close frame says so: both ends know that it was not the other's wish (code 1006)."""
        self._cause = outcome, error_type
        self._end_session()
        self._engine.transport.abort()
        self._client.transport.abort()

    def over(self) -> None:
        """Both connections are gone."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._end_session()
        if not self.done.done():  # nobody waits any more when the sidecar stops
            self.done.set_result(None)

    def _end_session(self) -> None:
        session, self._session = self._session, None
        self._client.look = self._engine.look = None
        cause = self._cause
        if session is not None and cause is not None:
            self.show(lambda t_ns, _: session.over(t_ns, *cause), b"")
