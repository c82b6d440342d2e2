"""A request for a WebSocket on its way: to the engine's consent, and then in a tunnel for as long as both sides want.

An answer that is no consent (401, 404, an error) is an ordinary answer, and a consent to something else is an error of the engine's: a
tunnel is opened only where it has proven that it speaks WebSocket with this client. What passes in a realtime session is watched.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from perjoule.sidecar.dialects.endpoints import Endpoint
from perjoule.sidecar.dialects.payload import text_of
from perjoule.sidecar.dialects.realtime import Realtime
from perjoule.sidecar.dialects.requests import Asked
from perjoule.sidecar.dialects.watch import Identity, Metering, Watch
from perjoule.sidecar.dialects.websocket import consents, extensions_of
from perjoule.sidecar.http.connection import Connection
from perjoule.sidecar.http.downstream import Downstream
from perjoule.sidecar.http.heads import Head, Headers, line, switching_head
from perjoule.sidecar.http.upstream import Upstream
from perjoule.sidecar.record import Outcome
from perjoule.sidecar.relay.exchange import Exchange
from perjoule.sidecar.relay.identity import another
from perjoule.sidecar.relay.tunnel import Tunnel

FIELDS = line(b"Connection", b"Upgrade") + line(b"Upgrade", b"websocket")  # hop by hop, and so said anew to the engine


@dataclass(slots=True)
class Session:
    """Who makes the watch of each response in a realtime session; the first has the identity that the engine was told."""

    metering: Metering
    endpoint: Endpoint
    identity: Identity
    engine: str
    target: str
    begun: bool = field(default=False, init=False)

    def watch(self, t_ns: int, model: str | None) -> Watch:
        """For a response that begins now."""
        identity = another(self.identity) if self.begun else self.identity
        self.begun = True
        return Watch(self.metering, self.endpoint, Asked(model=model, streamed=True), identity, self.engine, t_ns, time.time_ns())

    def opened(self, extensions: bytes) -> Realtime:
        """The engine has consented, with these Sec-WebSocket-Extensions."""
        asked = dict(parse_qsl(self.target.partition("?")[2]))
        return Realtime(self.watch, text_of(asked, "model"), extensions)


@dataclass(slots=True)
class Handshake:
    """One such request. `session` is None where nothing is metered, `failed` counts failures of metering."""

    client: Downstream
    asked: Headers
    session: Session | None
    patience_s: float
    failed: Callable[[], None]
    tunnel: Tunnel | None = field(default=None, init=False)
    _ended: "asyncio.Future[bool] | None" = field(default=None, init=False)

    async def run(self, exchange: Exchange, upstream: Upstream, request: bytes) -> bool:
        """To the end of the answer or of the tunnel. Whether the client's connection may serve another request."""
        self._ended = asyncio.get_running_loop().create_future()
        try:
            exchange.send(upstream, request, is_head=False, switch=lambda *consent: self._switch(exchange, *consent))
            keep_alive = await self._ended
            if self.tunnel is not None:
                await self.tunnel.done
        except BaseException as error:
            reason = "shutdown" if isinstance(error, asyncio.CancelledError) else "sidecar_error"
            exchange.fail(reason)
            if self.tunnel is not None:
                self.tunnel.cut(Outcome.ERRORED, reason)
            raise
        return keep_alive

    def ended(self, keep_alive: bool) -> None:
        """The exchange has: the engine has answered, or has consented."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(keep_alive)

    def _switch(self, exchange: Exchange, engine: Connection, head: Head, behind: bytes) -> bool:
        """The engine's 101 has come."""
        if not consents(self.asked, head.headers):
            return False
        session = self.session.opened(extensions_of(head.headers)) if self.session is not None else None
        exchange.give_way()
        self.tunnel = Tunnel(self.client, engine, switching_head(head), session, patience_s=self.patience_s, failed=self.failed)
        self.tunnel.from_engine(behind)
        return True
