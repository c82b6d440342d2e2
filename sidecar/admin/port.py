"""The operator's port: metrics for a scraper, health for an orchestrator, records and sums of joules for people."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol
from urllib.parse import unquote

from perjoule.sidecar.admin.answers import Question, Reply, error_reply, json_reply
from perjoule.sidecar.admin.feed import Feed, LiveView, Viewer
from perjoule.sidecar.admin.guard import PAGE, refusal
from perjoule.sidecar.admin.page import page
from perjoule.sidecar.admin.queries import Query
from perjoule.sidecar.http import heads
from perjoule.sidecar.http.downstream import Request

LIVE = "/energy/live"
RECORDS = "/energy/"
NO_LEDGER = error_reply(404, "no records are kept (--ledger off); start with --ledger FILE to keep them", "no_ledger")

logger = logging.getLogger(__name__)


class RecordQueries(Protocol):
    """Questions about stored records; they block. Times are of arrival, since inclusive and until exclusive.

    All raise OSError while the records cannot be read.
    """

    def get(self, any_id: str) -> dict[str, Any] | None:
        """The record of a record id or a request id."""

    def latest(self, limit: int, *, model: str | None, tenant: str | None, since_unix_ns: int | None,
               until_unix_ns: int | None) -> list[dict[str, Any]]:
        """The newest records, newest first."""

    def grouped(self, by: Sequence[str], *, interval_s: int | None, model: str | None, tenant: str | None,
                since_unix_ns: int | None, until_unix_ns: int | None) -> list[dict[str, Any]]:
        """Counts and sums for each group and interval. Raises ValueError, `by: got …`, for what is no group."""


class AdminView(Protocol):
    """What the operator's port shows; the service is one. Nothing but `ledger` may block."""

    @property
    def ledger(self) -> RecordQueries | None:
        """Stored records, None where none are kept."""

    @property
    def live(self) -> LiveView:
        """What the live page shows."""

    async def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """A Prometheus scrape and its content type."""

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether traffic should be sent here, and what speaks for or against it."""

    def balance(self) -> dict[str, Any] | None:
        """The account now: at least measured_uj, requests_uj, idle_uj and unattributed_uj; None without a source."""

    def in_flight(self) -> list[dict[str, Any]]:
        """The requests between arrival and end."""

    def setting(self) -> dict[str, Any]:
        """The engine, the source of energy and how it is divided."""

    async def boards(self) -> list[dict[str, Any]]:
        """Each board with a counter, and how it is now."""


class Port:
    """The operator's port: what `Front` hands each request to. What is neither page, event nor metric is JSON."""

    def __init__(self, view: AdminView, token_now: Callable[[], str | None] = lambda: None) -> None:
        self._view, self._token_now = view, token_now
        self._feed = Feed(view.live, token_now)
        self._replies: dict[str, Callable[[Question], Awaitable[Reply]]] = {
            PAGE: self._page, "/metrics": self._metrics, "/livez": self._livez, "/readyz": self._readyz, "/energy": self._energy,
            "/energy/balance": self._balance, "/energy/in-flight": self._in_flight, "/energy/setting": self._setting,
            "/energy/boards": self._boards}

    async def handle(self, request: Request) -> bool:
        """Answer it. Whether its connection may serve another."""
        question, keep_alive = Question(request), request.keep_alive and request.body.whole
        told = await self._tell(question)
        if isinstance(told, Viewer):
            return await self._feed.serve(told) and keep_alive
        if request.client.transport is not None:
            request.client.transport.write(told.as_bytes(question, keep_alive))
        return keep_alive

    def close(self) -> None:
        """The sidecar stops: pages are sent away."""
        self._feed.close()

    # inside

    async def _tell(self, question: Question) -> Reply | Viewer:
        """The answer, or who is told for as long as he looks; whatever goes wrong is answered in one shape."""
        request, named = question.request, f"{question.method} {question.path}"  # as it came: decoded, a path could hold line ends
        fault = heads.fault(request.method, request.version, heads.first(request.headers, b"transfer-encoding"),
                            heads.first(request.headers, b"expect"))
        if fault is not None:
            return error_reply(*fault, "invalid_request")
        try:
            refused = refusal(question, self._token_now())
            if refused is not None:
                return refused
            allowed = ("GET",) if question.path == LIVE else ("GET", "HEAD")
            if question.method not in allowed:
                return error_reply(405, f"{named}: Method Not Allowed", "invalid_request", fields=(("Allow", ", ".join(allowed)),))
            if question.path == LIVE:
                return self._feed.viewer(question)
            reply = self._replies.get(question.path)
            if reply is not None:
                return await reply(question)
            wanted = question.path.removeprefix(RECORDS)
            if question.path.startswith(RECORDS) and wanted and "/" not in wanted:
                return await self._record(unquote(wanted))
            return error_reply(404, f"{named}: Not Found", "invalid_request")
        except OSError as error:
            logger.warning("%s: %s", named, error)
            return error_reply(503, str(error), "ledger_unavailable")
        except Exception as error:
            logger.exception("%s failed", named)
            return error_reply(500, f"{type(error).__name__}: {error}", "internal_error")

    async def _page(self, question: Question) -> Reply:
        return page(question)

    async def _metrics(self, question: Question) -> Reply:
        body, content_type = await self._view.render_metrics(question.field(b"accept"))
        return Reply(body, content_type=content_type)

    async def _livez(self, _: Question) -> Reply:
        return json_reply({"live": True})

    async def _readyz(self, _: Question) -> Reply:
        ready, why = self._view.ready()
        return json_reply({"ready": ready, **why}, 200 if ready else 503)

    async def _balance(self, _: Question) -> Reply:
        now = self._view.balance()
        if now is None:
            return error_reply(404, "no energy source; `perjoule probe` says why", "no_energy_source")
        shared_out = now["requests_uj"] + now["idle_uj"] + now["unattributed_uj"]
        return json_reply({**now, "conserved": now["measured_uj"] == shared_out})

    async def _in_flight(self, _: Question) -> Reply:
        return json_reply({"requests": self._view.in_flight()})

    async def _setting(self, _: Question) -> Reply:
        return json_reply(self._view.setting())

    async def _boards(self, _: Question) -> Reply:
        return json_reply({"boards": await self._view.boards()})

    async def _energy(self, question: Question) -> Reply:
        if self._view.ledger is None:
            return NO_LEDGER
        try:
            query = Query(question.query)
            if query.by or query.interval_s is not None:
                groups = await asyncio.to_thread(self._view.ledger.grouped, query.by, interval_s=query.interval_s, **query.where)
                return json_reply({"by": query.by, "interval_s": query.interval_s, "groups": groups})
        except ValueError as error:
            return error_reply(400, str(error), "invalid_query", str(error).partition(":")[0])
        return json_reply({"records": await asyncio.to_thread(self._view.ledger.latest, query.limit, **query.where)})

    async def _record(self, wanted: str) -> Reply:
        if self._view.ledger is None:
            return NO_LEDGER
        found = await asyncio.to_thread(self._view.ledger.get, wanted)
        if found is None:
            return error_reply(404, f"id: got {wanted!r}, expected the id of a kept record or request", "not_found", "id")
        return json_reply(found)
