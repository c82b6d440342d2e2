"""One client's connection: its requests one after the other, each to a handler that writes the answer to the transport itself.

A request is handed on as soon as its head has come, mostly with its whole body, since most come in one read; of a longer one the handler
reads the rest. What can be done at once is done in the same turn of the event loop; a task is made for what must be awaited. Requests
that come before the answer wait, and so does their client.
"""

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, cast

from perjoule.sidecar.http.heads import Fields
from perjoule.sidecar.http.inbound import Body, Fault, Inbound

LINGER_S = 2.0  # who was refused in mid-body has so long to stop sending
AT_ONCE = struct.pack("ii", 1, 0)  # struct linger: on, 0 s


class Writer(Protocol):
    """Whoever writes to a client's transport and must hear how it fares. `fail`: what it writes ends here, and not well; `text` is said
    to a client who has heard nothing yet."""

    def client_writable(self, writable: bool) -> None: ...
    def client_gone(self) -> None: ...
    def fail(self, error_type: str, text: bytes = b"") -> None: ...


Handle = Callable[["Request"], Coroutine[Any, Any, bool | None] | None]
"""Sees to it that a request is answered and that its client hears of the end (`Downstream.answered`). What must be awaited for that is
given back, and may leave the latter to its result."""


class Keeper(Protocol):
    """Whose connections these are, and what is done with requests and with what is none."""

    slow_sender_s: float
    handle: Handle

    def made(self, client: "Downstream") -> None: ...
    def lost(self, client: "Downstream") -> None: ...
    def refusal(self, status: int, text: str) -> bytes: ...
    def failed(self, error: Exception) -> bytes: ...


