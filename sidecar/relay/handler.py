"""The handler: every request becomes an exchange with the engine, and the ones that cost energy are watched."""

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from perjoule.sidecar.access.doors import RECORDS, Doors, Entry, Refusal
from perjoule.sidecar.dialects import jobs
from perjoule.sidecar.dialects.endpoints import Endpoint, endpoint_of, job_endpoint_of, socket_endpoint_of
from perjoule.sidecar.dialects.jobwatch import Creation, Keeping, Sight, View
from perjoule.sidecar.dialects.requests import Asked, ask_for_usage, read_request
from perjoule.sidecar.dialects.watch import Watch
from perjoule.sidecar.dialects.websocket import asks
from perjoule.sidecar.http import heads
from perjoule.sidecar.http.downstream import Downstream, Request
from perjoule.sidecar.http.front import error_answer, json_answer
from perjoule.sidecar.http.paths import origin_form, path_of
from perjoule.sidecar.http.upstream import Switch, Upstream, UpstreamError
from perjoule.sidecar.relay.answer import HOLD_LIMIT, HOLD_LIMIT_OF_MEDIA, Additions
from perjoule.sidecar.relay.exchange import Desk, Exchange
from perjoule.sidecar.relay.handshake import FIELDS, Handshake, Session
from perjoule.sidecar.relay.identity import credential_shown, identify, keep_readable
from perjoule.sidecar.settings.config import Config
from perjoule.sidecar.telemetry import Header

INCLUDE = Header.INCLUDE.lower().encode()
SLOWEST_BYTES_PER_S = 10_000  # a body that comes slower than this, after --slow-sender-s, is somebody's who holds connections
EXACT_ENGINES = frozenset({"vllm"})  # whose answers with usage asked can be turned back, byte for byte, into those without

logger = logging.getLogger("perjoule")


class AnyDesk(Keeping, Desk, Protocol):
    """Where requests are metered: the meter's own desk, or a worker's way there."""

    def removed(self, job_ids: tuple[str, ...], t_ns: int) -> None: ...
    async def view(self, look: jobs.Look) -> View | None: ...
    async def admit(self, name: str, t_ns: int) -> Refusal | None: ...
    async def find(self, any_id: str) -> dict[str, Any] | None: ...


