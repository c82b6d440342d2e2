"""The pages of vLLM's server that need no engine behind them, and its way of saying no."""

import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from uuid import uuid4

import orjson
from aiohttp import web

from perjoule.bench import dialect
from perjoule.bench.dialect import RefusedError
from perjoule.sidecar.units import NS_PER_S

VERSION = "0.32.0"  # of the vLLM whose dialect this is


def id_of(request: web.Request) -> str:
    """What the request is called: by its client, else by us."""
    return request.headers.get("X-Request-Id") or uuid4().hex


def created() -> int:
    """Now, as the APIs give it."""
    return time.time_ns() // NS_PER_S


def json(body: bytes, status: int = 200) -> web.Response:
    """A JSON response."""
    return web.Response(body=body, status=status, content_type="application/json")


@web.middleware
async def refusing(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
                   ) -> web.StreamResponse:
    """Every refusal in vLLM's words, those of the router too."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        refusal = RefusedError(error.reason, status=error.status, kind=HTTPStatus(error.status).phrase)
    except RefusedError as error:
        refusal = error
    return json(refusal.body(request.path), refusal.status)


async def health(request: web.Request) -> web.Response:
    """Alive."""
    return web.Response()


async def version(request: web.Request) -> web.Response:
    """Which vLLM this resembles."""
    return json(orjson.dumps({"version": VERSION}))


async def models(request: web.Request) -> web.Response:
    """The one model."""
    card = {"id": dialect.MODEL, "object": "model", "created": created(), "owned_by": "vllm", "root": dialect.MODEL,
            "parent": None, "max_model_len": dialect.MAX_MODEL_LEN, "permission": []}
    return json(orjson.dumps({"object": "list", "data": [card]}))


async def tokenize(request: web.Request) -> web.Response:
    """As many tokens as the generating endpoints would count."""
    fields = dialect.read_object(await request.read())
    (count, *_) = dialect.count_prompts(dialect.CHAT if "messages" in fields else dialect.COMPLETIONS, fields)
    return json(orjson.dumps({"count": count, "max_model_len": dialect.MAX_MODEL_LEN, "tokens": list(range(count)),
                              "token_strs": None}))
