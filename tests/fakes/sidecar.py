"""The real sidecar in this process, on a port of its own or wherever `listen` says, with a counter that the test turns."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from perjoule.adapters.prometheus import render
from perjoule.sidecar.http.addresses import Unix, read_origin
from perjoule.sidecar.ports import Device, Engine, Reading
from perjoule.sidecar.process.learned import Calibrations
from perjoule.sidecar.process.lookout import Questions
from perjoule.sidecar.process.service import Service
from perjoule.sidecar.record import EnergyRecord, Status
from perjoule.sidecar.settings.config import Config
from perjoule.sidecar.settings.credentials import OPEN, Credentials


class SteadyCounter:
    """A board that draws a constant power and shows it every 20 ms."""

    name, status, boundary = "steady", Status.MEASURED, "gpu-board"
    devices = (Device("GPU-steady", "constant power"),)
    period_ns, wrap_uj = 20_000_000, None

    def __init__(self, power_w: float = 400.0) -> None:
        self._uj_per_ns = power_w / 1000

    def read(self) -> tuple[Reading, ...]:
        t_ns = time.monotonic_ns()
        return (Reading(t_ns, t_ns, round(t_ns // self.period_ns * self.period_ns * self._uj_per_ns), round(self._uj_per_ns * 1e6)),)

    def close(self) -> None: ...


@dataclass
class Kept:
    """A sink that keeps records in memory."""

    name: str = "kept"
    records: list[EnergyRecord] = field(default_factory=list)

    def put(self, records: Sequence[EnergyRecord]) -> None:
        self.records += records

    def close(self) -> None: ...


@dataclass
class Running:
    """A sidecar that serves."""

    service: Service
    url: str
    sink: Kept

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    async def connect(self, tls: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client's connection, wherever the sidecar listens."""
        address = read_origin(self.url).address
        if isinstance(address, Unix):
            return await asyncio.open_unix_connection(address.path)
        return await asyncio.open_connection(address.host, address.port, ssl=tls)

    async def records(self, count: int, patience_s: float = 10.0) -> list[EnergyRecord]:
        """The records, once there are that many."""
        async with asyncio.timeout(patience_s):
            while len(self.sink.records) < count:
                await asyncio.sleep(0.01)
        return self.sink.records

    async def send(self, request: bytes, *, until: bytes | None = None, tls: ssl.SSLContext | None = None) -> bytes:
        """Send raw bytes, read until the connection ends (or until `until` has come), close."""
        reader, writer = await self.connect(tls)
        writer.write(request)
        got = b""
        try:
            async with asyncio.timeout(10):
                while (until is None or until not in got) and (piece := await reader.read(65536)):
                    got += piece
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return got


@asynccontextmanager
async def sidecar(upstream: str, *, energy: bool = True, engine: str = "vllm", calibrations: Calibrations | None = None,
                  counter: Any = None, ask: Questions | None = None, credentials: Credentials = OPEN, ledger: Any = None,
                  awaited: Any = None, **settings: Any) -> AsyncIterator[Running]:
    """A running Service in front of `upstream`, which reads `counter` or a steady one; `settings` are Config's."""
    places = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    config = Config(upstream=upstream, engine=engine, ledger="off", drain_s=1.0, **places | settings)
    ready: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    sink = Kept()

    async def recognise(url: str) -> Engine | None:
        return Engine(engine, "1.0", "m")

    async def unknown(url: str) -> None:
        return None

    service = Service(config, counter=(counter or SteadyCounter()) if energy else None, sinks=[sink, *filter(None, [ledger])],
                      ledger=ledger, awaited=awaited, calibrations=calibrations, recognise=recognise,
                      ask=ask or Questions(unknown, unknown), render=render, tracing=settings.get("otlp", "") != "",
                      credentials=credentials)
    task = asyncio.ensure_future(service.run(ready.set_result))
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    if not ready.done():
        await task  # it did not come up, and this raises why
    try:
        yield Running(service, (await ready)["listen"], sink)
    finally:
        service._asked_to_stop()
        await task


def post(path: str, body: bytes, *fields: str, method: str = "POST") -> bytes:
    """A raw HTTP/1.1 request that asks for the connection to be closed."""
    lines = [f"{method} {path} HTTP/1.1", "Host: sidecar", "Content-Type: application/json", f"Content-Length: {len(body)}",
             "Connection: close", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def body_of(raw: bytes) -> bytes:
    """The body of a raw answer, chunks joined. Raises ValueError for a body that was cut."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), len(rest))
        if len(rest) != length:
            raise ValueError(f"got {len(rest)} bytes of body, expected {length}")
        return rest
    body = b""
    while True:
        size, separator, rest = rest.partition(b"\r\n")
        if not separator:
            raise ValueError("the chunked body was cut")
        if int(size, 16) == 0:
            return body
        body, rest = body + rest[:int(size, 16)], rest[int(size, 16) + 2:]
