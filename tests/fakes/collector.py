"""An OTLP receiver made of the official protobufs, over real HTTP and real gRPC."""

from concurrent import futures
from contextlib import asynccontextmanager, contextmanager

import grpc
from aiohttp import web
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


def value_of(value):
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [value_of(item) for item in found.values] if kind == "array_value" else found


def attributes_of(holder):
    return {item.key: value_of(item.value) for item in holder.attributes}


class Collector:
    """What an OTLP receiver has got."""

    def __init__(self):
        self.requests = []
        self.headers = {}
        self.paths = []
        self.status = 200

    @property
    def spans(self):
        return [span for request in self.requests for part in request.resource_spans for scope in part.scope_spans
                for span in scope.spans]

    @property
    def resource(self):
        return attributes_of(self.requests[0].resource_spans[0].resource)


@asynccontextmanager
async def http_collector():
    """A collector for OTLP/HTTP; `status` is what it answers."""
    collector = Collector()

    async def take(request):
        collector.paths.append(request.path)
        collector.headers = dict(request.headers)
        if collector.status == 200:
            collector.requests.append(trace_service_pb2.ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(status=collector.status, content_type="application/x-protobuf",
                            body=trace_service_pb2.ExportTraceServiceResponse().SerializeToString())

    app = web.Application()
    app.router.add_post("/{path:.*}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()


@contextmanager
def grpc_collector():
    """A collector for OTLP/gRPC."""
    collector = Collector()

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request, context):
            collector.headers = dict(context.invocation_metadata())
            collector.requests.append(request)
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
    collector.url = f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()
