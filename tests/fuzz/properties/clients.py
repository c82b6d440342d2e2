"""What must hold of any bytes that a client sends: the requests in them are those that RFC 9112 sees, and no other can be slipped in."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from perjoule.sidecar.http import heads
from perjoule.sidecar.http.downstream import Downstream, Request
from tests.fuzz.properties.streams import cuttings
from tests.fuzz.references import http1_requests

TURNS = 50  # of the event loop, in which all that has come is served: more than a few requests need


class _Transport(asyncio.Transport):
    """A client that takes everything, until it is hung up on."""

    is_closed = is_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None: ...

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    write_eof = abort = close

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class _Keeper:
    """Serves every request that the relay would serve, once its body has come; `at_once` those that have come whole, as the relay does."""

    slow_sender_s = 60.0

    def __init__(self, *, at_once: bool) -> None:
        self.served: list[tuple[bytes, bytes, bytes]] = []
        self._at_once = at_once

    def handle(self, request: Request) -> Coroutine[Any, Any, bool] | None:
        coding, expectation = heads.first(request.headers, b"transfer-encoding"), heads.first(request.headers, b"expect")
        if heads.fault(request.method, request.version, coding, expectation) is not None:
            request.client.answered(False)
        elif self._at_once and request.body.whole:
            request.client.answered(self._serve(request, request.body.taken()))
        else:
            return self._hear(request)
        return None

    async def _hear(self, request: Request) -> bool:
        body = b""
        while piece := await request.body.some():
            body += piece
        return self._serve(request, body)

    def _serve(self, request: Request, body: bytes) -> bool:
        self.served.append((request.method.encode(), request.target.encode(), body))
        return request.keep_alive

    def made(self, client: Downstream) -> None: ...

    def lost(self, client: Downstream) -> None: ...

    def refusal(self, status: int, text: str) -> bytes:
        return b""

    def failed(self, error: Exception) -> bytes:
        assert isinstance(error, ConnectionError), error
        return b""


def requests_are_read(raw: bytes, sizes: Sequence[int]) -> None:
    """Method, target and body of each; none after the first that is not to be served."""
    expected = http1_requests.read(raw)
    for cutting in cuttings(raw, sizes):
        for at_once in (False, True):
            served = asyncio.run(_served(cutting, _Keeper(at_once=at_once)))
            assert served[:len(expected.served)] == expected.served
            assert expected.doubtful or len(served) == len(expected.served)


async def _served(cutting: Sequence[bytes], keeper: _Keeper) -> list[tuple[bytes, bytes, bytes]]:
    transport = _Transport()
    client = Downstream(keeper)
    client.connection_made(transport)
    for piece in filter(None, cutting):
        while transport.is_paused and not transport.is_closed:
            await asyncio.sleep(0)
        if transport.is_closed:
            break
        client.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    client.connection_lost(None)
    if (task := client.stop()) is not None:
        await asyncio.gather(task, return_exceptions=True)
    return keeper.served
