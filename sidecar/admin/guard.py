"""Who is answered at the operator's port: who shows its token or, where there is none, who asks for it by its own name."""

import hmac
from collections.abc import Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from perjoule.sidecar.admin.answers import Handler, error_answer

FOR_ORCHESTRATORS = ("/livez", "/readyz")
PAGE = "/"  # it holds no data, and asks for the token


def guard(token_now: Callable[[], str | None]) -> Middleware:
    """The middleware. All but the two questions of orchestrators need the token. Without one the port is on loopback, where a web page
    may still send a browser to it under a name of the page's own (DNS rebinding): it is answered only under its address or as `localhost`.
    """

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        token = token_now()
        if request.path in FOR_ORCHESTRATORS or (token is not None and (request.path == PAGE or _shows(token, request))):
            return await handler(request)
        if token is None:
            if _is_asked_as_itself(request):
                return await handler(request)
            return error_answer(403, f"Host: got {request.host!r}, expected an address or localhost, or a token (--admin-token-file)",
                                "bad_host")
        refused = error_answer(401, "expected the operator's token, as `Authorization: Bearer TOKEN`", "invalid_token")
        refused.headers["WWW-Authenticate"] = "Bearer"
        return refused

    return guarded


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
