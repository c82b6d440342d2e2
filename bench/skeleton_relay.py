"""The least that a relay in Python can do and still read HTTP: llhttp on both sides, bytes passed as they came, nothing measured.

What it costs is the floor under every relay in Python, ours too: no pool, no limits, no headers changed, no deadlines, no record.

    python -m perjoule.bench.skeleton_relay --upstream http://127.0.0.1:8000
"""

import argparse
import asyncio
import json
import sys
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop


class Upstream(asyncio.Protocol):
    """One connection to the engine, of one client's."""

    def __init__(self, client: "Client") -> None:
        self._client = client
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        transport.write(b"".join(self._client.early))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)  # to know where an answer ends, as a pool must
        if self._client.transport is not None:
            self._client.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._client.transport is not None:
            self._client.transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, as it is for whoever needs to know them."""


class Client(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self._parser = httptools.HttpRequestParser(self)
        self._upstream = Upstream(self)
        self.transport: asyncio.Transport | None = None
        self.early: list[bytes] = []  # what came before the engine's side was there

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        loop = asyncio.get_running_loop()
        self._connecting = loop.create_task(loop.create_connection(lambda: self._upstream, *self._to))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        if self._upstream.transport is None:
            self.early.append(data)
        else:
            self._upstream.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self._upstream.transport is not None:
            self._upstream.transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, as it is for whoever needs to know them."""


async def serve(upstream: str) -> None:
    """Relay until the process is told to end; prints where, as JSON."""
    to = urlsplit(upstream)
    server = await asyncio.get_running_loop().create_server(lambda: Client(to.hostname or "", to.port or 80), "127.0.0.1", 0, backlog=1024)
    print(json.dumps({"listen": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"}), flush=True)
    await server.serve_forever()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", required=True, metavar="URL")
    uvloop.run(serve(parser.parse_args().upstream))
    return 0


if __name__ == "__main__":
    sys.exit(main())
