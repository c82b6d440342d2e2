"""What the `OTEL_*` variables and `--otlp` say: which signals are sent, where to, and as what resource."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit, urlunsplit

from perjoule import __version__
from perjoule.sidecar.records.span import Value
from perjoule.sidecar.telemetry import INSTANCE_ID, OPT_IN, OPT_IN_LATEST, SCOPE

FORMS = "http(s)://HOST:4318 or grpc(s)://HOST:4317"
SCHEMES = {"http": "http", "https": "https", "grpc": "http", "grpcs": "https"}
DEFAULT_URLS = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}
TIMEOUT_S = 10.0
TIMEOUT_MOST_S = 600.0  # some SDKs read milliseconds there: nothing waits for hours
INTERVAL_S = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Signal:
    """Spans or metrics: as the variables call them, where they go over HTTP, and who takes them over gRPC."""

    name: str
    path: str
    method: str

    def variable(self, name: str) -> str:
        """OTEL_EXPORTER_OTLP_{signal}_{name}, else OTEL_EXPORTER_OTLP_{name}, else nothing."""
        return _read(f"OTEL_EXPORTER_OTLP_{self.name}_{name}") or _read(f"OTEL_EXPORTER_OTLP_{name}")

    @property
    def headers(self) -> dict[str, str]:
        """What is sent with each message."""
        from opentelemetry.util.re import parse_env_headers

        return dict(parse_env_headers(self.variable("HEADERS"), liberal=True))

    @property
    def timeout_s(self) -> float:
        """How long an answer is waited for; the variable is in seconds, as Python's SDK reads it."""
        text = self.variable("TIMEOUT")
        return min(_positive(f"OTEL_EXPORTER_OTLP_{self.name}_TIMEOUT", text, TIMEOUT_S), TIMEOUT_MOST_S)


TRACES = Signal("TRACES", "/v1/traces", "/opentelemetry.proto.collector.trace.v1.TraceService/Export")
METRICS = Signal("METRICS", "/v1/metrics", "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one signal goes. `url` is http(s) in both protocols; https is TLS."""

    url: str
    is_grpc: bool


def endpoint(signal: Signal, asked: str) -> Endpoint | None:
    """Where a signal goes: as `--otlp` asks, or else the variables; None if it is not sent. Raises ValueError for what cannot be.

    OTEL_SDK_DISABLED and OTEL_{signal}_EXPORTER=none hold over both.
    """
    exporters = [name.strip() for name in _read(f"OTEL_{signal.name}_EXPORTER").split(",") if name.strip()]
    if _read("OTEL_SDK_DISABLED").lower() == "true" or (exporters and "otlp" not in exporters):
        return None
    if asked:
        return _asked(signal, asked)
    own, common = _read(f"OTEL_EXPORTER_OTLP_{signal.name}_ENDPOINT"), _read("OTEL_EXPORTER_OTLP_ENDPOINT")
    if not (own or common or exporters):
        return None
    protocol = signal.variable("PROTOCOL") or "http/protobuf"
    if protocol not in DEFAULT_URLS:
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL: got {protocol!r}, expected {' or '.join(DEFAULT_URLS)}")
    url = own or common or DEFAULT_URLS[protocol]
    if protocol == "grpc":
        if "://" not in url:
            url = f"{'http' if signal.variable('INSECURE').lower() == 'true' else 'https'}://{url}"
        return _checked(url, True, f"OTEL_EXPORTER_OTLP_ENDPOINT: got {url!r}, expected http(s)://HOST:4317")
    found = _checked(url, False, f"OTEL_EXPORTER_OTLP_ENDPOINT: got {url!r}, expected http(s)://HOST:4318")
    return found if own else Endpoint(found.url.rstrip("/") + signal.path, False)


def _asked(signal: Signal, asked: str) -> Endpoint | None:
    """An http URL with a path is where spans go, as it is; metrics then go to its neighbour, if it is the usual path."""
    wrong = f"--otlp: got {asked!r}, expected {FORMS}"
    is_grpc = asked.startswith("grpc")
    scheme, _, rest = asked.partition("://")
    if scheme not in SCHEMES:
        raise ValueError(wrong)
    found = _checked(f"{SCHEMES[scheme]}://{rest}", is_grpc, wrong)
    path = urlsplit(found.url).path
    if is_grpc:
        return found
    if path.strip("/") and signal is METRICS:
        return Endpoint(found.url.removesuffix(TRACES.path) + METRICS.path, False) if path.endswith(TRACES.path) else None
    return found if path.strip("/") else Endpoint(urlunsplit(urlsplit(found.url)._replace(path=signal.path)), False)


def _checked(url: str, is_grpc: bool, wrong: str) -> Endpoint:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return Endpoint(url, is_grpc)
    except ValueError:
        pass  # a port that is no number
    raise ValueError(wrong)


def resource() -> tuple[Mapping[str, Value], str]:
    """Attributes of the resource and their schema. Half a second and 20 MB (measured): only who sends something pays for it."""
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource

    told = OTELResourceDetector().detect()
    found = Resource.create({SERVICE_NAME: SCOPE, SERVICE_VERSION: __version__}).merge(told)
    attributes = dict(cast("Mapping[str, Value]", found.attributes))
    if INSTANCE_ID not in told.attributes:
        attributes.pop(INSTANCE_ID, None)  # one that the SDK made up; ours is that of the run, which its records have
    return attributes, found.schema_url


def is_latest() -> bool:
    """Whether names of the newest GenAI conventions are asked for."""
    return OPT_IN_LATEST in [word.strip() for word in _read(OPT_IN).split(",")]


def interval_s() -> float:
    """How often metrics are sent."""
    return _positive("OTEL_METRIC_EXPORT_INTERVAL", _read("OTEL_METRIC_EXPORT_INTERVAL"), INTERVAL_S * 1000) / 1000


def has_exemplars() -> bool:
    """Whether metrics name traces."""
    return _read("OTEL_METRICS_EXEMPLAR_FILTER") != "always_off"


def _read(name: str) -> str:
    return os.environ.get(name, "").strip()


def _positive(name: str, text: str, otherwise: float) -> float:
    try:
        number = float(text or otherwise)
        if 0 < number < float("inf"):
            return number
    except ValueError:
        pass
    logger.warning("%s: got %r, expected a positive number; %g it is", name, text, otherwise)
    return otherwise
