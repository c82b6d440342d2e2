"""The live page's events: computed once for all who look, a few times a second, and not at all while nobody does."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from perjoule.sidecar.admin.answers import Question, Reply, error_reply
from perjoule.sidecar.http.heads import chunk, last_chunk

NEWS_S = 0.25
STATE_S = 1.0
VIEWERS = 32
BEHIND = 20  # events, five seconds: who has not taken these is let go, and comes back by itself
HEAD = ("Content-Type: text/event-stream", "Cache-Control: no-store", "X-Accel-Buffering: no")

logger = logging.getLogger(__name__)


class LiveView(Protocol):
    """What is told. Nothing here may block."""

    async def past(self) -> dict[str, Any]:
        """What was told up to the present news, for one who begins to look."""

    def news(self) -> dict[str, Any]:
        """What changes all the time, and what is new since this was last asked."""

    async def state(self) -> dict[str, Any]:
        """What changes slowly."""


class Viewer:
    """One page that is open somewhere. What it is told before it takes what it was told before waits; it hears how its client fares."""

    def __init__(self, question: Question, token: str | None) -> None:
        self.client, self.token = question.request.client, token  # by which it came in
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()  # whether its connection may serve another request
        self._chunked = question.request.version >= (1, 1)
        self._waiting: list[bytes | None] | None = []  # None: it takes what it is told at once

    def open(self, past: bytes) -> None:
        """Answer: the head, what was told before it came, and what has been told since."""
        framing = "Transfer-Encoding: chunked" if self._chunked else "Connection: close"
        self._write("\r\n".join(["HTTP/1.1 200 OK", *HEAD, framing, "", ""]).encode())
        self._put(past)
        self.client_writable(True)

    def tell(self, event: bytes | None) -> None:
        """One more event, or None: there will be no more. Who has not taken the latest ones is cut off."""
        if self._waiting is None:
            self._put(event)
        elif len(self._waiting) < BEHIND:
            self._waiting.append(event)
        else:
            self.client.reset()

    def client_writable(self, writable: bool) -> None:
        """Front.Writer: its socket is full, or has room again."""
        waiting, self._waiting = self._waiting or [], None if writable else []
        for event in waiting:
            self.tell(event)  # its socket may be full again in the middle of it

    def client_gone(self) -> None:
        """Front.Writer: nobody looks any more."""
        self._finish(False)

    def fail(self, error_type: str, text: bytes = b"") -> None:
        """Front.Writer: it ends."""
        self._finish(False)

    def _put(self, event: bytes | None) -> None:
        if event is None:
            self._write(last_chunk() if self._chunked else b"")
            self._finish(self._chunked)
        else:
            self._write(chunk(event) if self._chunked else event)

    def _write(self, data: bytes) -> None:
        if self.client.transport is not None and not self.done.done():
            self.client.transport.write(data)

    def _finish(self, kept: bool) -> None:
        if not self.done.done():
            self.done.set_result(kept)


class Feed:
    """Computes for whoever looks. `close` says goodbye to all."""

    def __init__(self, view: LiveView, token_now: Callable[[], str | None]) -> None:
        self._view, self._token_now = view, token_now
        self._viewers: set[Viewer] = set()
        self._telling: list[asyncio.Task[None]] = []
        self._news: dict[str, Any] = {}
        self._state: dict[str, Any] = {}

    def viewer(self, question: Question) -> Viewer | Reply:
        """Who asks for `/energy/live`, if he may look and there is room."""
        if (question.field(b"sec-fetch-site") or "same-origin") not in ("same-origin", "none"):
            return error_reply(403, "expected to be asked by the sidecar's own page: another's could hold every place", "cross_site")
        if len(self._viewers) >= VIEWERS:
            return error_reply(503, f"{VIEWERS} pages are open, which is all there is room for", "too_many_viewers",
                               fields=(("Retry-After", "5"),))
        return Viewer(question, self._token_now())

    async def serve(self, viewer: Viewer) -> bool:
        """Event `past` first, then `news` and `state`, until either side goes. Whether the connection may serve another request."""
        self._viewers.add(viewer)
        viewer.client.exchange = viewer
        try:
            if not self._telling:
                self._begin()
            now = {"news": {**self._news, "slots": []}, "state": self._state}
            past = await self._view.past() | now  # what is told from here on waits in line
            viewer.open(_event("past", past))
            return await viewer.done
        finally:
            viewer.client.exchange = None
            self._viewers.discard(viewer)
            if not self._viewers:
                self._rest()

    def close(self) -> None:
        """The sidecar stops."""
        self._part()

    # inside

    def _begin(self) -> None:
        self._news, self._state = self._view.news(), {}
        loop = asyncio.get_running_loop()
        self._telling = [loop.create_task(self._tell_news()), loop.create_task(self._tell_state())]
        for task in self._telling:
            task.add_done_callback(self._stopped)

    def _rest(self) -> None:
        for task in self._telling:
            task.cancel()
        self._telling = []

    async def _tell_news(self) -> None:
        while True:
            await asyncio.sleep(NEWS_S)
            self._news = self._view.news()
            self._tell("news", self._news)

    async def _tell_state(self) -> None:
        while True:
            self._state = await self._view.state()
            self._tell("state", self._state)
            await asyncio.sleep(STATE_S)

    def _tell(self, name: str, said: dict[str, Any]) -> None:
        event, token = _event(name, said), self._token_now()
        for viewer in self._viewers:
            viewer.tell(event if viewer.token == token else None)

    def _stopped(self, task: "asyncio.Task[None]") -> None:
        """Nothing is told any more: pages are sent away, and ask again after a while."""
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the live page cannot be told", exc_info=error)
            self._part()

    def _part(self) -> None:
        self._rest()
        for viewer in self._viewers:
            viewer.tell(None)


def _event(name: str, said: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(said))
