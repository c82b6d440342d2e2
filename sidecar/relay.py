"""The handler: every request becomes an exchange with the engine, and the ones that cost energy are watched."""

import asyncio
import hashlib
import time
import uuid
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson
from aiohttp import web

from perjoule.sidecar import heads
from perjoule.sidecar.answer import Additions
from perjoule.sidecar.config import Config
from perjoule.sidecar.desk import Desk
from perjoule.sidecar.endpoints import endpoint_of
from perjoule.sidecar.exchange import Exchange
from perjoule.sidecar.front import Downstream, Relayed, error_answer, json_answer
from perjoule.sidecar.pools import as_rank
from perjoule.sidecar.requests import Asked, ask_for_usage, read_request
from perjoule.sidecar.telemetry import Header
from perjoule.sidecar.trace_context import TraceContext, parse_traceparent
from perjoule.sidecar.upstream import Upstream, UpstreamError
from perjoule.sidecar.watch import Identity, Watch

INCLUDE = Header.INCLUDE.lower().encode()
RANK = b"x-data-parallel-rank"  # vLLM's: which of its engine cores is to serve the request
SAFE_ID = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:")
EXACT_ENGINES = frozenset({"vllm"})  # whose answers with usage asked can be turned back, byte for byte, into those without


@dataclass(slots=True)
class Relay:
    """Everything a request needs on its way; `engine` is what the upstream was found to be."""

    config: Config
    upstream: Upstream
    desk: Desk
    tracing: bool = False
    engine: str = "unknown"
    draining: bool = False
    active: int = field(default=0, init=False)

    async def handle(self, request: web.BaseRequest) -> Any:
        """One request of one client, to the end of its answer."""
        self.active += 1
        try:
            return await self._handle(request)
        finally:
            self.active -= 1

    async def _handle(self, request: web.BaseRequest) -> Relayed:
        t_ns, unix_ns = time.monotonic_ns(), time.time_ns()
        client = request.protocol
        assert isinstance(client, Downstream)
        method, target, headers = request.method, request.raw_path, request.raw_headers
        keep_alive = request.keep_alive and not self.draining
        if method == "GET" and target.startswith("/energy/"):
            return await self._answer_record(client, target[len("/energy/"):], keep_alive)
        if b"websocket" in heads.tokens(headers, b"upgrade"):
            return self._refuse(client, 501, "WebSocket connections are not relayed yet; got an Upgrade to websocket")
        try:
            body = await self._read(request, client)
        except ConnectionError:  # the client left in the middle of its request: nothing has begun
            return Relayed(keep_alive=False)
        if body is None:
            return self._refuse(client, 413, f"the request body exceeds {self.config.max_body_mb} MB (--max-body-mb)")
        endpoint = endpoint_of(method, target)
        drop: set[bytes] = {INCLUDE}
        add: list[tuple[bytes, bytes]] = []
        watch, additions = None, Additions()
        if endpoint is not None:
            identity = self._identify(headers, drop, add)
            asked = read_request(endpoint, body)
            additions = self._additions(headers, asked)
            if asked.can_ask and (additions.hide_usage or additions.in_usage):
                body = ask_for_usage(body)
                drop.add(b"accept-encoding")  # in a compressed stream nothing could be hidden again
            watch = Watch(self.desk, endpoint, asked, identity, self.engine, t_ns, unix_ns)
        exchange = Exchange(client, watch, additions, http11=request.version >= (1, 1), keep_alive=keep_alive,
                            slow_after_s=self.config.slow_reader_s, desk=self.desk)
        head = heads.request_head(method, self.upstream.prefix + _origin_form(target), headers, len(body), drop=frozenset(drop), add=add)
        try:
            await self._run(exchange, head + body, is_head=method == "HEAD")
        except BaseException as error:
            exchange.fail("shutdown" if isinstance(error, asyncio.CancelledError) else "sidecar_error")
            raise
        return Relayed(keep_alive=exchange.keep_alive)

    async def _run(self, exchange: Exchange, request: bytes, *, is_head: bool) -> None:
        """Send it and wait for the engine's side to be over. A warm connection that had gone stale is tried once more, fresh."""
        for fresh in (False, True):
            try:
                connection = await self.upstream.connection(fresh=fresh)
            except UpstreamError as error:
                exchange.refuse(error)
                return
            if exchange.over:  # the client left meanwhile
                connection.abandon()
                return
            exchange.connection = connection
            connection.begin(exchange, request, is_head=is_head)
            await exchange.done
            failure = exchange.failure
            if failure is None or exchange.over:
                return
            if fresh or not connection.used or connection.answered:
                exchange.refuse(failure)
                return
            exchange.again()

    async def _read(self, request: web.BaseRequest, client: Downstream) -> bytes | None:
        """The whole request body; None if it is larger than is allowed."""
        if not request.body_exists:
            return b""
        limit = self.config.max_body_mb * 1_000_000
        if (request.content_length or 0) > limit:
            return None
        if b"100-continue" in heads.tokens(request.raw_headers, b"expect") and client.transport is not None:
            client.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces, size = [], 0
        while piece := await request.content.readany():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                return None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _identify(self, headers: heads.Headers, drop: set[bytes], add: list[tuple[bytes, bytes]]) -> Identity:
        """Ids of a request, and what the engine is told of them: X-Request-Id, so that its logs and spans join ours, and traceparent."""
        record_id = uuid.uuid4().hex
        given = heads.first(headers, b"x-request-id")
        if given is None:
            request_id = record_id
            add.append((b"X-Request-Id", record_id.encode()))
        else:
            request_id = given.decode() if 0 < len(given) <= 128 and SAFE_ID.issuperset(given) else record_id
        key = heads.first(headers, b"authorization") or heads.first(headers, b"x-api-key")
        context = parse_traceparent(heads.first(headers, b"traceparent"))
        parent_id = context.parent_id if context is not None else None
        rank = as_rank((heads.first(headers, RANK) or b"").decode("latin-1"))
        if not self.tracing:
            return Identity(record_id, request_id, _tenant(key), context.trace_id if context is not None else None, None, parent_id, rank)
        context = context or TraceContext(uuid.uuid4().hex, None, flags=1)
        span_id = uuid.uuid4().hex[:16]
        drop.add(b"traceparent")
        add.append((b"traceparent", context.child(span_id).encode()))
        return Identity(record_id, request_id, _tenant(key), context.trace_id, span_id, parent_id, rank)

    def _additions(self, headers: heads.Headers, asked: Asked) -> Additions:
        """What this client gets beside the engine's bytes: what the operator allows and it asked for (docs/in-band.md)."""
        wanted = heads.tokens(headers, INCLUDE)
        if b"none" in wanted:
            return Additions(hide_usage=self._hides(asked))
        config = self.config
        in_usage = b"usage" in wanted
        return Additions(headers=config.headers, comment=config.comment, in_usage=in_usage, wait_settled=b"settled" in wanted,
                         trailers=config.trailers and b"trailers" in heads.tokens(headers, b"te"),
                         hide_usage=self._hides(asked) and not in_usage)

    def _hides(self, asked: Asked) -> bool:
        return self.config.ask_usage and asked.can_ask and self.engine in EXACT_ENGINES

    async def _answer_record(self, client: Downstream, record_id: str, keep_alive: bool) -> Relayed:
        """`GET /energy/{id}`: the record by its id or by the client's request id. One that has ended is waited for, until settled."""
        try:
            found = await self.desk.find(record_id)
        except OSError as error:
            return self._refuse(client, 503, f"the ledger cannot be read now: {error}")
        if found is None:
            text = f"no record with id {record_id[:80]!r}; a request has one once it has ended"
            answer = error_answer(404, text, "record_not_found", keep_alive=keep_alive)
        else:
            answer = json_answer(200, orjson.dumps(found), keep_alive=keep_alive)
        if client.transport is not None:
            client.transport.write(answer)
        return Relayed(keep_alive=keep_alive)

    @staticmethod
    def _refuse(client: Downstream, status: int, text: str) -> Relayed:
        if client.transport is not None:
            client.transport.write(error_answer(status, text, keep_alive=False))
        return Relayed(keep_alive=False)


@lru_cache(maxsize=1024)
def _tenant(key: bytes | None) -> str | None:
    """Who pays: the first half of the key's SHA-256, from which the key cannot be had back."""
    return hashlib.sha256(key).hexdigest()[:32] if key else None


def _origin_form(target: str) -> bytes:
    """The target as an origin server expects it; an absolute form (RFC 9112 3.2.2) loses its authority."""
    if not target.startswith("/") and "://" in target:
        target = "/" + target.split("://", 1)[1].partition("/")[2]
    return target.encode("latin-1" if target.isascii() else "utf-8", "surrogateescape")
