"""The way to the engine: its address, how a connection is opened, and those that are kept warm."""

import asyncio
import socket
import ssl
import time

import aiohappyeyeballs

from perjoule.sidecar.http.addresses import Unix, read_origin
from perjoule.sidecar.http.connection import Connection, UpstreamError

# uvicorn, and so vLLM, closes a connection that was idle for 5 s: one that was idle for longer than this is not worth a try.
IDLE_LIMIT_S = 4.0
HEAD_START_S = 0.25  # what RFC 8305 section 5 recommends before the next address is tried as well


class Upstream:
    """The engine's address and the idle connections to it, the latest used first."""

    def __init__(self, url: str, connect_timeout_s: float, tls: ssl.SSLContext | None = None) -> None:
        """`tls` is how an https engine is known; it may be replaced, and holds from the next connection on."""
        origin = read_origin(url)
        assert (tls is not None) == origin.tls
        self.url, self.address, self.prefix, self.tls = url, origin.address, origin.prefix.encode(), tls
        self.authority = b"localhost" if isinstance(origin.address, Unix) else str(origin.address).encode()
        self._connect_timeout_s = connect_timeout_s
        self._idle: list[Connection] = []  # the one that was used last stands last

    def warm(self) -> Connection | None:
        """An idle connection that is ready for a request, if there is one."""
        now = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            if connection.transport is not None and not connection.transport.is_closing() and now - connection.idle_since < IDLE_LIMIT_S:
                return connection
            connection.abandon()
        return None

    async def connection(self) -> Connection:
        """A connection that is ready for a request: a warm one, or a new one. Raises UpstreamError."""
        return self.warm() or await self.connect()

    async def connect(self) -> Connection:
        """A new connection. Raises UpstreamError."""
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                return await self._opened()
        except TimeoutError:
            said = f"{self.url} did not accept a connection in {self._connect_timeout_s:g} s"
            raise UpstreamError("upstream_timeout", said, 504) from None
        except ssl.SSLError as error:
            raise UpstreamError("upstream_tls", f"no TLS with {self.url}: {error.strerror or error}") from error
        except OSError as error:
            raise UpstreamError("upstream_unreachable", f"cannot connect to {self.url}: {error.strerror or error}") from error

    async def _opened(self) -> Connection:
        """Of several addresses that a name has, each gets a head start on the next one (RFC 8305)."""
        loop = asyncio.get_running_loop()
        if isinstance(self.address, Unix):
            _, made = await loop.create_unix_connection(lambda: Connection(self), self.address.path)
            return made
        host, port = self.address.host, self.address.port
        if self.address.is_literal:
            _, made = await loop.create_connection(lambda: Connection(self), host, port, ssl=self.tls)
            return made
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        connected = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=HEAD_START_S, interleave=1)
        _, made = await loop.create_connection(lambda: Connection(self), sock=connected, ssl=self.tls,
                                               server_hostname=host if self.tls is not None else None)
        return made

    def give_back(self, connection: Connection) -> None:
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        while self._idle and connection.idle_since - self._idle[0].idle_since >= IDLE_LIMIT_S:
            self._idle.pop(0).abandon()

    def forget(self, connection: Connection) -> None:
        """It is gone: never hand it out again."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().abandon()
