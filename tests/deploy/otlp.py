"""An OTLP/HTTP receiver on port 4318 that says for each message how many spans it had, in place of the collector."""

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse


async def take(request: web.Request) -> web.Response:
    """`/v1/traces`."""
    told = ExportTraceServiceRequest.FromString(await request.read())
    print("spans", sum(len(scope.spans) for resource in told.resource_spans for scope in resource.scope_spans), flush=True)  # noqa: T201
    return web.Response(body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf")


if __name__ == "__main__":
    app = web.Application()
    app.router.add_post("/v1/traces", take)
    web.run_app(app, host="0.0.0.0", port=4318, print=None)
