"""An OTLP collector that keeps of every span what it must be found by; it can be made to hang, and to go away."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from perjoule.sidecar.telemetry import INSTANCE_ID, Attribute

BODY_LIMIT = 64 << 20  # bytes of one export


@dataclass(slots=True)
class Spans:
    """Of one run of the sidecar: the cost of each record by its sequence, None where it has none; and how many spans came again."""

    by_sequence: dict[int, int | None] = field(default_factory=dict)
    again: int = 0


class Collector:
    """Listens on one port of loopback, whenever it does."""

    def __init__(self) -> None:
        self.runs: dict[str, Spans] = defaultdict(Spans)
        self._hangs, self._port = asyncio.Event(), 0
        self._hangs.set()  # set: it answers
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_post("/v1/traces", self._take)
        app.router.add_post("/v1/metrics", self._ignore)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._site: web.TCPSite | None = None

    @property
    def url(self) -> str:
        """Where it listens, or will again."""
        return f"http://127.0.0.1:{self._port}"

    async def open(self) -> None:
        """Listen, and answer."""
        if self._runner.server is None:
            await self._runner.setup()
        if self._site is None:
            self._site = web.TCPSite(self._runner, "127.0.0.1", self._port)
            await self._site.start()
            self._port = self._port or self._runner.addresses[0][1]
        self._hangs.set()

    def hang(self) -> None:
        """Take what comes, and answer nothing."""
        self._hangs.clear()

    async def go_away(self) -> None:
        """Refuse connections, and drop those that there are."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
        self._hangs.set()

    async def close(self) -> None:
        """Release everything."""
        self._hangs.set()
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not self._hangs.is_set():
            await self._hangs.wait()
            raise web.HTTPServiceUnavailable
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            (run,) = (a.value.string_value for a in resource.resource.attributes if a.key == INSTANCE_ID)
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                said = {a.key: a.value.int_value for a in span.attributes}
                spans, sequence = self.runs[run], said[Attribute.SEQUENCE]
                spans.again += sequence in spans.by_sequence
                spans.by_sequence[sequence] = said.get(Attribute.ENERGY_MICROJOULES)
        return web.Response(body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf")

    async def _ignore(self, _: web.Request) -> web.Response:
        return web.Response(body=ExportMetricsServiceResponse().SerializeToString(), content_type="application/x-protobuf")
