"""The pages of an engine, each fetched once while one question about it is answered, and none longer than is reasonable."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from perjoule.sidecar.http.addresses import read_origin
from perjoule.sidecar.http.connection import UpstreamError
from perjoule.sidecar.http.fetch import fetch
from perjoule.sidecar.http.upstream import Upstream

TIMEOUT_S = 2.0
MOST_TEXT = 512  # characters of a name or a version
NONE = (0, b"")  # the answer that did not come
NO_ANSWER = (UpstreamError, TimeoutError)


class Pages:
    """What GET answers, by path. Raises one of NO_ANSWER while nothing has been answered; after that a page that does not come is
    none: an engine is there, though too busy to write all its pages."""

    def __init__(self, engine: Upstream, key: str | None) -> None:
        self._engine = engine
        self._fields = [] if key is None else [(b"Authorization", b"Bearer " + key.encode())]
        self._known: dict[str, tuple[int, bytes]] = {}

    async def status(self, path: str) -> int:
        """The status of the answer."""
        return (await self._answer(path))[0]

    async def body(self, path: str) -> bytes:
        """The body, empty of an answer that is not 200."""
        status, body = await self._answer(path)
        return body if status == 200 else b""

    async def object(self, path: str) -> dict[str, Any]:
        """The JSON object in the body, empty where there is none."""
        try:
            value = orjson.loads(await self.body(path))
        except orjson.JSONDecodeError:
            return {}
        return value if isinstance(value, dict) else {}

    async def model(self) -> dict[str, Any]:
        """The model that the engine names first: the one it was started with, before adapters of it."""
        data = (await self.object("/v1/models")).get("data")
        first = data[0] if isinstance(data, list) and data else None
        return first if isinstance(first, dict) else {}

    async def _answer(self, path: str) -> tuple[int, bytes]:
        if path not in self._known:
            try:
                self._known[path] = await fetch(self._engine, path, self._fields, timeout_s=TIMEOUT_S)
            except NO_ANSWER:
                if not self._known:
                    raise
                self._known[path] = NONE
        return self._known[path]


@asynccontextmanager
async def pages_of(url: str, tls: ssl.SSLContext | None, key: str | None) -> AsyncIterator[Pages]:
    """The pages of the engine at `url`, by its certificate as the system knows them where no other way is given."""
    known = tls or (ssl.create_default_context() if read_origin(url).tls else None)
    engine = Upstream(url, TIMEOUT_S, known)
    try:
        yield Pages(engine, key)
    finally:
        engine.close()


def text(value: Any) -> str | None:
    """A text that is one, and not empty; of a long one the beginning."""
    return value[:MOST_TEXT] if isinstance(value, str) and value else None


def count(value: Any) -> int | None:
    """A whole number above nothing."""
    return value if type(value) is int and value > 0 else None
