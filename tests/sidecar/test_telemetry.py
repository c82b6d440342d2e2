"""Names are shown to others, so each is documented, well formed, and the same wherever it is written."""

import re
from pathlib import Path

import pytest

from perjoule.sidecar import telemetry
from perjoule.sidecar.record import SCHEMA_VERSION, Charge, EnergyRecord, Outcome, RequestFacts, Status, TokenSource, Unit, UnitSource
from perjoule.sidecar.telemetry import Attribute, Header, Kind

DOCS = Path(__file__).parents[2] / "docs"
RECORD = EnergyRecord(RequestFacts("r", "q", 1, 2, Outcome.COMPLETED, "chat.completions", "vllm", False),
                      Charge(Status.UNAVAILABLE, "token-share", "none", True)).as_json()


def rows(page):
    """The first cell of each table row of a page that names something, and the whole row."""
    found = re.findall(r"^\| `([^`]+)` \|(.*)$", (DOCS / page).read_text(), re.MULTILINE)
    assert found
    return dict(found)


def test_records_md_has_every_field_of_the_record_and_no_other():
    """docs/records.md explains the record's fields, and the values of status, one row each."""
    assert {name for name in rows("records.md") if not name.startswith("/")} == set(RECORD) | set(Status)


@pytest.mark.parametrize("words", [Outcome, Status, TokenSource, Unit, UnitSource], ids=lambda words: words.__name__)
def test_records_md_has_every_word_that_a_field_can_hold(words):
    """Each outcome, status and token source is written in docs/records.md as it appears in a record."""
    text = (DOCS / "records.md").read_text()
    assert [word for word in words if f"`{word}`" not in text] == []


def test_records_md_names_the_schema_version():
    """The page says which version of the record it describes."""
    assert f"`schema_version` is {SCHEMA_VERSION}." in (DOCS / "records.md").read_text()


def test_metrics_md_has_every_metric_with_its_kind_and_labels_and_no_other():
    """docs/metrics.md has one row a metric, which tells kind, labels and the name over OTLP, and one for each label."""
    found = rows("metrics.md")
    labels_told = {name: found.pop(name) for name in telemetry.LABELS}
    assert set(found) == {metric.name for metric in telemetry.METRICS}
    for metric in telemetry.METRICS:
        kind, labels, over, _ = (cell.strip() for cell in found[metric.name].rstrip(" |").split("|"))
        assert kind.split(",")[0] == metric.kind
        assert tuple(re.findall(r"`(\w+)`", labels)) == metric.labels
        assert over in (f"`{metric.otlp_name}`", "the resource")
    assert all(f"`{attribute}`" in labels_told[label] for label, attribute in telemetry.LABELS.items())


def test_telemetry_md_has_every_attribute_and_header_and_no_other():
    """docs/telemetry.md has one row an attribute and a header, and names the event."""
    named = {name for name in rows("telemetry.md") if not name.startswith(("--", "OTEL_", "…"))}
    assert named == set(Attribute) | set(Header)
    assert f"`{telemetry.FIRST_TOKEN_EVENT}`" in (DOCS / "telemetry.md").read_text()


def test_telemetry_md_speaks_of_fields_that_the_record_has():
    """Each attribute and header that is said to be a field of the record names one that exists."""
    for name, row in rows("telemetry.md").items():
        told = re.match(r"[^|]*\| `(\w+)`", row)
        assert told is None or told[1] in {*RECORD, "chat", "POST"}, name


def test_metric_names_follow_prometheus():
    """Counters end in _total; a unit is in the name; names and labels are legal and none is there twice, in either way of sending."""
    names = [metric.name for metric in telemetry.METRICS]
    assert len(set(names)) == len({metric.otlp_name for metric in telemetry.METRICS}) == len(names)
    for metric in telemetry.METRICS:
        assert re.fullmatch(r"(perjoule(_[a-z]+)+|target_info)", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert metric.name.endswith("_info") or set(metric.labels) <= set(telemetry.LABELS)


def test_a_metric_of_ours_comes_back_from_a_collector_under_its_own_name():
    """OpenTelemetry's way of making Prometheus names of OTLP's: dots to underscores, the unit's word and `_total` where they lack."""
    words = {"J": "joules", "s": "seconds", "W": "watts"}
    for metric in telemetry.METRICS:
        if metric.conventional:
            continue
        name = metric.otlp_name.replace(".", "_")
        if (word := words.get(metric.unit)) and word not in name.split("_"):
            name += f"_{word}"
        assert name + ("_total" if metric.kind is Kind.COUNTER else "") == metric.name


def test_an_attribute_says_its_unit_or_has_none():
    """Our attributes with joules or seconds end in the unit's whole name."""
    ours = [name for name in Attribute if name.startswith("perjoule.")]
    assert not [name for name in ours if re.search(r"(_uj|_ns|_j|_s)$", name)]
