"""One short answer of the engine, whole: what is asked of it beside the traffic."""

import asyncio
from collections.abc import Iterable

from perjoule.sidecar.http.connection import Connection, UpstreamError
from perjoule.sidecar.http.heads import Head, request_head
from perjoule.sidecar.http.upstream import Upstream

USER_AGENT = b"perjoule"  # by which an engine's log tells these from what clients ask
MOST_BYTES = 8 << 20  # of a body: vLLM's page of metrics is some 100 KB, with many ranks and models 2 MB


class _Whole:
    """A Receiver that waits for the end."""

    def __init__(self, connection: Connection, most_bytes: int) -> None:
        self.answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._connection, self._most_bytes = connection, most_bytes
        self._status, self._pieces, self._size = 0, list[bytes](), 0

    def received(self, head: Head | None, body: bytes, ended: bool) -> None:
        if head is not None:
            self._status = head.status
        self._pieces.append(body)
        self._size += len(body)
        if self._size > self._most_bytes:
            self._connection.abandon()
            self.lost(UpstreamError("upstream_protocol", f"the engine's answer exceeds {self._most_bytes} bytes"))
        elif ended and not self.answer.done():
            self.answer.set_result((self._status, b"".join(self._pieces)))

    def passed(self, body: bytes, chunk: bytes) -> bool:
        return False

    def lost(self, error: UpstreamError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def interim(self, head: Head) -> None:
        pass


async def fetch(upstream: Upstream, target: str, fields: Iterable[tuple[bytes, bytes]] = (), *, timeout_s: float,
                most_bytes: int = MOST_BYTES) -> tuple[int, bytes]:
    """Ask for `target`; the answer's status and body. Redirects are answers, too. Nothing is asked for compressed: that would cost both
    sides more than it saves here. Raises UpstreamError, and TimeoutError."""
    given = [(b"Host", upstream.authority), (b"User-Agent", USER_AGENT), (b"Accept-Encoding", b"identity"), *fields]
    head = request_head("GET", upstream.prefix + target.encode(), given, 0)
    async with asyncio.timeout(timeout_s):
        while True:
            connection = await upstream.connection()
            whole = _Whole(connection, most_bytes)
            connection.begin(whole, head, is_head=False)
            try:
                return await whole.answer
            except asyncio.CancelledError:
                connection.abandon()
                raise
            except UpstreamError:
                if not connection.used or connection.answered:
                    raise  # else it was warm, and had gone stale
