"""An OTLP receiver made of the official protobufs, over real HTTP and real gRPC, that can be told to refuse, to throttle, or to be away."""

import gzip
import socket
import threading
import zlib
from concurrent import futures
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


def value_of(value):
    kind = value.WhichOneof("value")
    found = getattr(value, kind)
    return [value_of(item) for item in found.values] if kind == "array_value" else found


def attributes_of(holder):
    return {item.key: value_of(item.value) for item in holder.attributes}


class Collector:
    """What an OTLP receiver has got, and how it answers: `answers` first, one for each message, then `status`.

    An answer is an HTTP status or a gRPC code, or a pair of it and the seconds that it asks to wait. `rejects` of each message of spans
    are refused by partial success.
    """

    def __init__(self, fine):
        self.requests, self.metrics, self.paths, self.tries = [], [], [], 0
        self.headers = {}
        self.status = self.fine = fine
        self.answers, self.rejects, self.why = [], 0, ""

    @property
    def spans(self):
        return [span for request in self.requests for part in request.resource_spans for scope in part.scope_spans
                for span in scope.spans]

    @property
    def resource(self):
        return attributes_of(self.requests[0].resource_spans[0].resource)

    def newest(self):
        """The metrics of the last message, by name."""
        return {metric.name: metric for scope in self.metrics[-1].resource_metrics[0].scope_metrics for metric in scope.metrics}

    def answer(self):
        """What is to be answered now: status, and seconds to wait if it says so."""
        self.tries += 1
        said = self.answers.pop(0) if self.answers else self.status
        return said if isinstance(said, tuple) else (said, None)

    def take_spans(self, request):
        self.requests.append(request)
        answer = trace_service_pb2.ExportTraceServiceResponse()
        if self.rejects or self.why:
            answer.partial_success.rejected_spans, answer.partial_success.error_message = self.rejects, self.why
        return answer

    def take_metrics(self, request):
        self.metrics.append(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


@contextmanager
def http_collector(port=0):
    """A collector for OTLP/HTTP, in a thread of its own."""
    collector, connections = Collector(200), []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self):
            connections.append(self.request)
            super().setup()

        def do_POST(self):
            unpack = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[self.headers["Content-Encoding"]]
            body = unpack(self.rfile.read(int(self.headers["Content-Length"])))
            collector.paths.append(self.path)
            collector.headers = dict(self.headers)
            (status, after_s), answer = collector.answer(), b""
            if status == 200 and self.path.endswith("/v1/metrics"):
                request = metrics_service_pb2.ExportMetricsServiceRequest.FromString(body)
                answer = collector.take_metrics(request).SerializeToString()
            elif status == 200:
                answer = collector.take_spans(trace_service_pb2.ExportTraceServiceRequest.FromString(body)).SerializeToString()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            if after_s is not None:
                self.send_header("Retry-After", str(after_s))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args): ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        for connection in connections:  # those that are kept alive, too
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextmanager
def grpc_collector(port=0, credentials=None):
    """A collector for OTLP/gRPC, with TLS if it has credentials."""
    collector = Collector(grpc.StatusCode.OK)

    def export(take, request, context):
        collector.headers = dict(context.invocation_metadata())
        code, after_s = collector.answer()
        if code is grpc.StatusCode.OK:
            return take(request)
        if after_s is not None:
            detail = Any()
            detail.Pack(RetryInfo(retry_delay=Duration(seconds=int(after_s), nanos=int(after_s % 1 * 1e9))))
            details = Status(code=code.value[0], details=[detail]).SerializeToString()
            context.set_trailing_metadata((("grpc-status-details-bin", details),))
        return context.abort(code, "as told")

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request, context):
            return export(collector.take_spans, request, context)

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request, context):
            return export(collector.take_metrics, request, context)

    server = grpc.server(futures.ThreadPoolExecutor(2), options=(("grpc.so_reuseport", 0),))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    where = f"127.0.0.1:{port}"
    bound = server.add_insecure_port(where) if credentials is None else server.add_secure_port(where, credentials)
    collector.url = f"grpc{'s' if credentials else ''}://127.0.0.1:{bound}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()
