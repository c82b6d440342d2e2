"""One message to an OTLP collector, over HTTP or gRPC, and what its answer means: taken, partly refused, refused, or try later."""

import gzip
import logging
import zlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from perjoule import __version__
from perjoule.adapters.otel.environment import Endpoint, Signal
from perjoule.sidecar.ports import RefusedError, TryLaterError
from perjoule.sidecar.telemetry import SCOPE
from perjoule.sidecar.units import NS_PER_S

USER_AGENT = f"{SCOPE}/{__version__}"
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
# By the OTLP specification: what may be sent again. All else must not be, and is dropped.
RETRYABLE_HTTP = (429, 502, 503, 504)
RETRYABLE_GRPC = ("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS")
STATUS_DETAILS = "grpc-status-details-bin"
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
ANSWER_MOST_BYTES = 4 << 20
RECONNECT_MOST_MS = 5_000  # two minutes, if nothing is said: spans would wait for a collector that is there again

logger = logging.getLogger(__name__)


class Collector(Protocol):
    """Takes an `Export…ServiceRequest` message with `count` items. Raises TryLaterError, and RefusedError with how many of them."""

    def send(self, message: bytes, count: int) -> None: ...
    def close(self) -> None: ...


def collector(signal: Signal, endpoint: Endpoint) -> Collector:
    """The way to a collector. Raises ImportError where OTLP/gRPC is not installed, ValueError for certificates that cannot be read."""
    if not endpoint.is_grpc:
        return _HttpCollector(signal, endpoint.url)
    try:
        return _GrpcCollector(signal, endpoint.url)
    except ImportError as error:
        raise ImportError(f"{endpoint.url}: OTLP/gRPC is not installed: pip install 'perjoule[grpc]'") from error


class _HttpCollector:
    """OTLP/HTTP with protobuf bodies, by way of the proxy that the environment names."""

    def __init__(self, signal: Signal, url: str) -> None:
        import urllib3

        self._where, self._timeout_s = _public(url), signal.timeout_s
        parts = urlsplit(url)
        self._url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self._headers = {"Content-Type": "application/x-protobuf", "User-Agent": USER_AGENT}
        if parts.username is not None:
            basic = urllib3.make_headers(basic_auth=f"{unquote(parts.username)}:{unquote(parts.password or '')}")
            self._headers["Authorization"] = basic["authorization"]
        self._headers |= signal.headers
        files: dict[str, Any] = {name: signal.variable(variable) or None for name, variable in (
            ("ca_certs", "CERTIFICATE"), ("cert_file", "CLIENT_CERTIFICATE"), ("key_file", "CLIENT_KEY"))}
        proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
        self._pool: Any = urllib3.ProxyManager(proxy, **files) if proxy else urllib3.PoolManager(**files)
        compression = signal.variable("COMPRESSION").lower()
        self._compress = COMPRESS.get(compression)
        if self._compress is not None:
            self._headers["Content-Encoding"] = compression
        elif compression not in ("", "none"):
            logger.warning("OTEL_EXPORTER_OTLP_COMPRESSION: got %r, expected gzip, deflate or none; nothing is compressed", compression)

    def send(self, message: bytes, count: int) -> None:
        from urllib3.exceptions import HTTPError

        data = self._compress(message) if self._compress is not None else message
        try:
            answer = self._pool.request("POST", self._url, body=data, headers=self._headers, timeout=self._timeout_s, retries=False,
                                        redirect=False, preload_content=False)
            body = answer.read(ANSWER_MOST_BYTES)
            answer.release_conn()
        except (HTTPError, OSError) as error:
            query = urlsplit(self._url).query
            told = str(error).replace(query, "…") if query else str(error)
            raise TryLaterError(f"{self._where}: {type(error).__name__}: {told}") from None
        where = f"{self._where}: HTTP {answer.status} {answer.reason}"
        if answer.status in RETRYABLE_HTTP:
            raise TryLaterError(where, _retry_after_s(answer.headers.get("Retry-After", "")))
        if not 200 <= answer.status < 300:
            raise RefusedError(where, count)
        _read_answer(body, self._where)

    def close(self) -> None:
        self._pool.clear()


class _GrpcCollector:
    """OTLP/gRPC; an https URL is TLS."""

    def __init__(self, signal: Signal, url: str) -> None:
        import grpc

        parts = urlsplit(url)
        compression = grpc.Compression.Gzip if signal.variable("COMPRESSION").lower() == "gzip" else grpc.Compression.NoCompression
        options = (("grpc.primary_user_agent", USER_AGENT), ("grpc.max_reconnect_backoff_ms", RECONNECT_MOST_MS))
        if parts.scheme == "https":
            files = [_content(signal.variable(name)) for name in ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")]
            self._channel = grpc.secure_channel(parts.netloc, grpc.ssl_channel_credentials(*files), options, compression)
        else:
            self._channel = grpc.insecure_channel(parts.netloc, options, compression)
        self._export: Any = self._channel.unary_unary(signal.method)  # without serializers: bytes in, bytes out
        self._metadata = tuple((name.lower(), value) for name, value in signal.headers.items())
        self._where, self._timeout_s = _public(url), signal.timeout_s

    def send(self, message: bytes, count: int) -> None:
        from grpc import RpcError

        try:
            answer = self._export(message, timeout=self._timeout_s, metadata=self._metadata)
        except RpcError as error:
            status: Any = error
            name, where = status.code().name, f"{self._where}: {status.code().name}: {status.details()}"
            after_s = _retry_info_s(status.trailing_metadata() or ())
            if name in RETRYABLE_GRPC or (name == "RESOURCE_EXHAUSTED" and after_s is not None):
                raise TryLaterError(where, after_s or 0.0) from error
            raise RefusedError(where, count) from error
        _read_answer(answer, self._where)

    def close(self) -> None:
        self._channel.close()


def _public(url: str) -> str:
    """A URL as it may be logged: without what logs in."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="…" if parts.query else ""))


def _read_answer(body: bytes, where: str) -> None:
    """Raises RefusedError if the collector has not taken all. The answers of spans and of metrics are alike on the wire."""
    if not body:
        return
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    try:
        partial = ExportTraceServiceResponse.FromString(body).partial_success
    except DecodeError:
        return  # it has said 200; some answer JSON or a page
    if partial.rejected_spans > 0:
        raise RefusedError(f"{where}: partial success: {partial.error_message}", partial.rejected_spans)
    if partial.error_message:
        logger.warning("%s: %s", where, partial.error_message)


def _retry_after_s(text: str) -> float:
    """Retry-After: seconds, or a date; 0 for what is neither."""
    try:
        return max(0.0, float(text)) if text.isdecimal() else max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _retry_info_s(metadata: Iterable[tuple[str, Any]]) -> float | None:
    """How long `google.rpc.RetryInfo` asks to wait, None where the answer has none."""
    details = next((value for name, value in metadata if name == STATUS_DETAILS), None)
    if details is None:
        return None
    from google.protobuf.message import DecodeError
    from google.rpc.error_details_pb2 import RetryInfo
    from google.rpc.status_pb2 import Status

    try:
        for detail in Status.FromString(details).details:
            if detail.type_url == RETRY_INFO:
                delay = RetryInfo.FromString(detail.value).retry_delay
                return max(0.0, float(delay.seconds + delay.nanos / NS_PER_S))
    except DecodeError:
        pass
    return None


def _content(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"OTEL_EXPORTER_OTLP_*: got {path!r}, expected a PEM file: {error.strerror}") from error