@dataclass(slots=True)
class Relay:
    """Everything a request needs on its way; `engine` is what the upstream was found to be."""

    config: Config
    upstream: Upstream
    desk: AnyDesk
    doors: Doors = field(default_factory=Doors)
    tracing: bool = False
    engine: str = "unknown"
    draining: bool = False
    active: int = field(default=0, init=False)

    async def handle(self, request: Request) -> bool:
        """One request of one client, to the end of its answer. Whether the client's connection may serve another one."""
        self.active += 1
        try:
            return await self._handle(request)
        finally:
            self.active -= 1

    async def _handle(self, request: Request) -> bool:
        t_ns, unix_ns = time.monotonic_ns(), time.time_ns()
        client, method, target, headers = request.client, request.method, origin_form(request.target), request.headers
        path = path_of(target)
        keep_alive = request.keep_alive and not self.draining
        fault = heads.fault(method, request.version, heads.first(headers, b"transfer-encoding"), heads.first(headers, b"expect"))
        if fault is not None:
            return self._refuse(client, *fault)
        upgrades = client.at_upgrade and request.version >= (1, 1) and not request.body.exists and asks(method, headers)
        plain = target if path is None else path
        endpoint = socket_endpoint_of(method, plain) if upgrades else endpoint_of(method, plain) or job_endpoint_of(method, plain)
        entry = self.doors.enter(method, path, headers)
        if endpoint is not None and isinstance(entry, Entry) and entry.limited is not None:
            entry = await self.desk.admit(entry.limited, t_ns) or entry
        if isinstance(entry, Refusal):
            return self._refuse(client, entry.status, entry.text, entry.kind, entry.fields, keep_alive and request.body.whole)
        if method == "GET" and path is not None and path.startswith(RECORDS):
            return await self._answer_record(client, path.removeprefix(RECORDS), entry, keep_alive)
        if upgrades:
            return await self._upgrade(client, target, headers, entry, endpoint, keep_alive)
        try:
            body = request.body.taken() if request.body.whole else await self._read(request)
        except ConnectionError:  # the client left in the middle of its request, or the rest of it is malformed: nothing has begun
            return True
        except TimeoutError:
            return self._refuse(client, 408, f"the request's body came too slowly (--slow-sender-s {self.config.slow_sender_s:g})")
        if body is None or len(body) > self.config.max_body_mb * 1_000_000:
            return self._refuse(client, 413, f"the request body exceeds {self.config.max_body_mb} MB (--max-body-mb)")
        drop: set[bytes] = {*entry.drop}
        add: list[tuple[bytes, bytes]] = [*entry.add]
        if request.version < (1, 1) and heads.first(headers, b"host") is None:  # which HTTP/1.0 may lack
            add.append((b"Host", self.upstream.authority))
        watch: Watch | Sight | None = None
        additions = Additions()
        if endpoint is not None:
            identity = identify(headers, entry.tenant, drop, add, tracing=self.tracing)
            asked = read_request(endpoint, body)
            additions = self._additions(headers, asked)
            if asked.can_ask and (additions.hide_usage or additions.in_usage):
                body = ask_for_usage(body)
                drop.add(b"accept-encoding")  # in a compressed stream nothing could be hidden again
            else:
                keep_readable(headers, drop, add)
            about = self.desk, endpoint, asked, identity, self.engine, t_ns, unix_ns
            kind = jobs.creates(plain, body)
            watch = (Watch(*about) if kind is None
                     else Creation(*about, kind=kind[0], base=kind[1], credential=credential_shown(headers, drop)))
        elif (look := jobs.look_of(method, path)) is not None:
            view = await self._view(look)
            if client.transport is None:  # the client left meanwhile
                return True
            if view is not None:
                watch, additions = Sight(self.desk, look, view), self._job_additions(headers, look, view, entry)
                keep_readable(headers, drop, add)
        elif (removed := jobs.removed_by(method, path, body)) is not None:
            self.desk.removed(removed, t_ns)
        if additions.shown:  # if a sidecar is behind this one, it is not to say another number
            drop.add(INCLUDE)
            add.append((Header.INCLUDE.encode(), b"none"))
        exchange = Exchange(client, watch, additions, http11=request.version >= (1, 1), keep_alive=keep_alive,
                            slow_after_s=self.config.slow_reader_s, desk=self.desk)
        head = heads.request_head(method, self.upstream.prefix + target.encode(), headers, len(body), drop=frozenset(drop), add=add)
        exchange.request = head + body
        del body  # a long prompt is not held for as long as its answer takes
        try:
            await self._run(exchange, is_head=method == "HEAD")
        except BaseException as error:
            exchange.fail("shutdown" if isinstance(error, asyncio.CancelledError) else "sidecar_error")
            raise
        return exchange.keep_alive

    async def _upgrade(self, client: Downstream, target: str, headers: heads.Headers, entry: Entry, endpoint: Endpoint | None,
                       keep_alive: bool) -> bool:
        """A request for a WebSocket, to the end of the answer that refuses it, or to the end of both connections."""
        drop: set[bytes] = {INCLUDE, *entry.drop}
        add: list[tuple[bytes, bytes]] = [*entry.add, *FIELDS]
        session = None
        if endpoint is not None:
            identity = identify(headers, entry.tenant, drop, add, tracing=self.tracing)
            session = Session(self.desk, endpoint, identity, self.engine, target)
        exchange = Exchange(client, None, Additions(), http11=True, keep_alive=keep_alive, slow_after_s=self.config.slow_reader_s,
                            desk=self.desk)
        handshake = Handshake(client, headers, exchange, session, self.config.slow_reader_s, self.desk.failed)
        exchange.request = heads.request_head("GET", self.upstream.prefix + target.encode(), headers, 0, drop=frozenset(drop), add=add)
        return await handshake.run(lambda switch: self._run(exchange, is_head=False, switch=switch))

    async def _run(self, exchange: Exchange, *, is_head: bool, switch: Switch | None = None) -> None:
        """Send it and wait for the engine's side to be over. A warm connection that had gone stale is tried once more, fresh."""
        for fresh in (False, True):
            try:
                connection = (None if fresh else self.upstream.warm()) or await self.upstream.connection(fresh=True)
            except UpstreamError as error:
                exchange.refuse(error)
                return
            if exchange.over:  # the client left meanwhile
                connection.abandon()
                return
            exchange.connection = connection
            connection.begin(exchange, exchange.request, is_head=is_head, switch=switch)
            await exchange.done
            failure = exchange.failure
            if failure is None or exchange.over:
                return
            if fresh or not connection.used or connection.answered:
                exchange.refuse(failure)
                return
            exchange.again()

    async def _read(self, request: Request) -> bytes | None:
        """The whole request body; None if it is larger than is allowed."""
        body, limit = request.body, self.config.max_body_mb * 1_000_000
        if (body.length or 0) > limit:
            return None
        expects = request.version >= (1, 1) and heads.first(request.headers, b"expect") is not None
        if expects and request.client.transport is not None:
            request.client.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces, size = [], 0
        async with asyncio.timeout(self.config.slow_sender_s) as patience:
            while piece := await body.some():
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    return None
                if (until := patience.when()) is not None:
                    patience.reschedule(until + len(piece) / SLOWEST_BYTES_PER_S)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _additions(self, headers: heads.Headers, asked: Asked) -> Additions:
        """What this client gets beside the engine's bytes: what the operator allows and it asked for (docs/in-band.md)."""
        wanted = heads.tokens(headers, INCLUDE)
        if b"none" in wanted:
            return Additions(hide_usage=self._hides(asked))
        config = self.config
        in_usage = b"usage" in wanted
        return Additions(headers=config.headers, comment=config.comment, in_usage=in_usage, wait_settled=b"settled" in wanted,
                         trailers=config.trailers and b"trailers" in heads.tokens(headers, b"te"),
                         hide_usage=self._hides(asked) and not in_usage,
                         hold_limit=HOLD_LIMIT if asked.makes is None else HOLD_LIMIT_OF_MEDIA)

    def _hides(self, asked: Asked) -> bool:
        return self.config.ask_usage and asked.can_ask and self.engine in EXACT_ENGINES

    async def _view(self, look: jobs.Look) -> View | None:
        """What is known of a job that a client asks about, None for one that is not ours; a meter that does not answer knows none."""
        try:
            return await self.desk.view(look)
        except Exception as error:
            if not isinstance(error, OSError):
                self.desk.failed()
                logger.exception("looking for a job failed; its traffic goes on")
            return None

    def _job_additions(self, headers: heads.Headers, look: jobs.Look, view: View, entry: Entry) -> Additions:
        """What this client gets beside what the engine says of a job. Who has a key sees the joules of that key's jobs only."""
        wanted = heads.tokens(headers, INCLUDE)
        if b"none" in wanted or (entry.name is not None and view.tenant != entry.name):
            return Additions()
        is_status = look.verb is jobs.Verb.STATUS
        return Additions(headers=self.config.headers, in_usage=is_status and b"usage" in wanted, wait_settled=b"settled" in wanted,
                         job_id=look.id, at_once=view.told is not None)

    async def _answer_record(self, client: Downstream, record_id: str, entry: Entry, keep_alive: bool) -> bool:
        """`GET /energy/{id}`: the record by its id or by the client's request id. One that has ended is waited for, until settled.
        Who has a key gets the records of that key only."""
        try:
            found = await self.desk.find(record_id)
        except OSError as error:
            return self._refuse(client, 503, f"the ledger cannot be read now: {error}")
        if found is None or (entry.name is not None and found["tenant"] != entry.name):
            text = f"no record with id {record_id[:80]!r}; a request has one once it has ended"
            answer = error_answer(404, text, "record_not_found", keep_alive=keep_alive)
        else:
            answer = json_answer(200, orjson.dumps(found), keep_alive=keep_alive)
        if client.transport is not None:
            client.transport.write(answer)
        return keep_alive

    @staticmethod
    def _refuse(client: Downstream, status: int, text: str, kind: str = "", fields: Iterable[tuple[str, str]] = (),
                keep_alive: bool = False) -> bool:
        if client.transport is not None:
            client.transport.write(error_answer(status, text, kind, fields, keep_alive=keep_alive))
        return keep_alive
