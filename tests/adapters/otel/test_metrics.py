"""Metrics over OTLP, as a receiver made of the official protobufs reads them, beside what Prometheus scrapes and the SDK would send."""

import socket
import time
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality as Temporality,
)
from opentelemetry.sdk.metrics.export import (
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.parser import text_string_to_metric_families

from perjoule.adapters.otel.metrics import open_metrics
from perjoule.adapters.prometheus import render
from perjoule.sidecar import telemetry
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status
from perjoule.sidecar.records.tally import Spread, Tally
from perjoule.sidecar.telemetry import Kind
from tests.fakes.collector import attributes_of, grpc_collector, http_collector
from tests.fakes.records import records

RECEIVERS = {"http": http_collector, "grpc": grpc_collector}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def record(**facts):
    facts = {"model": "llama", "outcome": Outcome.COMPLETED, "first_token_ns": 50_000_000, "last_token_ns": 1_950_000_000,
             "input_tokens": 10, "output_tokens": 20, "cached_tokens": 4, "tenant": "blue", "trace_id": TRACE} | facts
    return EnergyRecord(RequestFacts("r", "q", 1_000_000_000, 3_000_000_000, endpoint="chat.completions", engine="vllm", streamed=True,
                                     **facts),
                        Charge(Status.SIMULATED, "token-share", "simulated", True, energy_uj=5_000_000, prefill_uj=2_000_000,
                               decode_uj=3_000_000))


def looked():
    kind = ("simulated", "simulated")
    return {telemetry.MEASURED_JOULES: {kind: 9.5}, telemetry.POWER_WATTS: {kind: 400.0}, telemetry.BOARD_JOULES: {("GPU-0", *kind): 9.5},
            telemetry.BOARD_WATTS: {("GPU-0", *kind): 400.0}, telemetry.IN_FLIGHT: {(): 3}, telemetry.BUILD_INFO: {("1", "3"): 1},
            telemetry.BOARD_PROCESSES: {}}


def until(condition, patience_s=60):
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


@contextmanager
def sending(collector):
    push = open_metrics(collector.url)
    try:
        yield push
    finally:
        push.close(10)


def received(tally, receiver=http_collector):
    """The metrics that a receiver gets, by name."""
    with receiver() as collector, sending(collector) as push:
        push.offer(tally.shown(), "run-1")
        until(lambda: collector.metrics)
        return collector.newest(), collector.metrics[-1].resource_metrics[0]


def points_of(metric):
    return list(getattr(metric, metric.WhichOneof("data")).data_points)


@pytest.mark.parametrize("receiver", RECEIVERS.values(), ids=RECEIVERS)
def test_names_units_and_attributes_are_the_conventions(receiver):
    """Durations, tokens and boards under the names that OpenTelemetry has for them, ours with dots; the resource is the run's."""
    tally = Tally(looked)
    tally.add(record())
    tally.add(record(outcome=Outcome.ERRORED))
    found, resource = received(tally, receiver)
    assert attributes_of(resource.resource)["service.instance.id"] == "run-1"
    served = {"gen_ai.request.model": "llama", "gen_ai.provider.name": "vllm", "gen_ai.operation.name": "chat",
              "perjoule.endpoint": "chat.completions"}
    durations = [attributes_of(point) for point in points_of(found["gen_ai.server.request.duration"])]
    assert durations == [served | {"perjoule.outcome": "completed"}, served | {"perjoule.outcome": "errored", "error.type": "_OTHER"}]
    assert found["gen_ai.server.request.duration"].unit == "s"
    assert [attributes_of(point) for point in points_of(found["gen_ai.server.time_to_first_token"])] == [served]
    [per_token] = points_of(found["gen_ai.server.time_per_output_token"])
    assert (per_token.count, per_token.sum) == (1, pytest.approx(0.1))
    tokens = {attributes_of(point)["gen_ai.token.type"]: point for point in points_of(found["gen_ai.client.token.usage"])}
    assert {name: (point.count, point.sum) for name, point in tokens.items()} == {"input": (2, 20), "output": (2, 40)}
    assert found["gen_ai.client.token.usage"].unit == "{token}"
    hardware = {"hw.id": "GPU-0", "hw.type": "gpu", "perjoule.energy.source": "simulated", "perjoule.energy.status": "simulated"}
    assert [(attributes_of(point), point.as_double) for point in points_of(found["hw.energy"])] == [(hardware, 9.5)]
    assert found["hw.energy"].unit == "J"
    assert found["hw.energy"].sum.is_monotonic
    assert [point.as_double for point in points_of(found["hw.power"])] == [400.0]
    assert {attributes_of(point)["perjoule.tenant"] for point in points_of(found["perjoule.tenant.joules"])} == {"blue"}
    assert not [name for name in found if name.endswith("info") or name == telemetry.BOARD_PROCESSES.otlp_name]


def test_the_newest_conventions_where_they_are_asked_for(monkeypatch):
    """gen_ai_latest_experimental: counters and histograms of tokens by direction instead of the one histogram; nothing else differs."""
    tally = Tally(looked)
    tally.add(record())
    usual, _ = received(tally)
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
    newest, _ = received(tally)
    usage = "gen_ai.client.inference.usage."
    assert set(usual) - set(newest) == {"gen_ai.client.token.usage", "perjoule.cached.tokens"}
    assert set(newest) - set(usual) == {usage + "input_tokens", usage + "output_tokens", usage + "cache_read.input_tokens",
                                        "gen_ai.client.inference.operation.input_tokens", "gen_ai.client.inference.operation.output_tokens"}
    for name, tokens in (("input_tokens", 10), ("output_tokens", 20), ("cache_read.input_tokens", 4)):
        [point] = points_of(newest[usage + name])
        assert point.as_int == tokens
        assert attributes_of(point)["gen_ai.token.modality"] == "unknown"
        assert "gen_ai.token.type" not in attributes_of(point)
    [sizes] = points_of(newest["gen_ai.client.inference.operation.output_tokens"])
    assert (sizes.count, sizes.sum) == (1, 20)
    assert "gen_ai.token.modality" not in attributes_of(sizes)


def test_sums_count_from_one_start_and_exemplars_name_traces(monkeypatch):
    """Cumulative, all from the same start, in two messages; the bucket of a value names its trace unless that is switched off."""
    tally = Tally(looked)
    tally.add(record())
    with http_collector() as collector, sending(collector) as push:
        for count in (1, 2):
            push.offer(tally.shown(), "run-1")
            until(lambda count=count: push.sent == count)
        [point] = points_of(collector.newest()["gen_ai.server.request.duration"])
        [exemplar] = point.exemplars
        assert (exemplar.trace_id.hex(), exemplar.as_double, exemplar.time_unix_nano) == (TRACE, 3.0, 4_000_000_000)
        sent = [metric for request in collector.metrics for metric in request.resource_metrics[0].scope_metrics[0].metrics]
        starts = {point.start_time_unix_nano for metric in sent if metric.WhichOneof("data") != "gauge" for point in points_of(metric)}
        assert len(starts) == 1
        assert max(starts) < point.time_unix_nano
    monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", "always_off")
    found, _ = received(tally)
    assert not points_of(found["gen_ai.server.request.duration"])[0].exemplars


@settings(max_examples=25, deadline=None)
@given(st.lists(records, max_size=12))
def test_both_ways_tell_the_same_numbers(many):
    """Whatever was recorded, a metric's sum over its labels is the same in a scrape and over OTLP; no bucket is lost."""
    tally = Tally(looked)
    for each in many:
        tally.add(each)
    shown = tally.shown()
    with http_collector() as collector, sending(collector) as push:
        request = push._request(shown, "run", 2)
    sent = {metric.name: metric for metric in request.resource_metrics[0].scope_metrics[0].metrics}
    scraped = {}
    for family in text_string_to_metric_families(render(shown, "")[0].decode()):
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                scraped[sample.name] = scraped.get(sample.name, 0) + sample.value
    for metric in shown:
        if not shown[metric] or metric.name.endswith("_info"):
            continue
        points = points_of(sent[metric.otlp_name])
        assert len(points) == len(shown[metric])
        if metric.kind is Kind.HISTOGRAM:
            assert sum(point.count for point in points) == scraped[metric.name + "_count"]
            assert sum(point.sum for point in points) == pytest.approx(scraped[metric.name + "_sum"])
            for point in points:
                assert sum(point.bucket_counts) == point.count
                assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
        else:
            total = sum(getattr(point, point.WhichOneof("value")) for point in points)
            assert total == pytest.approx(scraped[metric.name])


def test_the_message_is_what_the_sdk_would_have_sent():
    """The same numbers through the SDK's own data points and its own encoder make the same message."""
    tally = Tally(looked)
    tally.add(record())
    shown = tally.shown()
    with http_collector() as collector, sending(collector) as push:
        ours = push._request(shown, "run-1", 7_000)
        resource = Resource({"service.instance.id": "run-1", **push._resource}, push._schema_url)
        since = push._since_ns
    by_name = {metric.name: metric for metric in ours.resource_metrics[0].scope_metrics[0].metrics}
    made = []
    for metric, values in shown.items():
        if not values or metric.name.endswith("_info"):
            continue
        points = []
        for value, point in zip(values.values(), points_of(by_name[metric.otlp_name]), strict=True):
            common = {"attributes": attributes_of(point), "start_time_unix_nano": None if metric.kind is Kind.GAUGE else since,
                      "time_unix_nano": 7_000}
            points.append(HistogramDataPoint(**common, count=sum(value.counts), sum=value.total, bucket_counts=value.counts,
                                             explicit_bounds=value.bounds, min=None, max=None) if isinstance(value, Spread)
                          else NumberDataPoint(**common, value=value))
        data = (Histogram(points, Temporality.CUMULATIVE) if metric.kind is Kind.HISTOGRAM else
                Sum(points, Temporality.CUMULATIVE, True) if metric.kind is Kind.COUNTER else Gauge(points))
        made.append(Metric(metric.otlp_name, metric.help, metric.unit, data))
    theirs = encode_metrics(MetricsData([ResourceMetrics(resource, [ScopeMetrics(
        InstrumentationScope(telemetry.SCOPE, None, telemetry.SCHEMA_URL), made, telemetry.SCHEMA_URL)], push._schema_url)]))
    for metric in ours.resource_metrics[0].scope_metrics[0].metrics:
        if metric.WhichOneof("data") == "histogram":
            assert metric.histogram.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
            for point in metric.histogram.data_points:
                point.ClearField("exemplars")  # which the SDK takes from its own spans
    assert ours == theirs


@pytest.mark.parametrize("protocol", RECEIVERS)
def test_a_collector_that_is_away_gets_the_newest_numbers_when_it_is_back(protocol, caplog):
    """Nothing is queued: sums count from the start, so one message after the outage tells all; the outage is logged once and counted."""
    tally = Tally()
    with RECEIVERS[protocol]() as first:
        port = int(first.url.rpartition(":")[2])
        push = open_metrics(first.url)
    for _ in range(3):
        tally.add(record())
        push.offer(tally.shown(), "run")
        until(lambda: push.failed)
    with RECEIVERS[protocol](port) as second:
        until(lambda: push.sent == 1)
        [point] = points_of(second.newest()["perjoule.requests"])
        assert point.as_int == 3
        push.close(10)
    said = [entry.getMessage() for entry in caplog.records if entry.name == "perjoule.adapters.otel.metrics"]
    assert len(said) == 2
    assert said[0].startswith("metrics are not sent, trying again: ")
    assert said[1] == "metrics are sent again"


def test_a_collector_without_metrics_is_not_asked_for_the_same_again():
    """404, as one for traces alone answers: the next numbers are tried, these are not."""
    tally = Tally(looked)
    with http_collector() as collector, sending(collector) as push:
        collector.answers = [404]
        push.offer(tally.shown(), "run")
        until(lambda: push.failed == 1)
        push.offer(tally.shown(), "run")
        until(lambda: push.sent == 1)
        assert collector.tries == 2


def test_close_sends_what_was_offered_last_and_does_not_wait_for_ever(monkeypatch):
    """The last numbers go out at the end; a collector that is silent holds the end up no longer than it may."""
    tally = Tally(looked)
    with http_collector() as collector:
        push = open_metrics(collector.url)
        push.offer(tally.shown(), "run")
        push.close(30)
        assert push.sent == 1
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "300")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        push = open_metrics(f"http://127.0.0.1:{silent.getsockname()[1]}")
        push.offer(tally.shown(), "run")
        began = time.monotonic()
        push.close(0.2)
        assert time.monotonic() - began < 60
