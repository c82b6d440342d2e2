"""The handler: every request becomes an exchange with the engine, and the ones that cost energy are watched."""

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
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
from perjoule.sidecar.http.upstream import Upstream
from perjoule.sidecar.relay.answer import HOLD_LIMIT, HOLD_LIMIT_OF_MEDIA, Additions
from perjoule.sidecar.relay.exchange import Desk, Exchange
from perjoule.sidecar.relay.handshake import FIELDS, Handshake, Session
from perjoule.sidecar.relay.identity import credential_shown, identify, keep_readable
from perjoule.sidecar.settings.config import Config
from perjoule.sidecar.telemetry import Header

INCLUDE = Header.INCLUDE.lower().encode()
NOT_ANOTHER = heads.line(Header.INCLUDE.encode(), b"none")  # if a sidecar is behind this one, it is not to say another number
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
class Visit:
    """A request that has been let in: where it goes (`path` is None if that cannot be read as one), what it is there, whose, and when."""

    request: Request
    target: str
    path: str | None
    endpoint: Endpoint | None
    entry: Entry
    keep_alive: bool
    upgrades: bool
    t_ns: int
    unix_ns: int


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

    def handle(self, request: Request) -> Coroutine[Any, Any, bool | None] | None:
        """Downstream's Handle: a request is let in and sent on, or refused."""
        t_ns, unix_ns = time.monotonic_ns(), time.time_ns()
        client, method, target, headers = request.client, request.method, origin_form(request.target), request.headers
        fault = heads.fault(method, request.version, headers.first(b"transfer-encoding"), headers.first(b"expect"))
        if fault is not None:
            return self._refuse(client, *fault)
        path, keep_alive = path_of(target), request.keep_alive and not self.draining
        upgrades = client.at_upgrade and request.http11 and not request.body.exists and asks(method, headers)
        plain = target if path is None else path
        endpoint = socket_endpoint_of(method, plain) if upgrades else endpoint_of(method, plain) or job_endpoint_of(method, plain)
        entry = self.doors.enter(method, path, headers)
        if isinstance(entry, Refusal):
            self._turn_away(request, entry, keep_alive)
            return None
        visit = Visit(request, target, path, endpoint, entry, keep_alive, upgrades, t_ns, unix_ns)
        if endpoint is not None and entry.limited is not None:
            return self._admit(visit, entry.limited)
        return self._serve(visit)

    async def _admit(self, visit: Visit, name: str) -> bool | None:
        """Somebody whose budget must be asked for."""
        refusal = await self.desk.admit(name, visit.t_ns)
        if refusal is not None:
            self._turn_away(visit.request, refusal, visit.keep_alive)
            return None
        awaited = self._serve(visit)
        return await awaited if awaited is not None else None

    def _serve(self, visit: Visit) -> Coroutine[Any, Any, bool | None] | None:
        """Serve who has been let in: at once, if his whole request is there."""
        request, path = visit.request, visit.path
        if request.method == "GET" and path is not None and path.startswith(RECORDS):
            return self._answer_record(visit, path.removeprefix(RECORDS))
        if visit.upgrades:
            return self._upgrade(visit)
        look = jobs.look_of(request.method, path) if visit.endpoint is None else None
        if look is not None or not request.body.whole:
            return self._hear(visit, look)
        self._send(visit, request.body.taken())
        return None

    async def _hear(self, visit: Visit, look: jobs.Look | None) -> bool | None:
        """Serve one whose body is still to come, or who asks about a job."""
        try:
            body = await self._read(visit.request)
        except ConnectionError:  # the client left in the middle of its request, or the rest of it is malformed: nothing has begun
            return True
        except TimeoutError:
            text = f"the request's body came too slowly (--slow-sender-s {self.config.slow_sender_s:g})"
            return self._refuse(visit.request.client, 408, text)
        view = await self._view(look) if look is not None else None
        if visit.request.client.transport is None:  # the client left meanwhile
            return True
        self._send(visit, body, look, view)
        return None

    def _send(self, visit: Visit, body: bytes | None, look: jobs.Look | None = None, view: View | None = None) -> None:
        """Send a request to the engine; its answer finds the client."""
        request, target, endpoint, entry = visit.request, visit.target, visit.endpoint, visit.entry
        client, method, headers = request.client, request.method, request.headers
        if body is None or len(body) > self.config.max_body_mb * 1_000_000:
            self._refuse(client, 413, f"the request body exceeds {self.config.max_body_mb} MB (--max-body-mb)")
            return
        drop, add, http11 = list(entry.drop), list(entry.add), request.http11
        if not http11 and b"host" not in headers:  # which HTTP/1.0 may lack
            add.append(heads.line(b"Host", self.upstream.authority))
        watch: Watch | Sight | None = None
        additions = Additions()
        if endpoint is not None:
            identity = identify(headers, entry.tenant, drop, add, tracing=self.tracing)
            asked = read_request(endpoint, body)
            additions = self._additions(headers, asked)
            if asked.can_ask and (additions.hide_usage or additions.in_usage):
                body = ask_for_usage(body)
                drop.append(b"accept-encoding")  # in a compressed stream nothing could be hidden again
            else:
                keep_readable(headers, drop, add)
            kind = jobs.creates(target if visit.path is None else visit.path, body)
            if kind is None:
                watch = Watch(self.desk, endpoint, asked, identity, self.engine, visit.t_ns, visit.unix_ns)
            else:
                watch = Creation(self.desk, endpoint, asked, identity, self.engine, visit.t_ns, visit.unix_ns, kind=kind[0], base=kind[1],
                                 credential=credential_shown(headers, drop))
        elif look is not None and view is not None:
            watch, additions = Sight(self.desk, look, view), self._job_additions(headers, look, view, entry)
            keep_readable(headers, drop, add)
        elif look is None and (removed := jobs.removed_by(method, visit.path, body)) is not None:
            self.desk.removed(removed, visit.t_ns)
        if additions.shown:
            drop.append(INCLUDE)
            add.append(NOT_ANOTHER)
        exchange = Exchange(client, watch, additions, http11=http11, keep_alive=visit.keep_alive,
                            slow_after_s=self.config.slow_reader_s, desk=self.desk)
        head = heads.request_head(method, self.upstream.prefix + target.encode(), headers, len(body), drop=drop, add=add)
        exchange.send(self.upstream, head, body, is_head=method == "HEAD")

    async def _upgrade(self, visit: Visit) -> bool:
        """A request for a WebSocket, to the end of the answer that refuses it, or to the end of both connections."""
        request, target, entry, headers = visit.request, visit.target, visit.entry, visit.request.headers
        drop, add = [INCLUDE, *entry.drop], [*entry.add, FIELDS]
        session = None
        if visit.endpoint is not None:
            identity = identify(headers, entry.tenant, drop, add, tracing=self.tracing)
            session = Session(self.desk, visit.endpoint, identity, self.engine, target)
        handshake = Handshake(request.client, headers, session, self.config.slow_reader_s, self.desk.failed)
        exchange = Exchange(request.client, None, Additions(), http11=True, keep_alive=visit.keep_alive,
                            slow_after_s=self.config.slow_reader_s, desk=self.desk, ended=handshake.ended)
        head = heads.request_head("GET", self.upstream.prefix + target.encode(), headers, 0, drop=drop, add=add)
        return await handshake.run(exchange, self.upstream, head)

    async def _read(self, request: Request) -> bytes | None:
        """The whole request body; None if it is larger than is allowed."""
        body, limit = request.body, self.config.max_body_mb * 1_000_000
        if (body.length or 0) > limit:
            return None
        expects = request.http11 and b"expect" in request.headers
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

    async def _answer_record(self, visit: Visit, record_id: str) -> bool | None:
        """`GET /energy/{id}`: the record by its id or by the client's request id. One that has ended is waited for, until settled.
        Who has a key gets the records of that key only."""
        client, name = visit.request.client, visit.entry.name
        try:
            found = await self.desk.find(record_id)
        except OSError as error:
            return self._refuse(client, 503, f"the ledger cannot be read now: {error}")
        if found is None or (name is not None and found["tenant"] != name):
            text = f"no record with id {record_id[:80]!r}; a request has one once it has ended"
            return self._refuse(client, 404, text, "record_not_found", keep_alive=visit.keep_alive)
        if client.transport is not None:
            client.transport.write(json_answer(200, orjson.dumps(found), keep_alive=visit.keep_alive))
        return visit.keep_alive

    def _turn_away(self, request: Request, refusal: Refusal, keep_alive: bool) -> None:
        keep_alive = keep_alive and request.body.whole
        self._refuse(request.client, refusal.status, refusal.text, refusal.kind, refusal.fields, keep_alive)

    @staticmethod
    def _refuse(client: Downstream, status: int, text: str, kind: str = "", fields: Iterable[tuple[str, str]] = (),
                keep_alive: bool = False) -> None:
        """The answer to a request that is not served."""
        if client.transport is not None:
            client.transport.write(error_answer(status, text, kind, fields, keep_alive=keep_alive))
        client.answered(keep_alive)
