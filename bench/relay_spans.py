"""An OTLP collector that takes every span over HTTP, counts it, and throws it away; metrics it throws away uncounted.

    python -m perjoule.bench.relay_spans
"""

import argparse
import asyncio
import json
import sys

import uvloop
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

BODY_LIMIT = 64 << 20  # bytes of one export


async def serve() -> None:
    """Count until the process is told to end; `GET /spans` answers how many. Prints where, as JSON."""
    taken = 0
    accepted = ExportTraceServiceResponse().SerializeToString()

    async def take(request: web.Request) -> web.Response:
        nonlocal taken
        export = ExportTraceServiceRequest.FromString(await request.read())
        taken += sum(len(scope.spans) for resource in export.resource_spans for scope in resource.scope_spans)
        return web.Response(body=accepted, content_type="application/x-protobuf")

    async def ignore(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(content_type="application/x-protobuf")

    async def count(_: web.Request) -> web.Response:
        return web.json_response({"spans": taken})

    app = web.Application(client_max_size=BODY_LIMIT)
    app.router.add_post("/v1/traces", take)
    app.router.add_post("/v1/metrics", ignore)
    app.router.add_get("/spans", count)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
    await asyncio.Event().wait()


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    uvloop.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
