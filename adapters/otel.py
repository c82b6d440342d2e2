"""One OpenTelemetry span for each request, sent once its joules are settled, with the times and ids it really had."""

import gzip
import logging
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast
from urllib.parse import urlsplit, urlunsplit

from perjoule.sidecar.record import EnergyRecord
from perjoule.sidecar.records.span import Value, export_bytes, span_bytes, span_name
from perjoule.sidecar.telemetry import SCOPE

TRACES_PATH = "/v1/traces"
EXPORT_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
TIMEOUT_S = 10.0  # of OTLP exporters, unless OTEL_EXPORTER_OTLP_TIMEOUT says otherwise
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}

logger = logging.getLogger(__name__)


class ExportError(Exception):
    """A collector that did not take spans; the text says why."""


class Collector(Protocol):
    """Takes an `ExportTraceServiceRequest` message. Raises ExportError."""

    def send(self, message: bytes) -> None: ...
    def close(self) -> None: ...


class OtelSpans:
    """A RecordSink that sends SERVER spans to an OTLP collector, over HTTP (`http(s)://`) or plain gRPC (`grpc://`).

    The usual `OTEL_*` variables hold: the SDK reads those of resource and sampler, this module those of the exporter (headers, timeout,
    compression, certificates). There is no span processor: the outbox queues, batches and tries again, so that no span is lost unseen.
    The constructor raises ValueError for an endpoint of another kind, ImportError where OTLP/gRPC is not installed.
    """

    name = "otlp"

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._collector = _collector(endpoint)
        # Half a second and 20 MB (measured): only who sends spans pays for it.
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        from opentelemetry.sdk.trace.sampling import DEFAULT_ON

        resource = Resource.create({SERVICE_NAME: SCOPE}).merge(OTELResourceDetector().detect())
        self._resource, self._schema_url = cast("Mapping[str, Value]", resource.attributes), resource.schema_url
        sampler = TracerProvider(resource=resource, shutdown_on_exit=False).sampler
        self._sampler = None if sampler is DEFAULT_ON else sampler  # which wants all of ours, and need not be asked
        self._random = RandomIdGenerator()

    def put(self, records: Sequence[EnergyRecord]) -> None:
        """Send these records as spans; returns when the collector has taken them, else raises ExportError."""
        spans = [span for record in records if (span := self._span(record)) is not None]
        if not spans:
            return
        try:
            self._collector.send(export_bytes(self._resource, self._schema_url, spans))
        except ExportError as error:
            raise ExportError(f"{self._endpoint} did not take {len(spans)} spans: {error}") from error.__cause__

    def close(self) -> None:
        """Release the connection; nothing is waiting here."""
        self._collector.close()

    def _span(self, record: EnergyRecord) -> bytes | None:
        """The span of a record; None where the sampler (OTEL_TRACES_SAMPLER) leaves it out."""
        facts = record.facts
        trace_id = facts.trace_id or f"{self._random.generate_trace_id():032x}"
        span_id = facts.span_id or f"{self._random.generate_span_id():016x}"
        return span_bytes(record, trace_id, span_id) if self._is_sampled(record, trace_id) else None

    def _is_sampled(self, record: EnergyRecord, trace_id: str) -> bool:
        if self._sampler is None:
            return True
        from opentelemetry.context import Context
        from opentelemetry.sdk.trace.sampling import Decision
        from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context

        facts, caller = record.facts, Context()
        if facts.trace_id is not None and facts.parent_span_id is not None:
            named = SpanContext(int(facts.trace_id, 16), int(facts.parent_span_id, 16), is_remote=True,
                                trace_flags=TraceFlags(TraceFlags.SAMPLED))
            caller = set_span_in_context(NonRecordingSpan(named), caller)
        name = span_name(facts.endpoint, facts.model)
        return self._sampler.should_sample(caller, int(trace_id, 16), name, SpanKind.SERVER).decision is Decision.RECORD_AND_SAMPLE


class _HttpCollector:
    """OTLP/HTTP with protobuf bodies."""

    def __init__(self, url: str) -> None:
        import requests

        self._url, self._timeout_s = url, _timeout_s()
        self._session = requests.Session()
        self._session.headers.update({"Content-Type": "application/x-protobuf", "User-Agent": SCOPE, **_headers()})
        self._session.verify = _variable("CERTIFICATE") or True
        certificate, key = _variable("CLIENT_CERTIFICATE"), _variable("CLIENT_KEY")
        self._session.cert = (certificate, key) if certificate and key else certificate or None
        compression = _variable("COMPRESSION").strip().lower()
        self._compress = COMPRESS.get(compression)
        if self._compress is not None:
            self._session.headers["Content-Encoding"] = compression
        elif compression not in ("", "none"):
            logger.warning("OTEL_EXPORTER_OTLP_COMPRESSION: got %r, expected gzip, deflate or none; spans are not compressed", compression)

    def send(self, message: bytes) -> None:
        from requests import RequestException

        data = self._compress(message) if self._compress is not None else message
        try:
            answer = self._session.post(self._url, data=data, timeout=self._timeout_s, allow_redirects=False)
        except RequestException as error:
            raise ExportError(f"{type(error).__name__}: {error}") from error
        if not 200 <= answer.status_code < 300:
            raise ExportError(f"HTTP {answer.status_code} {answer.reason}")

    def close(self) -> None:
        self._session.close()


class _GrpcCollector:
    """OTLP/gRPC without TLS."""

    def __init__(self, authority: str) -> None:
        import grpc

        compression = grpc.Compression.Gzip if _variable("COMPRESSION").strip().lower() == "gzip" else grpc.Compression.NoCompression
        self._channel = grpc.insecure_channel(authority, compression=compression)
        self._export: Any = self._channel.unary_unary(EXPORT_METHOD)  # without serializers: bytes in, bytes out
        self._metadata, self._timeout_s = tuple(_headers().items()), _timeout_s()

    def send(self, message: bytes) -> None:
        from grpc import RpcError

        try:
            self._export(message, timeout=self._timeout_s, metadata=self._metadata)
        except RpcError as error:
            raise ExportError(str(error)) from error

    def close(self) -> None:
        self._channel.close()


def _collector(endpoint: str) -> Collector:
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https", "grpc") or not parts.hostname:
        raise ValueError(f"--otlp: got {endpoint!r}, expected http://HOST:4318, https://HOST:4318 or grpc://HOST:4317")
    if parts.scheme == "grpc":
        try:
            return _GrpcCollector(parts.netloc)
        except ImportError as error:
            raise ImportError(f"--otlp {endpoint}: OTLP/gRPC is not installed: pip install 'perjoule[grpc]'") from error
    return _HttpCollector(urlunsplit(parts._replace(path=parts.path if parts.path.strip("/") else TRACES_PATH)))


def _variable(name: str) -> str:
    """OTEL_EXPORTER_OTLP_TRACES_name, else OTEL_EXPORTER_OTLP_name, else nothing."""
    return os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}") or ""


def _headers() -> dict[str, str]:
    from opentelemetry.util.re import parse_env_headers

    return dict(parse_env_headers(_variable("HEADERS"), liberal=True))


def _timeout_s() -> float:
    try:
        return float(_variable("TIMEOUT") or TIMEOUT_S)
    except ValueError:
        logger.warning("OTEL_EXPORTER_OTLP_TIMEOUT: got %r, expected seconds; %g it is", _variable("TIMEOUT"), TIMEOUT_S)
        return TIMEOUT_S
