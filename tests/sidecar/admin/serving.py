"""The operator's port on a socket, and a client of it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp

from perjoule.sidecar.admin.port import AdminView, Port
from perjoule.sidecar.http.addresses import read_address
from perjoule.sidecar.http.front import Front
from perjoule.sidecar.http.sockets import Listener, listening_socket, url_of


@asynccontextmanager
async def asking(view: AdminView, token_now: Callable[[], str | None] = lambda: None,
                 stops: list[Callable[[], None]] | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the port that shows this; what stops the port is put into `stops`."""
    port = Port(view, token_now)
    front, listener = Front(port.handle), Listener(listening_socket(read_address("127.0.0.1:0")))
    if stops is not None:
        stops.append(port.close)
    await listener.serve(front)
    try:
        async with aiohttp.ClientSession(url_of(listener.listening)) as client:
            yield client
    finally:
        listener.close()
        port.close()
        await front.close(1)
