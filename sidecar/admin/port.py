"""The operator's port: metrics for a scraper, health for an orchestrator, records and sums of joules for people."""

import asyncio
import calendar
import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson
from aiohttp import web

from perjoule.sidecar.units import NS_PER_S

FOR_ORCHESTRATORS = ("/livez", "/readyz")
LIMIT = 100
LIMIT_MOST = 10_000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

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

    def render_metrics(self, accept: str) -> tuple[bytes, str]:
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
    """The operator's port as an aiohttp application. Every answer but /metrics is JSON, errors in OpenAI's shape.

    All but the two questions of orchestrators need the token. Without one the port is on loopback, where a web page may still send a
    browser to it under a name of the page's own (DNS rebinding): it is answered only under its address or as `localhost`.
    """
    routes = web.RouteTableDef()

    @routes.get("/metrics")
    async def metrics(request: web.Request) -> web.Response:
        body, content_type = view.render_metrics(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    @routes.get("/livez")
    async def livez(_: web.Request) -> web.Response:
        return _json({"live": True})

    @routes.get("/readyz")
    async def readyz(_: web.Request) -> web.Response:
        ready, why = view.ready()
        return _json({"ready": ready, **why}, status=200 if ready else 503)

    @routes.get("/energy/balance")
    async def balance(_: web.Request) -> web.Response:
        now = view.balance()
        if now is None:
            return _error(404, "no energy source; `perjoule probe` says why", "no_energy_source")
        shared_out = now["requests_uj"] + now["idle_uj"] + now["unattributed_uj"]
        return _json({**now, "conserved": now["measured_uj"] == shared_out})

    @routes.get("/energy/in-flight")
    async def in_flight(_: web.Request) -> web.Response:
        return _json({"requests": view.in_flight()})

    @routes.get("/energy/setting")
    async def setting(_: web.Request) -> web.Response:
        return _json(view.setting())

    @routes.get("/energy/boards")
    async def boards(_: web.Request) -> web.Response:
        return _json({"boards": await view.boards()})

    @routes.get("/energy")
    async def energy(request: web.Request) -> web.Response:
        if view.ledger is None:
            return _no_ledger()
        try:
            query = _Query(request.query)
            if query.by or query.interval_s is not None:
                groups = await asyncio.to_thread(view.ledger.grouped, query.by, interval_s=query.interval_s,
                                                 **query.where)
                return _json({"by": query.by, "interval_s": query.interval_s, "groups": groups})
        except ValueError as error:
            return _error(400, str(error), "invalid_query", str(error).partition(":")[0])
        return _json({"records": await asyncio.to_thread(view.ledger.latest, query.limit, **query.where)})

    @routes.get("/energy/{id}")
    async def record(request: web.Request) -> web.Response:
        if view.ledger is None:
            return _no_ledger()
        wanted = request.match_info["id"]
        found = await asyncio.to_thread(view.ledger.get, wanted)
        if found is None:
            return _error(404, f"id: got {wanted!r}, expected the id of a kept record or request", "not_found", "id")
        return _json(found)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        token = token_now()
        if request.path in FOR_ORCHESTRATORS or (token is not None and _shows(token, request)):
            return await handler(request)
        if token is None:
            if _is_asked_as_itself(request):
                return await handler(request)
            return _error(403, f"Host: got {request.host!r}, expected an address or localhost, or a token (--admin-token-file)", "bad_host")
        refused = _error(401, "expected the operator's token, as `Authorization: Bearer TOKEN`", "invalid_token")
        refused.headers["WWW-Authenticate"] = "Bearer"
        return refused

    app = web.Application(middlewares=[_errors_in_shape, guard])
    app.add_routes(routes)
    return app


class _Query:
    """The parameters of /energy, read. Raises ValueError, which begins with the parameter's name."""

    def __init__(self, given: Mapping[str, str]) -> None:
        known = ("by", "interval", "since", "until", "limit", "model", "tenant")
        for name in given:
            if name not in known:
                raise ValueError(f"{name}: got an unknown parameter, expected some of {', '.join(known)}")
        self.by = [name for name in given.get("by", "").split(",") if name]
        self.interval_s = _whole(given, "interval", 366 * 86_400, "seconds")
        self.limit = _whole(given, "limit", LIMIT_MOST, "records") or LIMIT
        self.where: dict[str, Any] = {"model": given.get("model"), "tenant": given.get("tenant"),
                                      "since_unix_ns": _instant(given, "since"),
                                      "until_unix_ns": _instant(given, "until")}


def _whole(given: Mapping[str, str], name: str, most: int, what: str) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > len(str(most)) or not 0 < int(text) <= most:
        raise ValueError(f"{name}: got {text!r}, expected a whole number of {what} from 1 to {most}")
    return int(text)


def _instant(given: Mapping[str, str], name: str) -> int | None:
    """A Unix time in ns that 64 bits hold (1678 to 2261), from Unix seconds or ISO 8601 (UTC where it names no zone)."""
    text = given.get(name)
    if text is None:
        return None
    try:
        instant = (datetime.fromtimestamp(int(text), UTC) if text.isascii() and text.isdigit()
                   else datetime.fromisoformat(text))
        whole_s = calendar.timegm(instant.replace(tzinfo=instant.tzinfo or UTC).utctimetuple())
        unix_ns = whole_s * NS_PER_S + instant.microsecond * 1_000
        if unix_ns.bit_length() > 63:
            raise OverflowError
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{name}: got {text!r}, expected Unix seconds or a time as 2026-07-01T12:00:00Z,"
                         " from 1678 to 2261") from None
    return unix_ns


@web.middleware
async def _errors_in_shape(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _error(error.status, f"{request.method} {request.path}: {error.reason}", "invalid_request")
    except OSError as error:
        logger.warning("%s %s: %s", request.method, request.raw_path, error)  # decoded, a path could hold line ends
        return _error(503, str(error), "ledger_unavailable")
    except Exception as error:
        logger.exception("%s %s failed", request.method, request.raw_path)
        return _error(500, f"{type(error).__name__}: {error}", "internal_error")


def _is_asked_as_itself(request: web.Request) -> bool:
    """Whether the Host is an address, or `localhost`, or there is none to rebind: HTTP/1.0, a unix socket."""
    transport = request.transport
    if "Host" not in request.headers or transport is None or not isinstance(transport.get_extra_info("sockname"), tuple):
        return True
    try:
        host = urlsplit("//" + request.host).hostname or ""
        return host == "localhost" or host.endswith(".localhost") or ip_address(host) is not None
    except ValueError:
        return False


def _shows(token: str, request: web.Request) -> bool:
    """Whether it carries the token; the time that this takes does not depend on how much of it is right."""
    scheme, _, shown = request.headers.get("Authorization", "").strip().partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(errors="replace"), token.encode())


def _json(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


def _error(status: int, message: str, code: str, param: str | None = None) -> web.Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return _json({"error": {"message": message, "type": kind, "param": param, "code": code}}, status=status)


def _no_ledger() -> web.Response:
    return _error(404, "no records are kept (--ledger off); start with --ledger FILE to keep them", "no_ledger")
