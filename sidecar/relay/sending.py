"""One request on its way to the engine: over an idle connection, or over a new one; once more if the first had gone stale."""

import asyncio
from typing import cast

from perjoule.sidecar.http.connection import Connection, Receiver, Switch, UpstreamError
from perjoule.sidecar.http.upstream import Upstream


class Sending:
    """What an Upstream.Receiver is as long as nothing has been answered. `connection` is where the request went, `over` whether all has
    come to its end."""

    __slots__ = ("_body", "_connecting", "_head", "_is_fresh", "_is_head", "_switch", "_upstream", "connection", "over")

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.over = False
        self._is_fresh = False  # it went, or is to go, over a new connection
        self._connecting: asyncio.Task[None] | None = None

    def send(self, upstream: Upstream, head: bytes, body: bytes = b"", *, is_head: bool, switch: Switch | None = None) -> None:
        """Send this request; `switch` takes the connection over if the engine consents to another protocol."""
        self._upstream, self._head, self._body, self._is_head, self._switch = upstream, head, body, is_head, switch
        connection = upstream.warm()
        if connection is not None:
            self._send_over(connection)
        else:
            self._connect()

    def sends_again(self) -> bool:
        """The connection was lost, and nothing has been answered. Whether another is tried: an idle one may have been closed, by an engine
        that has not heard of this request, at the moment in which it was used."""
        connection, self.connection = self.connection, None
        if self._is_fresh or connection is None or not connection.used or connection.answered:
            return False
        self._connect()
        return True

    def has_answer(self) -> None:
        """The engine has begun to answer: the request need not be kept. A long prompt is not held for as long as its answer takes."""
        self._head = self._body = b""

    def refuse(self, error: UpstreamError) -> None:
        """Nothing will come."""
        raise NotImplementedError

    def broke(self, error: Exception) -> None:
        """Nothing will come, and the fault is the sidecar's own."""
        raise NotImplementedError

    def _send_over(self, connection: Connection) -> None:
        self.connection = connection
        connection.begin(cast(Receiver, self), self._head, self._body, is_head=self._is_head, switch=self._switch)

    def _connect(self) -> None:
        self._is_fresh = True
        self._connecting = asyncio.get_running_loop().create_task(self._send_anew())

    async def _send_anew(self) -> None:
        try:
            connection = await self._upstream.connect()
            if self.over:  # the client left meanwhile
                connection.abandon()
            else:
                self._send_over(connection)
        except UpstreamError as error:
            self.refuse(error)
        except Exception as error:
            self.broke(error)
        finally:
            self._connecting = None  # which holds this
