"""Who is answered at the operator's port: who shows its token or, where there is none, who asks for it by its own name."""

import hmac
from ipaddress import ip_address
from urllib.parse import urlsplit

from perjoule.sidecar.admin.answers import Question, Reply, error_reply
from perjoule.sidecar.http.heads import first

FOR_ORCHESTRATORS = ("/livez", "/readyz")
PAGE = "/"  # it holds no data, and asks for the token


def refusal(question: Question, token: str | None) -> Reply | None:
    """Why it is not answered, None if it is. All but the two questions of orchestrators need the token. Without one the port is on
    loopback, where a web page may still send a browser to it under a name of the page's own (DNS rebinding): it is answered only under
    its address or as `localhost`.
    """
    if question.path in FOR_ORCHESTRATORS:
        return None
    if token is None:
        if _is_asked_as_itself(question):
            return None
        return error_reply(403, f"Host: got {question.field(b'host')!r}, expected an address or localhost, or a token (--admin-token-file)",
                           "bad_host")
    if question.path == PAGE or _shows(token, question.field(b"authorization")):
        return None
    return error_reply(401, "expected the operator's token, as `Authorization: Bearer TOKEN`", "invalid_token",
                       fields=(("WWW-Authenticate", "Bearer"),))


def _is_asked_as_itself(question: Question) -> bool:
    """Whether the Host is an address, or `localhost`, or there is none to rebind: HTTP/1.0, a unix socket."""
    transport = question.request.client.transport
    if first(question.request.headers, b"host") is None or transport is None:
        return True
    if not isinstance(transport.get_extra_info("sockname"), tuple):
        return True
    try:
        host = urlsplit("//" + question.field(b"host")).hostname or ""
        return host == "localhost" or host.endswith(".localhost") or ip_address(host) is not None
    except ValueError:
        return False


def _shows(token: str, authorization: str) -> bool:
    """Whether it carries the token; the time that this takes does not depend on how much of it is right."""
    scheme, _, shown = authorization.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode("latin-1"), token.encode())
