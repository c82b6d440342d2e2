"""What the operator's port answers with: JSON, and errors in OpenAI's shape."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

logger = logging.getLogger(__name__)


def json_answer(value: Any, *, status: int = 200) -> web.Response:
    """A value as JSON."""
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


def error_answer(status: int, message: str, code: str, param: str | None = None) -> web.Response:
    """An error: what was got and what was expected."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json_answer({"error": {"message": message, "type": kind, "param": param, "code": code}}, status=status)


@web.middleware
async def errors_in_shape(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever goes wrong is answered in the same shape."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        return error_answer(error.status, f"{request.method} {request.path}: {error.reason}", "invalid_request")
    except OSError as error:
        logger.warning("%s %s: %s", request.method, request.raw_path, error)  # decoded, a path could hold line ends
        return error_answer(503, str(error), "ledger_unavailable")
    except Exception as error:
        logger.exception("%s %s failed", request.method, request.raw_path)
        return error_answer(500, f"{type(error).__name__}: {error}", "internal_error")
