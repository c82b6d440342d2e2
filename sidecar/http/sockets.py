"""Sockets that are listened on: opened, served with or without TLS, closed, and the files of unix sockets cleared away."""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from perjoule.sidecar.http.addresses import EVERY_IPV6, Address, Unix

BACKLOG = 4096  # clients that may wait for `accept`; the kernel caps it at net.core.somaxconn
HANDSHAKE_S = 10.0  # a client that has not finished its TLS handshake by then is closed


def listening_socket(address: Address, *, reuse_port: bool = False, mode: int = 0o660) -> socket.socket:
    """A socket that is listened on, from now: who connects waits until it is served. `[::]` takes IPv4, too; `reuse_port` lets
    other processes listen on the same port; `mode` is for a unix socket's file. Raises OSError, which names the address."""
    try:
        if isinstance(address, Unix):
            return _listening_unix(address.path, mode)
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG, reuse_port=reuse_port,
                                    dualstack_ipv6=address.host == EVERY_IPV6)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (while")[0]
        raise OSError(error.errno, f"cannot listen on {address}: {why}") from error


def limit_silence(listening: socket.socket, limit_s: float) -> None:
    """Clients who take nothing are given up by the kernel, also when the last word to them has been written already: after twice
    the limit, so that whoever still writes to them sees it first. (TCP_USER_TIMEOUT of tcp(7), which accepted sockets inherit.)"""
    if listening.family != socket.AF_UNIX:  # which has nothing like it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, round(2000 * limit_s)))


def url_of(listening: socket.socket, *, tls: bool = False) -> str:
    """Where clients find it, with the port that it really has."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{name}"
    host = f"[{name[0]}]" if listening.family == socket.AF_INET6 else name[0]
    return f"{'https' if tls else 'http'}://{host}:{name[1]}"


class Listener:
    """A listening socket and who serves it. Served again, it changes its certificates: nobody is refused meanwhile, and a
    connection that is open keeps what it has."""

    def __init__(self, listening: socket.socket) -> None:
        self.listening = listening
        self._server: asyncio.Server | None = None

    async def serve(self, protocol: Callable[[], asyncio.BaseProtocol], tls: ssl.SSLContext | None = None,
                    handshake_s: float = HANDSHAKE_S) -> None:
        """Give every client a protocol of its own, from now; whoever did so before stops."""
        before, loop = self._server, asyncio.get_running_loop()
        self._server = await loop.create_server(protocol, sock=self.listening.dup(), backlog=BACKLOG, ssl=tls,
                                                ssl_handshake_timeout=handshake_s if tls is not None else None)
        if before is not None:
            before.close()

    def close(self) -> None:
        """Take no more clients; those who are there stay. A unix socket's file goes, unless another process listens there."""
        if self._server is not None:
            self._server.close()
            self._server = None
        stop_listening(self.listening)


def stop_listening(listening: socket.socket) -> None:
    """Close the socket, if it is open. A unix socket's file goes, unless another process listens there."""
    if listening.fileno() >= 0:
        path = listening.getsockname() if listening.family == socket.AF_UNIX else ""
        listening.close()
        if path:
            _remove_if_nobody_listens(path)


def _listening_unix(path: str, mode: int) -> socket.socket:
    if Path(path).is_socket():
        _remove_if_nobody_listens(path)  # who was killed left it there
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(path)
        Path(path).chmod(mode)  # before anybody can connect
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def _remove_if_nobody_listens(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            Path(path).unlink(missing_ok=True)
