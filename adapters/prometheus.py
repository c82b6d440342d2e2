"""What a Prometheus scrape shows, in Prometheus's text format or in OpenMetrics with an exemplar for each bucket."""

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from perjoule.sidecar.records.tally import Shown, Spread
from perjoule.sidecar.telemetry import Kind, Metric
from perjoule.sidecar.units import seconds

FAMILIES: dict[Kind, Any] = {Kind.COUNTER: CounterMetricFamily, Kind.GAUGE: GaugeMetricFamily, Kind.HISTOGRAM: HistogramMetricFamily}
UNITS = ("joules", "seconds", "watts")


def render(shown: Shown, accept: str) -> tuple[bytes, str]:
    """The whole scrape and its content type, in the format that the Accept header asks for. From any thread: with fifty models it takes
    a tenth of a second."""
    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry()
    registry.register(_Scrape(shown))
    return encode(registry), content_type


class _Scrape(Collector):
    """One scrape, as the library wants to be given it."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    def describe(self) -> list[Family]:
        return []  # else the library would collect once to learn the names

    def collect(self) -> Iterator[Family]:
        for metric, values in self._shown.items():
            family = FAMILIES[metric.kind](metric.name, metric.help, labels=metric.labels, unit=_unit(metric))
            for labels, value in values.items():
                if isinstance(value, Spread):
                    family.add_metric(labels, _buckets(value), value.total)
                else:
                    family.add_metric(labels, value)
            yield family


def _unit(metric: Metric) -> str:
    last = metric.name.removesuffix("_total").rpartition("_")[2]
    return last if last in UNITS else ""


def _buckets(spread: Spread) -> list[tuple[Any, ...]]:
    bounds = [*map(str, spread.bounds), "+Inf"]
    found = {place: (Exemplar({"trace_id": trace_id}, value, seconds(ended_ns)),)
             for place, (trace_id, value, ended_ns) in spread.exemplars.items()}
    return [(bound, count, *found.get(place, ())) for place, (bound, count) in enumerate(zip(bounds, spread.cumulative, strict=True))]
