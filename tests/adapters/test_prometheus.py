"""The scrape, read back with Prometheus's own parsers."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from perjoule.adapters.prometheus import MODELS, PrometheusMetrics
from perjoule.sidecar import telemetry
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status


@dataclass(frozen=True)
class Account:
    measured_uj: int
    requests_uj: int
    idle_uj: int
    unattributed_uj: int


def record(model="llama", outcome=Outcome.COMPLETED, status=Status.MEASURED, prefill=2_000_000, decode=3_000_000,
           **facts):
    facts = {"first_token_ns": 50_000_000, "input_tokens": 10, "output_tokens": 20} | facts
    total = None if prefill is None else prefill + decode
    return EnergyRecord(
        RequestFacts(record_id="r", request_id="q", arrival_unix_ns=1, end_ns=3_000_000_000, outcome=outcome,
                     endpoint="chat.completions", engine="vllm", streamed=True, model=model, **facts),
        Charge(status, "token-share", "nvml", True, energy_uj=total, prefill_uj=prefill, decode_uj=decode))


def scraped(metrics):
    """Every sample of a scrape: {(name, labels): value}."""
    text = metrics.render("")[0].decode()
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in read_text(text) for sample in family.samples}


def value(metrics, metric, **labels):
    return scraped(metrics).get((metric.name, tuple(sorted(labels.items()))))


def test_requests_joules_and_tokens_are_counted():
    """Two requests of one model: counts, joules by phase, outcome and status, and tokens by direction add up."""
    metrics = PrometheusMetrics()
    metrics.observe(record())
    metrics.observe(record(outcome=Outcome.CANCELLED, status=Status.MIXED))
    assert value(metrics, telemetry.REQUESTS, model="llama", endpoint="chat.completions", outcome="cancelled") == 1
    joules = {"model": "llama", "outcome": "completed", "status": "measured"}
    assert value(metrics, telemetry.REQUEST_JOULES, phase="prefill", **joules) == 2
    assert value(metrics, telemetry.REQUEST_JOULES, phase="decode", **joules) == 3
    assert value(metrics, telemetry.TOKENS, model="llama", direction="input") == 20
    assert value(metrics, telemetry.TOKENS, model="llama", direction="output") == 40


def test_durations_fall_into_the_conventions_buckets():
    """3 s is above 2.56 s and within 5.12 s; a first token at 50 ms is within 60 ms and not within 40 ms."""
    metrics = PrometheusMetrics()
    metrics.observe(record())
    found = scraped(metrics)

    def bucket(metric, le):
        labels = {"model": "llama", "endpoint": "chat.completions", "le": le}
        return found[metric.name + "_bucket", tuple(sorted(labels.items()))]

    assert (bucket(telemetry.DURATION, "2.56"), bucket(telemetry.DURATION, "5.12")) == (0, 1)
    assert (bucket(telemetry.FIRST_TOKEN, "0.04"), bucket(telemetry.FIRST_TOKEN, "0.06")) == (0, 1)


def test_what_is_unknown_is_absent():
    """A request without energy, tokens and first token is counted, and adds no joule, token or first-token sample."""
    metrics = PrometheusMetrics()
    metrics.observe(record(status=Status.UNAVAILABLE, prefill=None, decode=None, input_tokens=None, output_tokens=None,
                           first_token_ns=None))
    names = {name for name, _ in scraped(metrics)}
    assert telemetry.REQUESTS.name in names
    assert not names & {telemetry.REQUEST_JOULES.name, telemetry.TOKENS.name, telemetry.FIRST_TOKEN.name + "_count"}


def test_model_labels_are_bounded():
    """Of 60 models the first 50 have a label of their own, the others share one, and nothing is lost."""
    metrics = PrometheusMetrics()
    for number in range(60):
        metrics.observe(record(model=f"m{number}"))
    metrics.observe(record(model=None))
    counted = {dict(labels)["model"]: count for (name, labels), count in scraped(metrics).items()
               if name == telemetry.REQUESTS.name}
    assert len(counted) == MODELS + 1
    assert counted["other"] == 11
    assert sum(counted.values()) == 61


def test_a_request_that_names_no_model_is_unknown():
    """The label is `unknown` where the request named no model."""
    metrics = PrometheusMetrics()
    metrics.observe(record(model=None))
    assert value(metrics, telemetry.TOKENS, model="unknown", direction="input") == 10


@given(st.lists(st.integers(0, 10**15), min_size=3, max_size=3))
def test_the_balance_is_of_one_moment_and_balances(parts):
    """The four accounts come from one call a scrape, and agree as closely as float64 can."""
    calls = []

    def balance():
        calls.append(1)
        return Account(sum(parts), *parts)

    metrics = PrometheusMetrics(balance=balance, source="nvml", status=Status.MEASURED)
    found = scraped(metrics)
    labels = (("source", "nvml"), ("status", "measured"))
    measured, *shares = (found[metric.name, labels] for metric in (
        telemetry.MEASURED_JOULES, telemetry.REQUESTS_JOULES, telemetry.IDLE_JOULES, telemetry.UNATTRIBUTED_JOULES))
    assert measured == pytest.approx(sum(shares), rel=1e-12)
    assert len(calls) == 1


@pytest.mark.parametrize("balance", [None, lambda: None])
def test_without_an_energy_source_there_are_no_joules(balance):
    """Absent, not zero: no sample of the balance."""
    names = {name for name, _ in scraped(PrometheusMetrics(balance=balance))}
    assert not [name for name in names if name.startswith("perjoule_energy_")]


def test_simulated_joules_say_so():
    """Every joule series of a simulated source carries status=simulated."""
    metrics = PrometheusMetrics(balance=lambda: Account(3, 1, 1, 1), source="simulated", status=Status.SIMULATED)
    metrics.observe(record(status=Status.SIMULATED))
    joules = [dict(labels) for name, labels in scraped(metrics) if name.endswith("_joules_total")]
    assert len(joules) == 6
    assert {labels["status"] for labels in joules} == {"simulated"}


def test_the_rest_is_looked_up_at_each_scrape():
    """Gauges and counters of the service are read when scraped, with their labels; nothing is shown for no value."""
    now = {"in flight": 3}
    metrics = PrometheusMetrics(reads={
        telemetry.IN_FLIGHT: lambda: {(): now["in flight"]},
        telemetry.OUTBOX_DROPPED: lambda: {("ledger",): 5, ("otlp",): 0},
        telemetry.BOARD_PROCESSES: lambda: {("GPU-0",): 1}, telemetry.POWER_WATTS: dict})
    assert value(metrics, telemetry.IN_FLIGHT) == 3
    now["in flight"] = 4
    assert value(metrics, telemetry.IN_FLIGHT) == 4
    assert value(metrics, telemetry.OUTBOX_DROPPED, sink="ledger") == 5
    assert value(metrics, telemetry.OUTBOX_DROPPED, sink="otlp") == 0
    assert telemetry.POWER_WATTS.name not in {name for name, _ in scraped(metrics)}


def everything():
    """Metrics in which each one has a sample."""
    looked_up = ("perjoule_sampler", "perjoule_outbox", "perjoule_power", "perjoule_requests_in", "perjoule_metering", "perjoule_board")
    reads = {metric: lambda labels=metric.labels: {tuple("x" for _ in labels): 1.0} for metric in telemetry.METRICS
             if metric.name.startswith(looked_up)}
    metrics = PrometheusMetrics(balance=lambda: Account(3, 1, 1, 1), source="nvml", status=Status.MEASURED, reads=reads)
    metrics.observe(record())
    return metrics


def test_a_scrape_has_exactly_the_metrics_that_are_declared():
    """Names, kinds and labels of a full scrape are those of sidecar/telemetry.py."""
    families = list(read_text(everything().render("")[0].decode()))
    found = {family.name + ("_total" if family.type == "counter" else ""): family for family in families}
    assert {name: family.type for name, family in found.items()} == {m.name: m.kind for m in telemetry.METRICS}
    for metric in telemetry.METRICS:
        for sample in found[metric.name].samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)


def test_openmetrics_is_spoken_to_who_asks():
    """The Accept header decides between Prometheus text and OpenMetrics, and both can be parsed."""
    body, content_type = everything().render("application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    assert {family.name for family in read_openmetrics(body.decode())} == {
        metric.name.removesuffix("_total") for metric in telemetry.METRICS}
    assert everything().render("*/*")[1].startswith("text/plain; version=0.0.4")
