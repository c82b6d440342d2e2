"""The live page's events: computed once for all who look, a few times a second, and not at all while nobody does."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

import orjson
from aiohttp import web

from perjoule.sidecar.admin.answers import error_answer
from perjoule.sidecar.http.downstream import reset

NEWS_S = 0.25
STATE_S = 1.0
VIEWERS = 32
BEHIND = 20  # events, five seconds: who has not taken these is let go, and comes back by itself
HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}

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
    """One page that is open somewhere."""

    def __init__(self, transport: asyncio.Transport | None, token: str | None) -> None:
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue(BEHIND)  # None: there will be no more
        self.token = token  # by which it came in
        self._transport = transport

    def tell(self, event: bytes | None) -> None:
        """Put it in line; one whose line is full is cut off."""
        try:
            self.events.put_nowait(event)
        except asyncio.QueueFull:
            if self._transport is not None and not self._transport.is_closing():
                reset(self._transport)


class Feed:
    """Computes for whoever looks. `close` says goodbye to all."""

    def __init__(self, view: LiveView, token_now: Callable[[], str | None]) -> None:
        self._view, self._token_now = view, token_now
        self._viewers: set[Viewer] = set()
        self._telling: list[asyncio.Task[None]] = []
        self._news: dict[str, Any] = {}
        self._state: dict[str, Any] = {}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """`GET /energy/live`: event `past` first, then `news` and `state`, until either side goes."""
        if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
            return error_answer(403, "expected to be asked by the sidecar's own page: another's could hold every place", "cross_site")
        if len(self._viewers) >= VIEWERS:
            refused = error_answer(503, f"{VIEWERS} pages are open, which is all there is room for", "too_many_viewers")
            refused.headers["Retry-After"] = "5"
            return refused
        viewer = Viewer(request.transport, self._token_now())
        self._viewers.add(viewer)
        response = web.StreamResponse(headers=HEADERS)
        try:
            if not self._telling:
                self._begin()
            now = {"news": {**self._news, "slots": []}, "state": self._state}
            past = await self._view.past() | now  # what is told from here on waits in line
            await response.prepare(request)
            await response.write(_event("past", past))
            while (event := await viewer.events.get()) is not None:
                await response.write(event)
        except ConnectionError:
            pass  # it went away, or took nothing for too long
        finally:
            self._viewers.discard(viewer)
            if not self._viewers:
                self._rest()
        return response

    async def close(self, _: web.Application) -> None:
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