def reset(transport: asyncio.Transport) -> None:
    """End a connection with RST, and what was not sent yet with it."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    transport.abort()


@dataclass(slots=True)
class Request:
    """One request; `keep_alive` is whether its client wants to send another one over the same connection."""

    client: "Downstream"
    method: str
    target: str
    version: tuple[int, int]
    headers: Fields
    keep_alive: bool
    body: Body

    @property
    def http11(self) -> bool:
        """Whether it is of HTTP/1.1, of those that are served."""
        return self.version[1] == 1


class Downstream(Inbound):
    """The connection; the exchange that writes to it is told of backpressure and of its end, without a task between."""

    __slots__ = ("_deaf", "_full", "_hands_on", "_head_timer", "_keeper", "_listens", "_served", "_task", "_waiting", "exchange",
                 "idle_since", "transport")

    def __init__(self, keeper: Keeper) -> None:
        super().__init__()
        self._keeper = keeper
        self.transport: asyncio.Transport | None = None
        self.exchange: Writer | None = None
        self.idle_since = 0.0  # since when nothing is asked; of the event loop's clock
        self._waiting: list[Request | Fault] = []
        self._served: Body | None = None  # of the request that is being answered
        self._task: asyncio.Task[None] | None = None  # what that awaits, if anything
        self._hands_on = False  # requests, just now
        self._deaf = False  # what comes is not read any more
        self._listens = True
        self._full = False  # the client takes nothing
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether a request of its is being answered."""
        return self._served is not None

    @property
    def at_upgrade(self) -> bool:
        """Whether the parser has stopped behind this request: if the upgrade is granted, what follows is not HTTP any more."""
        return self._behind is not None and not self._waiting

    def hand_over(self, to: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """Another protocol takes the connection, and what has come behind the request; it tells this one of its end."""
        assert self.transport is not None
        behind, self._behind = self._behind or b"", None
        self.transport.set_protocol(to)
        self.listen(True)
        return self.transport, behind

    def listen(self, on: bool) -> None:
        """Whether to take bytes from it."""
        if on is self._listens or self.transport is None or self.transport.is_closing():
            return
        self._listens = on
        if on:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def refuse(self, status: int, text: str) -> None:
        """Tell the client why, and hang up; what it is still sending is not read as requests any more."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        transport.write(self._keeper.refusal(status, text))
        self._hang_up()

    def untaken(self) -> int:
        """Bytes that have been written and that the client has not acknowledged: those in this process and those in the kernel."""
        if self.transport is None:
            return 0
        in_kernel = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))  # tcp(7), SIOCOUTQ
        return self.transport.get_write_buffer_size() + int.from_bytes(in_kernel, sys.byteorder)

    def reset(self) -> None:
        """End the connection so that it cannot be taken for the end of a body: with RST, not with FIN."""
        if self.transport is not None:
            reset(self.transport)

    def answered(self, keep: bool) -> None:
        """The request at hand has been answered, or never will be. `keep` is whether the connection may serve another one."""
        served, self._served = self._served, None
        self.idle_since = asyncio.get_running_loop().time()
        if self.transport is None:
            self._keeper.lost(self)
        elif keep and served is not None and (served.whole or self._deaf):  # who is not listened to has a fault waiting, and is told of it
            self._go_on()
        else:
            self._hang_up()

    def stop(self) -> asyncio.Task[None] | None:
        """The answer is not waited for any longer. Answers the task that ends with it, if there is one."""
        if self._task is not None:
            self._task.cancel()
        elif self.exchange is not None:
            self.exchange.fail("shutdown")
        return self._task

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.idle_since = asyncio.get_running_loop().time()
        self._keeper.made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._stop_head_timer()
        self._waiting.clear()
        self.end()
        if self._served is None:
            self._keeper.lost(self)  # else it is when that has come to its end
        elif self.exchange is not None:
            self.exchange.client_gone()

    def pause_writing(self) -> None:
        self._full = True
        if self.exchange is not None:
            self.exchange.client_writable(False)

    def resume_writing(self) -> None:
        self._full = False
        if self.exchange is not None:
            self.exchange.client_writable(True)
        elif self._served is None:
            self._go_on()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._heed(self.read(data))
        if self._in_head and self._served is None:
            if self._head_timer is None:
                self._head_timer = asyncio.get_running_loop().call_later(self._keeper.slow_sender_s, self._head_too_slow)
        elif self._head_timer is not None:
            self._stop_head_timer()

    # requests

    def begun(self, method: str, target: str, version: tuple[int, int], headers: Fields, keep_alive: bool, body: Body) -> None:
        """Inbound: it waits its turn."""
        self._waiting.append(Request(self, method, target, version, headers, keep_alive, body))

    def _heed(self, fault: Fault | None) -> None:
        """Hand on what has been read, up to the fault in it."""
        if fault is not None:
            self._deaf = True
            self._waiting.append(fault)
        if self._waiting and not self._hands_on:
            self._hands_on = True
            while self._waiting and self._served is None and not self._full:
                self._hand_on(self._waiting.pop(0))
            self._hands_on = False
            if self._waiting:
                self.listen(False)  # it has asked before it was answered: it may wait

    def _hand_on(self, asked: Request | Fault) -> None:
        if isinstance(asked, Fault):
            self.refuse(*asked)
            return
        self._served = asked.body
        try:
            awaited = self._keeper.handle(asked)
        except Exception as error:
            self.failed(error)
            return
        if awaited is not None:
            self._task = asyncio.get_running_loop().create_task(self._await(awaited))

    async def _await(self, awaited: Coroutine[Any, Any, bool | None]) -> None:
        keep, broke = None, None
        try:
            keep = await awaited
        except Exception as error:
            broke = error
        finally:
            self._task = None
        if broke is not None:
            self.failed(broke)
        elif keep is not None:
            self.answered(keep)

    def failed(self, error: Exception) -> None:
        """The sidecar broke over the request at hand."""
        text = self._keeper.failed(error)
        if self.exchange is not None:
            self.exchange.fail("sidecar_error", text)
        elif self._served is not None:
            if self.transport is not None and not self.transport.is_closing():
                self.transport.write(text)
            self.answered(False)

    def _go_on(self) -> None:
        """The next one: what was asked before is answered."""
        if self._full or self.transport is None:
            return
        fault = self.read_behind() if self._behind is not None and not self._waiting else None
        self.listen(True)
        self._heed(fault)

    def _hang_up(self) -> None:
        """Close, once the client has what was written. While it is still sending that is not at once: its system would throw it away."""
        self._waiting.clear()
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self._body is None and self._listens and not self._deaf:
            transport.close()
            return
        self._deaf = True
        if transport.can_write_eof():
            transport.write_eof()
        self.listen(True)
        asyncio.get_running_loop().call_later(LINGER_S, transport.close)

    def _head_too_slow(self) -> None:
        self._head_timer = None
        if self._in_head and self._served is None:
            self.refuse(408, f"the request's head was not whole after {self._keeper.slow_sender_s:g} s (--slow-sender-s)")

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
