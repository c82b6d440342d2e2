"""One request's answer on its way through: bytes go to the client's transport first, then the watch looks at them.

An exchange ends once: the engine ended its answer, the engine broke off, the client left, or it read too slowly. What was cut
arrives cut: a failure of the engine never becomes a clean end. And whatever happens to the watch, the bytes go on. Where the charge
must be asked for (a settled one, or one that another process knows), the answer's last words wait for it.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from perjoule.sidecar.dialects.jobwatch import Sight
from perjoule.sidecar.dialects.sse import is_event
from perjoule.sidecar.dialects.watch import Watch
from perjoule.sidecar.http.connection import UpstreamError
from perjoule.sidecar.http.downstream import Downstream
from perjoule.sidecar.http.front import error_answer
from perjoule.sidecar.http.heads import Head, chunk, first
from perjoule.sidecar.record import Charge, Outcome, Status
from perjoule.sidecar.relay.answer import Additions, Answer, Told
from perjoule.sidecar.relay.sending import Sending

UNKNOWN = Charge(Status.UNAVAILABLE, "", "", settled=False)  # what is said where the meter itself failed

HEAR_OUT_S = 3.0  # the creation of a job, whose name comes within milliseconds; who takes longer is computing already, for a client

logger = logging.getLogger("perjoule")


class Desk(Protocol):
    """Who knows charges, and counts failures of metering. `at_hand` says that `charge` answers at once; else it is not called."""

    @property
    def at_hand(self) -> bool: ...
    def charge(self, record_id: str, t_ns: int) -> Charge: ...
    def ask(self, record_id: str, t_ns: int, tell: Callable[[Charge | None], None], *, settled: bool) -> None: ...
    def failed(self) -> None: ...


class Exchange(Sending):
    """Receives from one upstream connection, writes to one client."""

    __slots__ = ("_answer", "_asks", "_client", "_desk", "_ended", "_late", "_ordinary", "_slow_after_s", "_slow_timer", "_told", "_unseen",
                 "_unseen_ns", "_wants_settled", "_watch", "begun")

    def __init__(self, client: Downstream, watch: Watch | Sight | None, additions: Additions, *, http11: bool, keep_alive: bool,
                 slow_after_s: float, desk: Desk, ended: Callable[[bool], None] | None = None) -> None:
        """`ended` is told once, last of all, whether the client's connection may serve another request; without it, the client is."""
        super().__init__()
        self._client, self._watch, self._desk, self._slow_after_s, self._ended = client, watch, desk, slow_after_s, ended
        record_path = f"/energy/{watch.identity.record_id}" if watch is not None else ""
        self._answer = Answer(additions, self._tell if watch is not None else None, record_path, http11=http11, keep_alive=keep_alive)
        self._wants_settled = additions.wait_settled
        self._asks = watch is not None and watch.told is None and additions.shown and (additions.wait_settled or not desk.at_hand)
        self._late: list[bytes] = []  # the last words of a stream, kept back until its charge is told
        self._told: Charge | None = None
        self._ordinary: bytes | None = None  # what tells one more token, while nothing is in the making
        self._unseen: bytes | None = None  # a piece that the watch has not looked at yet
        self._unseen_ns = 0  # when it came
        self._slow_timer: asyncio.TimerHandle | None = None
        self.begun = False  # a byte has gone to the client
        client.exchange = self
        if watch is not None:
            try:
                watch.begin(time.monotonic_ns())
            except Exception:
                self._metering_failed()

    @property
    def keep_alive(self) -> bool:
        """Whether the client's connection may serve another request."""
        return self._answer.keep_alive

    # from the engine

    def received(self, head: Head | None, body: bytes, ended: bool) -> None:
        """Upstream.Receiver: a piece of the answer; with `ended`, the last."""
        if self.over:
            return
        if not ended and self._ordinary is not None and self.passed(body, chunk(body)):
            return
        t_ns = time.monotonic_ns()
        self._unseen, self._unseen_ns = body, t_ns
        out = self._open(t_ns, head) if head is not None else b""
        if self._asks and (self._late or self._answer.may_tell(body)):
            self._late.append(body)
        else:
            out += self._answer.feed(body)
        self._write(out)
        self._look()
        self._ordinary = self._watch.ordinary if self._watch is not None and self._answer.passes_tokens and not self._late else None
        if ended:
            self._let_go()
            self._end_watch(t_ns, Outcome.COMPLETED)
            self._ask(t_ns) if self._asks and not self._goes_on else self._conclude()

    def passed(self, body: bytes, chunk: bytes) -> bool:
        """Upstream.Receiver: a piece that came as this chunk. Whether it has gone on as it is: one more token, which is nearly all there is
        in a long stream, and which neither Answer nor the observer need to see."""
        ordinary = self._ordinary
        if ordinary is None or self.over or body.rfind(ordinary) < 0 or not is_event(body):
            return False
        assert self._watch is not None
        if self._client.transport is not None:
            self._client.transport.write(chunk)
        try:
            self._watch.token(time.monotonic_ns())
        except Exception:
            self._metering_failed()
        return True

    def interim(self, head: Head) -> None:
        """Upstream.Receiver: what the engine says before it answers (103 Early Hints) goes on at once (RFC 9110 section 15.2)."""
        if not self.over and self._client.transport is not None:
            self._client.transport.write(self._answer.interim(head))

    def lost(self, error: UpstreamError) -> None:
        """Upstream.Receiver: the engine broke off."""
        if self.over:
            return
        if not self.begun:
            if not self.sends_again():
                self.refuse(error)
            return
        self.over = True
        self._write(self._last_words() + self._answer.abandon())
        self._end_watch(time.monotonic_ns(), Outcome.ERRORED, error.kind)
        self._cut()
        self._end()

    # from the client

    def client_writable(self, writable: bool) -> None:
        """Front.Writer: the client's socket is full, or has room again; the engine's side waits with it, for a while."""
        if self.connection is None:
            return
        if writable:
            self.connection.resume()
            self._stop_timer()
        else:
            self.connection.pause()
            self._await_reader()

    def client_gone(self) -> None:
        """Front.Writer: nobody reads any more. The engine's connection is closed at once, so that it stops working for nobody; but one
        that creates a job, and will compute it all the same, is heard out for a while."""
        if self._watch is not None and self._watch.outlives_client and self.connection is not None:
            self.connection.resume()
            self._stop_timer()
            loop = asyncio.get_running_loop()
            self._slow_timer = loop.call_later(HEAR_OUT_S, self._break_off, Outcome.CANCELLED, "client_disconnected")
            return
        said_all = self._watch is not None and self._watch.saw_done
        self._break_off(Outcome.COMPLETED if said_all else Outcome.CANCELLED, None if said_all else "client_disconnected")

    def _await_reader(self) -> None:
        self._slow_timer = asyncio.get_running_loop().call_later(self._slow_after_s, self._too_slow, self._client.untaken())

    def _too_slow(self, untaken: int) -> None:
        """`untaken` was so when the client was looked at last: one who has taken some of it since is slow, but reads."""
        if self._client.untaken() < untaken:
            self._await_reader()
            return
        self._client.reset()
        self._break_off(Outcome.CANCELLED, "slow_reader")

    # ends

    def broke(self, error: Exception) -> None:
        """Sending: the client is told, and it ends."""
        if not self.over:
            self._client.failed(error)

    def _ask(self, t_ns: int) -> None:
        assert self._watch is not None
        try:
            self._desk.ask(self._watch.identity.record_id, t_ns, self._conclude, settled=self._wants_settled)
        except Exception:
            self._metering_failed()
            self._conclude()

    def _conclude(self, told: Charge | None = None) -> None:
        """The engine's answer is whole: send what is left of it. `told` is the charge to show, where it had to be asked for."""
        if self.over:
            return
        self.over, self._told = True, told
        last_words = self._last_words()
        self._write(last_words + self._answer.close() if last_words else self._answer.close())
        if not self.keep_alive and self._client.transport is not None:
            self._client.transport.close()
        self._detach()
        self._end()

    def refuse(self, error: UpstreamError) -> None:
        """Nothing has been sent and nothing will come: answer the failure."""
        if self.over:
            return
        self.over = True
        self._end_watch(time.monotonic_ns(), Outcome.ERRORED, error.kind)
        self._write(error_answer(error.status, str(error), error.kind, keep_alive=self.keep_alive))
        self._detach()
        self._end()

    def fail(self, error_type: str, text: bytes = b"") -> None:
        """Downstream.Writer: the sidecar broke, or stops: no clean end."""
        if self.over:
            return
        if self.begun:
            self._cut()
        else:
            self._write(text)
        self._break_off(Outcome.ERRORED, error_type)

    def give_way(self) -> None:
        """The engine has consented to another protocol: the client is somebody else's to write to."""
        self.over = True
        self._detach()
        self._end()

    def _break_off(self, outcome: Outcome, error_type: str | None) -> None:
        """End now, on both sides."""
        if self.over:
            return
        self.over = True
        self._answer.keep_alive = False
        self._end_watch(time.monotonic_ns(), outcome, error_type)
        if self.connection is not None:
            self.connection.abandon()
        self._detach()
        self._end()

    def _cut(self) -> None:
        """End the client's connection so that it cannot be taken for a clean end."""
        self._answer.keep_alive = False
        if self._answer.ends_with_the_connection:
            self._client.reset()
        elif self._client.transport is not None:
            self._client.transport.close()
        self._detach()

    # the watch, which may fail without harm to the traffic (law 5)

    def _metering_failed(self) -> None:
        self._desk.failed()
        logger.exception("metering a request failed; its traffic goes on")

    def _open(self, t_ns: int, head: Head) -> bytes:
        self.has_answer()
        out = self._answer.open(head)
        if self._watch is not None:
            encoding = first(head.headers, b"content-encoding")
            try:
                self._watch.head(t_ns, head.status, streamed=self._answer.is_stream, encoding=encoding, headers=head.headers)
            except Exception:
                self._metering_failed()
        return out

    def _look(self) -> None:
        unseen, self._unseen = self._unseen, None
        if unseen is not None and self._watch is not None:
            try:
                self._watch.body(self._unseen_ns, unseen)
            except Exception:
                self._metering_failed()

    @property
    def _goes_on(self) -> bool:
        """Whether it is a job that only begins with this answer."""
        return self._watch is not None and self._watch.goes_on

    def _tell(self) -> Told | None:
        """What Answer shows: the charge that was told, else what it has cost by now; for how long it has run; what was made. None of a
        job that has only begun."""
        watch = self._watch
        assert watch is not None
        self._look()
        if watch.told is not None:
            return watch.told[0], watch.told[1], watch.made
        if watch.goes_on:
            return None
        t_ns = time.monotonic_ns()
        charge = self._told
        if not self._asks:
            try:
                charge = self._desk.charge(watch.identity.record_id, t_ns)
            except Exception:
                self._metering_failed()
        return charge or UNKNOWN, watch.duration_ns(t_ns), watch.made

    def _end_watch(self, t_ns: int, outcome: Outcome, error_type: str | None = None) -> None:
        self._look()
        if self._watch is not None:
            try:
                self._watch.end(t_ns, outcome, error_type)
            except Exception:
                self._metering_failed()

    # inside

    def _last_words(self) -> bytes:
        """What was kept back of a stream until its charge was told."""
        return b"".join(map(self._answer.feed, self._late)) if self._late else b""

    def _write(self, data: bytes) -> None:
        if data and self._client.transport is not None:
            self.begun = True
            self._client.transport.write(data)

    def _let_go(self) -> None:
        """The connection is its pool's again, and must not stay paused for the sake of this client."""
        connection, self.connection = self.connection, None
        if connection is not None and self._slow_timer is not None:
            connection.resume()

    def _detach(self) -> None:
        self._answer.forget()
        if self._client.exchange is self:
            self._client.exchange = None
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None

    def _end(self) -> None:
        if self._ended is not None:
            self._ended(self._answer.keep_alive)
        else:
            self._client.answered(self._answer.keep_alive)
