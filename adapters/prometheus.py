"""What a Prometheus scrape shows: requests, their joules and tokens, and the energy balance as it is at that moment."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder

from perjoule.sidecar import telemetry
from perjoule.sidecar.record import EnergyRecord, Status
from perjoule.sidecar.telemetry import Kind, Metric
from perjoule.sidecar.units import joules, seconds

MODELS = 50  # clients choose model names: without a bound they could fill the memory of us and of Prometheus
OTHER_MODELS = "other"
NO_MODEL = "unknown"

Read = Callable[[], Mapping[tuple[str, ...], float]]
"""A metric's values now, by the values of its labels; nothing for what is unknown."""


class Balance(Protocol):
    """The energy ledger at one moment, in microjoules: measured == requests + idle + unattributed."""

    @property
    def measured_uj(self) -> int: ...
    @property
    def requests_uj(self) -> int: ...
    @property
    def idle_uj(self) -> int: ...
    @property
    def unattributed_uj(self) -> int: ...


class PrometheusMetrics:
    """Metrics of one sidecar in a registry of its own; the names are in `sidecar/telemetry.py`.

    `balance` is called once a scrape, so that its four numbers are of one moment; without an energy source it is None,
    or returns None, and there are no joules at all rather than zero. `source` and `status` say in every series of the
    balance what kind of joules these are. `reads` are the other metrics that are looked up at a scrape.
    """

    def __init__(self, *, balance: Callable[[], Balance | None] | None = None, source: str = "",
                 status: Status = Status.UNAVAILABLE, reads: Mapping[Metric, Read] | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # Prometheus has no use for them; they double the series
        self._registry = CollectorRegistry()
        self._models: set[str] = set()
        self._requests = _counter(telemetry.REQUESTS, self._registry)
        self._joules = _counter(telemetry.REQUEST_JOULES, self._registry)
        self._tokens = _counter(telemetry.TOKENS, self._registry)
        self._duration = _histogram(telemetry.DURATION, self._registry)
        self._first_token = _histogram(telemetry.FIRST_TOKEN, self._registry)
        self._registry.register(_AtScrape(balance, (source, status), reads or {}))

    def observe(self, record: EnergyRecord) -> None:
        """Count one request that has ended."""
        facts, charge = record.facts, record.charge
        model = self._bounded(facts.model)
        self._requests.labels(model, facts.endpoint, facts.outcome).inc()
        self._duration.labels(model, facts.endpoint).observe(seconds(facts.end_ns))
        if facts.first_token_ns is not None:
            self._first_token.labels(model, facts.endpoint).observe(seconds(facts.first_token_ns))
        for phase, uj in (("prefill", charge.prefill_uj), ("decode", charge.decode_uj)):
            if uj is not None:
                self._joules.labels(model, facts.outcome, phase, charge.status).inc(joules(uj))
        for direction, tokens in (("input", facts.input_tokens), ("output", facts.output_tokens)):
            if tokens is not None:
                self._tokens.labels(model, direction).inc(tokens)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The whole scrape and its content type, in the format that the Accept header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _bounded(self, model: str | None) -> str:
        name = model or NO_MODEL
        if name in self._models:
            return name
        if len(self._models) >= MODELS:
            return OTHER_MODELS
        self._models.add(name)
        return name


class _AtScrape:
    """The part of the registry that is looked up rather than counted."""

    def __init__(self, balance: Callable[[], Balance | None] | None, provenance: tuple[str, ...],
                 reads: Mapping[Metric, Read]) -> None:
        self._balance, self._provenance, self._reads = balance, provenance, reads

    def collect(self) -> Iterator[Family]:
        balance = self._balance() if self._balance is not None else None
        if balance is not None:
            for metric, uj in ((telemetry.MEASURED_JOULES, balance.measured_uj),
                               (telemetry.REQUESTS_JOULES, balance.requests_uj),
                               (telemetry.IDLE_JOULES, balance.idle_uj),
                               (telemetry.UNATTRIBUTED_JOULES, balance.unattributed_uj)):
                yield _family(metric, {self._provenance: joules(uj)})
        for metric, read in self._reads.items():
            yield _family(metric, read())


def _family(metric: Metric, values: Mapping[tuple[str, ...], float]) -> Family:
    make: Any = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family: Family = make(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)  # type: ignore[attr-defined]
    return family


def _counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    return Counter(metric.name, metric.help, metric.labels, registry=registry)


def _histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry)
