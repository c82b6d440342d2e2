"""The traffic port's clients: taken as long as there is room, heard, told what is wrong in the API's own shape, and let go."""

import asyncio
import http
import logging
import resource
from collections.abc import Iterable

import orjson

from perjoule.sidecar.http.downstream import Downstream, Handle

IDLE_S = 75.0  # a connection that asks nothing for so long is closed, as nginx does
IDLE_LOOK_S = 5.0
CLOSE_LOOK_S = 0.01
MOST_FILES = 1_048_576  # Linux allows no more, unless fs.nr_open was raised
OTHER_FILES = 64  # the ledger, the collector, the operator's port, the driver

logger = logging.getLogger("perjoule")


class Front:
    """Makes a Downstream for every client. `handle` serves a request; `slow_sender_s` is what a head may take."""

    def __init__(self, handle: Handle, *, slow_sender_s: float = 30.0, max_connections: int = 0) -> None:
        """Without a number of connections there is room for as many as the process may have open."""
        self.handle, self.slow_sender_s = handle, slow_sender_s
        self._most = max_connections or room_for_connections()
        self.clients: set[Downstream] = set()
        self._look: asyncio.TimerHandle | None = None

    def __call__(self) -> Downstream:
        return Downstream(self)

    @property
    def busy(self) -> int:
        """Requests that are being answered."""
        return sum(client.busy for client in self.clients)

    async def close(self, patience_s: float) -> None:
        """Let go of those who ask nothing at once, of the others once they are answered, or after so long."""
        if self._look is not None:
            self._look.cancel()
        until_s = asyncio.get_running_loop().time() + patience_s
        self._close_idle(0.0)
        while self.clients and asyncio.get_running_loop().time() < until_s:
            await asyncio.sleep(CLOSE_LOOK_S)
            self._close_idle(0.0)
        late = [task for client in tuple(self.clients) if (task := client.stop()) is not None]
        await asyncio.gather(*late, return_exceptions=True)
        for client in tuple(self.clients):
            if client.transport is not None:
                client.transport.abort()
        await asyncio.sleep(0)  # in the next turn of the loop they are gone

    # Downstream's Keeper

    def made(self, client: Downstream) -> None:
        """Another client is there."""
        self.clients.add(client)
        if len(self.clients) > self._most:
            client.refuse(503, f"{self._most} clients are connected, which is all there is room for")
        if self._look is None:
            self._look_for_idle()

    def lost(self, client: Downstream) -> None:
        """It is gone."""
        self.clients.discard(client)

    def refusal(self, status: int, text: str) -> bytes:
        """What is answered to bytes that are no request."""
        return error_answer(status, text, keep_alive=False)

    def failed(self, error: Exception) -> bytes:
        """What is answered where the sidecar broke: the client hears that it did, the log hears why."""
        logger.error("a request could not be handled", exc_info=error)
        return error_answer(500, http.HTTPStatus(500).phrase, keep_alive=False)

    def _look_for_idle(self) -> None:
        self._close_idle(IDLE_S)
        self._look = asyncio.get_running_loop().call_later(IDLE_LOOK_S, self._look_for_idle) if self.clients else None

    def _close_idle(self, longer_than_s: float) -> None:
        since = asyncio.get_running_loop().time() - longer_than_s
        for client in self.clients:
            if not client.busy and client.idle_since <= since and client.transport is not None:
                client.transport.close()


def room_for_connections() -> int:
    """How many clients' connections this process may have: half of the files it may open, since each may need one to the engine.
    The soft limit is raised as far as it goes: it is low for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(1, (most - OTHER_FILES) // 2)


def error_body(status: int, message: str, kind: str = "") -> bytes:
    """An error of the sidecar's own, in OpenAI's shape; `type` says that it was not the engine who spoke."""
    return orjson.dumps({"error": {"message": message, "type": kind or "perjoule_error", "param": None, "code": status}})


def json_answer(status: int, body: bytes, fields: Iterable[tuple[str, str]] = (), *, keep_alive: bool = True) -> bytes:
    """A JSON body of the sidecar's own as a whole HTTP/1.1 answer, with these fields beside."""
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", "Content-Type: application/json", f"Content-Length: {len(body)}",
             *(f"{name}: {value}" for name, value in fields)]
    if not keep_alive:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body


def error_answer(status: int, message: str, kind: str = "", fields: Iterable[tuple[str, str]] = (), *, keep_alive: bool = True) -> bytes:
    """An error of the sidecar's own as a whole HTTP/1.1 answer."""
    return json_answer(status, error_body(status, message, kind), fields, keep_alive=keep_alive)
