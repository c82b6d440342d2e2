"""What a Prometheus scrape shows: requests, their joules and tokens, and the energy balance as it is at that moment."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

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


class PrometheusMetrics(Collector):
    """Metrics of one sidecar; the names are in `sidecar/telemetry.py`. For use from one thread.

    `balance` is called once a scrape, so that its four numbers are of one moment; without an energy source it is None,
    or returns None, and there are no joules at all rather than zero. `source` and `status` say in every series of the
    balance what kind of joules these are. `reads` are the other metrics that are looked up at a scrape.
    """

    def __init__(self, *, balance: Callable[[], Balance | None] | None = None, source: str = "",
                 status: Status = Status.UNAVAILABLE, reads: Mapping[Metric, Read] | None = None) -> None:
        self._balance = balance
        self._provenance = (source, status)
        self._reads = reads or {}
        self._models: set[str] = set()
        # Own counts, since observe() runs on the event loop: the library's take 36 µs a request, these take 4.
        self._requests: dict[tuple[str, ...], int] = defaultdict(int)
        self._request_uj: dict[tuple[str, ...], int] = defaultdict(int)
        self._tokens: dict[tuple[str, ...], int] = defaultdict(int)
        self._durations: dict[tuple[str, ...], _Spread] = defaultdict(lambda: _Spread(telemetry.DURATION.buckets))
        self._first_tokens: dict[tuple[str, ...], _Spread] = defaultdict(lambda: _Spread(telemetry.FIRST_TOKEN.buckets))
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def observe(self, record: EnergyRecord) -> None:
        """Count one request that has ended."""
        facts, charge = record.facts, record.charge
        model = self._bounded(facts.model)
        self._requests[model, facts.endpoint, facts.outcome] += 1
        self._durations[model, facts.endpoint].add(seconds(facts.end_ns))
        if facts.first_token_ns is not None:
            self._first_tokens[model, facts.endpoint].add(seconds(facts.first_token_ns))
        if charge.prefill_uj is not None:
            self._request_uj[model, facts.outcome, "prefill", charge.status] += charge.prefill_uj
        if charge.decode_uj is not None:
            self._request_uj[model, facts.outcome, "decode", charge.status] += charge.decode_uj
        if facts.input_tokens is not None:
            self._tokens[model, "input"] += facts.input_tokens
        if facts.output_tokens is not None:
            self._tokens[model, "output"] += facts.output_tokens

    def render(self, accept: str) -> tuple[bytes, str]:
        """The whole scrape and its content type, in the format that the Accept header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Family]:
        """Every metric as it is now."""
        yield _family(telemetry.REQUESTS, self._requests)
        yield _family(telemetry.REQUEST_JOULES, {labels: joules(uj) for labels, uj in self._request_uj.items()})
        yield _family(telemetry.TOKENS, self._tokens)
        yield _histogram(telemetry.DURATION, self._durations)
        yield _histogram(telemetry.FIRST_TOKEN, self._first_tokens)
        balance = self._balance() if self._balance is not None else None
        if balance is not None:
            for metric, uj in ((telemetry.MEASURED_JOULES, balance.measured_uj),
                               (telemetry.REQUESTS_JOULES, balance.requests_uj),
                               (telemetry.IDLE_JOULES, balance.idle_uj),
                               (telemetry.UNATTRIBUTED_JOULES, balance.unattributed_uj)):
                yield _family(metric, {self._provenance: joules(uj)})
        for metric, read in self._reads.items():
            yield _family(metric, read())

    def _bounded(self, model: str | None) -> str:
        name = model or NO_MODEL
        if name in self._models:
            return name
        if len(self._models) >= MODELS:
            return OTHER_MODELS
        self._models.add(name)
        return name


class _Spread:
    """How many values fell up to each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


def _family(metric: Metric, values: Mapping[tuple[str, ...], float]) -> Family:
    make: Any = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family: Family = make(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)  # type: ignore[attr-defined]
    return family


def _histogram(metric: Metric, spreads: Mapping[tuple[str, ...], _Spread]) -> Family:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, spread in spreads.items():
        names = [*map(str, spread.bounds), "+Inf"]
        family.add_metric(labels, list(zip(names, accumulate(spread.counts), strict=True)), spread.total)
    return family
