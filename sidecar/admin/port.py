"""The operator's port: metrics for a scraper, health for an orchestrator, records and sums of joules for people."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from aiohttp import web

from perjoule.sidecar.admin.answers import error_answer, errors_in_shape, json_answer
from perjoule.sidecar.admin.feed import Feed, LiveView
from perjoule.sidecar.admin.guard import PAGE, guard
from perjoule.sidecar.admin.page import page
from perjoule.sidecar.admin.queries import Query


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


def admin_app(view: AdminView, token_now: Callable[[], str | None] = lambda: None) -> web.Application:
    """The operator's port as an aiohttp application. What is neither page, event nor metric is JSON, errors in OpenAI's shape."""
    routes = web.RouteTableDef()
    feed = Feed(view.live, token_now)

    @routes.get(PAGE)
    async def live_page(_: web.Request) -> web.Response:
        return page()

    @routes.get("/energy/live", allow_head=False)
    async def live(request: web.Request) -> web.StreamResponse:
        return await feed.serve(request)

    @routes.get("/metrics")
    async def metrics(request: web.Request) -> web.Response:
        body, content_type = await view.render_metrics(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    @routes.get("/livez")
    async def livez(_: web.Request) -> web.Response:
        return json_answer({"live": True})

    @routes.get("/readyz")
    async def readyz(_: web.Request) -> web.Response:
        ready, why = view.ready()
        return json_answer({"ready": ready, **why}, status=200 if ready else 503)

    @routes.get("/energy/balance")
    async def balance(_: web.Request) -> web.Response:
        now = view.balance()
        if now is None:
            return error_answer(404, "no energy source; `perjoule probe` says why", "no_energy_source")
        shared_out = now["requests_uj"] + now["idle_uj"] + now["unattributed_uj"]
        return json_answer({**now, "conserved": now["measured_uj"] == shared_out})

    @routes.get("/energy/in-flight")
    async def in_flight(_: web.Request) -> web.Response:
        return json_answer({"requests": view.in_flight()})

    @routes.get("/energy/setting")
    async def setting(_: web.Request) -> web.Response:
        return json_answer(view.setting())

    @routes.get("/energy/boards")
    async def boards(_: web.Request) -> web.Response:
        return json_answer({"boards": await view.boards()})

    @routes.get("/energy")
    async def energy(request: web.Request) -> web.Response:
        if view.ledger is None:
            return _no_ledger()
        try:
            query = Query(request.query)
            if query.by or query.interval_s is not None:
                groups = await asyncio.to_thread(view.ledger.grouped, query.by, interval_s=query.interval_s,
                                                 **query.where)
                return json_answer({"by": query.by, "interval_s": query.interval_s, "groups": groups})
        except ValueError as error:
            return error_answer(400, str(error), "invalid_query", str(error).partition(":")[0])
        return json_answer({"records": await asyncio.to_thread(view.ledger.latest, query.limit, **query.where)})

    @routes.get("/energy/{id}")
    async def record(request: web.Request) -> web.Response:
        if view.ledger is None:
            return _no_ledger()
        wanted = request.match_info["id"]
        found = await asyncio.to_thread(view.ledger.get, wanted)
        if found is None:
            return error_answer(404, f"id: got {wanted!r}, expected the id of a kept record or request", "not_found", "id")
        return json_answer(found)

    app = web.Application(middlewares=[errors_in_shape, guard(token_now)])
    app.add_routes(routes)
    app.on_shutdown.append(feed.close)
    return app


def _no_ledger() -> web.Response:
    return error_answer(404, "no records are kept (--ledger off); start with --ledger FILE to keep them", "no_ledger")
