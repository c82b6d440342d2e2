"""The metrics over OTLP: the same numbers that Prometheus scrapes, under the conventions' names, every minute from a thread of its own."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from perjoule.adapters.otel.environment import METRICS, Endpoint, endpoint, has_exemplars, interval_s, is_latest, resource
from perjoule.adapters.otel.transport import collector
from perjoule.sidecar import telemetry
from perjoule.sidecar.dialects.endpoints import OPERATIONS
from perjoule.sidecar.ports import RefusedError, TryLaterError
from perjoule.sidecar.records.tally import Labels, Shown, Spread, Value
from perjoule.sidecar.telemetry import Attribute, Kind, Metric

BACKOFF_FIRST_S = 1.0
BACKOFF_MOST_S = 30.0
PATIENCE_MOST_S = 300.0  # however long a collector asks for
CUMULATIVE = 2  # AggregationTemporality
INT_MOST = (1 << 63) - 1  # an engine may claim so many tokens, twice

Points = list[tuple[Mapping[str, Any], Value]]

logger = logging.getLogger(__name__)


def open_metrics(asked: str) -> "OtelMetrics | None":
    """The way for metrics that `--otlp` or the `OTEL_*` variables ask for, None if neither does. Raises ValueError and ImportError."""
    where = endpoint(METRICS, asked)
    return OtelMetrics(where) if where is not None else None


class OtelMetrics:
    """Sends what it is offered, the newest only: sums count from the start, so what was not sent costs resolution, not joules.

    `sent` and `failed` count exports; the first failure of a spell is logged, and its end.
    """

    def __init__(self, where: Endpoint) -> None:
        self.interval_s = interval_s()
        self.sent = self.failed = 0
        self._collector = collector(METRICS, where)
        self._resource, self._schema_url = resource()
        self._is_latest, self._has_exemplars = is_latest(), has_exemplars()
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        self._empty = ExportMetricsServiceRequest
        self._since_ns = time.time_ns()
        self._offered: tuple[Shown, str, int] | None = None
        self._taking = threading.Lock()
        self._news, self._closing = threading.Event(), threading.Event()
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="otlp-metrics", daemon=True)
        self._thread.start()

    def offer(self, shown: Shown, instance_id: str) -> None:
        """Take the metrics as they are now, to be sent. Never waits."""
        with self._taking:
            self._offered = shown, instance_id, time.time_ns()
        self._news.set()

    def close(self, timeout_s: float) -> None:
        """Send what was offered last, for at most `timeout_s` seconds."""
        self._closing.set()
        self._news.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        held: tuple[Shown, str, int] | None = None  # what a collector did not take yet
        delay_s: float | None = None
        while True:
            (self._news if delay_s is None else self._closing).wait(delay_s)
            self._news.clear()
            with self._taking:
                fresh, self._offered = self._offered, None
            held = fresh or held
            after_s = self._send(*held) if held is not None else None
            if after_s is None:
                held, delay_s = None, None
            else:
                delay_s = max(min(after_s, PATIENCE_MOST_S), BACKOFF_FIRST_S if delay_s is None else min(2 * delay_s, BACKOFF_MOST_S))
            if self._closing.is_set() and self._offered is None:
                self._collector.close()
                return

    def _send(self, shown: Shown, instance_id: str, now_ns: int) -> float | None:
        """Send it once; answers None if that is done with, else how long the collector wants to be left alone."""
        try:
            points = sum(len(values) for values in shown.values())
            self._collector.send(self._request(shown, instance_id, now_ns).SerializeToString(), points)
        except (TryLaterError, RefusedError) as error:
            self.failed += 1
            if not self._is_failing:
                logger.warning("metrics are not sent, trying again: %s", error)
            self._is_failing = True
            return error.after_s if isinstance(error, TryLaterError) else None
        except Exception:
            self.failed += 1
            logger.exception("metrics cannot be sent")
            return None
        self.sent += 1
        if self._is_failing:
            logger.warning("metrics are sent again")
        self._is_failing = False
        return None

    def _request(self, shown: Shown, instance_id: str, now_ns: int) -> Any:
        request = self._empty()
        of_resource = request.resource_metrics.add(schema_url=self._schema_url)
        _describe(of_resource.resource.attributes, {telemetry.INSTANCE_ID: instance_id, **self._resource})
        of_scope = of_resource.scope_metrics.add(schema_url=telemetry.SCHEMA_URL)
        of_scope.scope.name = telemetry.SCOPE
        for metric, values in shown.items():
            if values and not metric.name.endswith("_info"):  # what the resource says already
                for name, kind, points in _named(metric, values, self._is_latest):
                    self._add(of_scope.metrics.add(name=name, description=metric.help, unit=metric.unit), kind, points, now_ns)
        return request

    def _add(self, made: Any, kind: Kind, points: Points, now_ns: int) -> None:
        for attributes, value in points:
            if isinstance(value, Spread):
                made.histogram.aggregation_temporality = CUMULATIVE
                point = made.histogram.data_points.add(
                    start_time_unix_nano=self._since_ns, time_unix_nano=now_ns, count=sum(value.counts), sum=value.total,
                    bucket_counts=value.counts, explicit_bounds=value.bounds)
                for trace_id, found, ended_ns in value.exemplars.values() if self._has_exemplars else ():
                    point.exemplars.add(trace_id=bytes.fromhex(trace_id), as_double=found, time_unix_nano=ended_ns)
            elif kind is Kind.GAUGE:
                point = made.gauge.data_points.add(time_unix_nano=now_ns)
            else:
                made.sum.aggregation_temporality, made.sum.is_monotonic = CUMULATIVE, True
                point = made.sum.data_points.add(start_time_unix_nano=self._since_ns, time_unix_nano=now_ns)
            if isinstance(value, int) and value <= INT_MOST:
                point.as_int = value
            elif not isinstance(value, Spread):
                point.as_double = value
            _describe(point.attributes, attributes)


def _named(metric: Metric, values: Mapping[Labels, Value], is_latest: bool) -> Iterator[tuple[str, Kind, Points]]:
    """A metric under its names over OTLP: one, but for tokens in the newest conventions."""
    points: Points = [(_attributes(metric, labels), value) for labels, value in values.items()]
    if metric is not telemetry.TOKEN_SIZES or not is_latest:
        name = metric.latest if is_latest and metric.latest else metric.otlp_name
        more = {telemetry.TOKEN_MODALITY: telemetry.UNKNOWN_MODALITY} if is_latest and metric.latest else {}
        yield name, metric.kind, [({**attributes, **more}, value) for attributes, value in points]
        return
    token_type = telemetry.LABELS["direction"]
    for direction, (sizes, usage) in telemetry.LATEST_TOKENS.items():
        own: Points = [({name: text for name, text in attributes.items() if name != token_type}, value)
               for attributes, value in points if attributes[token_type] == direction]
        if own:
            yield sizes, Kind.HISTOGRAM, own
            yield usage, Kind.COUNTER, [({**attributes, telemetry.TOKEN_MODALITY: telemetry.UNKNOWN_MODALITY}, int(value.total))
                                        for attributes, value in own if isinstance(value, Spread)]


def _attributes(metric: Metric, labels: Labels) -> dict[str, Any]:
    """What the labels are called in the conventions, and what these ask for beside."""
    found: dict[str, Any] = {telemetry.LABELS.get(name, name): value for name, value in zip(metric.labels, labels, strict=True)}
    if "engine" in metric.labels:
        found[Attribute.OPERATION] = OPERATIONS.get(found[Attribute.ENDPOINT], found[Attribute.ENDPOINT])
        if found.get(Attribute.OUTCOME) == "errored":
            found[Attribute.ERROR_TYPE] = telemetry.OTHER_ERROR
    if metric.conventional.startswith("hw."):
        found["hw.type"] = "gpu"
    return found


def _describe(attributes: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        made = attributes.add(key=name).value
        if isinstance(value, bool):
            made.bool_value = value
        elif isinstance(value, int):
            made.int_value = value
        elif isinstance(value, float):
            made.double_value = value
        elif isinstance(value, str):
            made.string_value = value
        else:
            for each in value:
                made.array_value.values.add(string_value=str(each))
