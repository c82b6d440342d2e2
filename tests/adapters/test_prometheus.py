"""The scrape, read back with Prometheus's own parsers and judged by its own promtool."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from perjoule.adapters.prometheus import render
from perjoule.sidecar import telemetry
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status
from perjoule.sidecar.records.tally import Tally
from perjoule.sidecar.telemetry import Kind
from tests.fakes.records import records

OPENMETRICS = "application/openmetrics-text; version=1.0.0,text/plain;q=0.5"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def record(status=Status.MEASURED, **facts):
    facts = {"model": "llama", "outcome": Outcome.COMPLETED, "first_token_ns": 50_000_000, "last_token_ns": 1_950_000_000,
             "input_tokens": 10, "output_tokens": 20, "cached_tokens": 5, "reasoning_tokens": 2, "trace_id": TRACE} | facts
    return EnergyRecord(
        RequestFacts(record_id="r", request_id="q", arrival_unix_ns=1, end_ns=3_000_000_000, endpoint="chat.completions", engine="vllm",
                     streamed=True, **facts),
        Charge(status, "token-share", "nvml", True, energy_uj=5_000_000, prefill_uj=2_000_000, decode_uj=3_000_000, steady_uj=1_000_000,
               steady_ns=1_000_000_000))


def everything():
    """Metrics in which each one has a sample."""
    sums = Tally()
    sums.add(record())
    known = sums.shown()
    rest = {metric: {tuple("x" for _ in metric.labels): 1.0} for metric in telemetry.METRICS if metric not in known}
    return known | rest


def scraped(shown):
    """Every sample of a scrape: {(name, labels): value}."""
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in read_text(render(shown, "")[0].decode()) for sample in family.samples}


def test_a_scrape_has_exactly_the_metrics_that_are_declared():
    """Names, kinds, labels and help of a full scrape are those of sidecar/telemetry.py."""
    families = list(read_text(render(everything(), "")[0].decode()))
    found = {family.name + ("_total" if family.type == "counter" else ""): family for family in families}
    assert {name: (family.type, family.documentation) for name, family in found.items()} == {
        metric.name: (metric.kind, metric.help) for metric in telemetry.METRICS}
    for metric in telemetry.METRICS:
        for sample in found[metric.name].samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)


def test_durations_fall_into_the_conventions_buckets():
    """3 s is above 2.56 s and within 5.12 s; a first token at 50 ms is within 60 ms and not within 40 ms."""
    found = scraped(everything())
    served = {"model": "llama", "endpoint": "chat.completions", "engine": "vllm"}

    def bucket(metric, le, **more):
        return found[metric.name + "_bucket", tuple(sorted({**served, **more, "le": le}.items()))]

    assert (bucket(telemetry.DURATION, "2.56", outcome="completed"), bucket(telemetry.DURATION, "5.12", outcome="completed")) == (0, 1)
    assert (bucket(telemetry.FIRST_TOKEN, "0.04"), bucket(telemetry.FIRST_TOKEN, "0.06")) == (0, 1)
    assert bucket(telemetry.DURATION, "+Inf", outcome="completed") == 1


def test_openmetrics_has_exemplars_and_units():
    """Who asks for OpenMetrics gets it, with the trace of the latest request in each bucket and the unit of each family."""
    body, content_type = render(everything(), OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in read_openmetrics(body.decode())}
    assert set(families) == {metric.name.removesuffix("_total") for metric in telemetry.METRICS}
    for metric in (telemetry.DURATION, telemetry.FIRST_TOKEN, telemetry.TOKEN_TIME, telemetry.ENERGY_SIZES):
        exemplars = [sample.exemplar for sample in families[metric.name].samples if sample.exemplar]
        assert [exemplar.labels for exemplar in exemplars] == [{"trace_id": TRACE}]
    assert (families["perjoule_request_joules"].unit, families["perjoule_request_duration_seconds"].unit) == ("joules", "seconds")
    assert (families["perjoule_power_watts"].unit, families["perjoule_tokens"].unit) == ("watts", "")


def test_plain_text_has_no_exemplar():
    """The older format has no place for one, and is what everybody else gets."""
    body, content_type = render(everything(), "*/*")
    assert content_type.startswith("text/plain; version=0.0.4")
    assert TRACE.encode() not in body


def test_simulated_joules_say_so():
    """Every joule of a simulated source carries status=simulated."""
    sums = Tally(lambda: {telemetry.MEASURED_JOULES: {("simulated", "simulated"): 3.0}})
    sums.add(record(status=Status.SIMULATED))
    joules = [dict(labels) for name, labels in scraped(sums.shown()) if "joules" in name]
    assert len(joules) > 6
    assert {labels["status"] for labels in joules} == {"simulated"}


@settings(max_examples=50, deadline=None)
@given(st.lists(records, max_size=6), st.sampled_from(["", OPENMETRICS]))
def test_any_record_makes_a_scrape_that_can_be_read(many, accept):
    """Names with quotes, line ends, or of another script come back as they were."""
    sums = Tally()
    for each in many:
        sums.add(each)
    read = read_openmetrics if accept else read_text
    samples = [sample for family in read(render(sums.shown(), accept)[0].decode()) for sample in family.samples]
    models = {sample.labels["model"] for sample in samples if sample.name == telemetry.REQUESTS.name}
    assert models == {(each.facts.model or "unknown")[:200] for each in many}


def test_promtool_has_nothing_to_say(tmp_path):
    """Prometheus's own linter takes a full scrape without a word: names, units, kinds, help."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; tests/run does that as root")
    judged = subprocess.run([promtool, "check", "metrics"], input=render(everything(), "")[0], capture_output=True, timeout=60, check=False)
    assert (judged.returncode, judged.stdout + judged.stderr) == (0, b"")


def test_a_counter_is_told_by_its_name():
    """What promtool cannot see: the kind of each metric in the data is the one that its name promises."""
    for metric in telemetry.METRICS:
        assert (metric.kind is Kind.COUNTER) == bool(re.search("_total$", metric.name))
