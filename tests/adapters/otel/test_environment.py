"""What `--otlp` and the `OTEL_*` variables mean together: where each signal goes, or that it is not sent."""

import pytest

from perjoule.adapters.otel.environment import METRICS, TRACES, Endpoint, endpoint, interval_s, is_latest

OTLP = "OTEL_EXPORTER_OTLP_"


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    for name in ("OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_SEMCONV_STABILITY_OPT_IN",
                 "OTEL_METRIC_EXPORT_INTERVAL", *(OTLP + name for name in ("ENDPOINT", "TRACES_ENDPOINT", "METRICS_ENDPOINT", "PROTOCOL",
                                                                          "TRACES_PROTOCOL", "INSECURE", "TIMEOUT"))):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("asked", "said", "spans", "metrics"), [
    ("", {}, None, None),
    ("http://c:4318", {}, "http://c:4318/v1/traces", "http://c:4318/v1/metrics"),
    ("http://c:4318/", {}, "http://c:4318/v1/traces", "http://c:4318/v1/metrics"),
    ("https://c/in/v1/traces", {}, "https://c/in/v1/traces", "https://c/in/v1/metrics"),
    ("http://c/elsewhere", {}, "http://c/elsewhere", None),
    ("http://[::1]:4318", {}, "http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/metrics"),
    ("grpc://c:4317", {}, "grpc http://c:4317", "grpc http://c:4317"),
    ("grpcs://c:4317", {}, "grpc https://c:4317", "grpc https://c:4317"),
    ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e:4318"}, "http://e:4318/v1/traces", "http://e:4318/v1/metrics"),
    ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e:4318/my/"}, "http://e:4318/my/v1/traces", "http://e:4318/my/v1/metrics"),
    ("", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:4318"}, "http://t:4318", None),
    ("", {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m/x"}, None, "http://m/x"),
    ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "https://m/v1/metrics/"},
     "http://e/v1/traces", "https://m/v1/metrics/"),
    ("http://c:4318", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e"}, "http://c:4318/v1/traces", "http://c:4318/v1/metrics"),
    ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc http://e:4317", "grpc http://e:4317"),
    ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "e:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc https://e:4317", "grpc https://e:4317"),
    ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "e:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_INSECURE": "true"},
     "grpc http://e:4317", "grpc http://e:4317"),
    ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e:1", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
     "grpc http://e:1", "http://e:1/v1/metrics"),
    ("", {"OTEL_TRACES_EXPORTER": "otlp"}, "http://localhost:4318/v1/traces", None),
    ("http://c", {"OTEL_METRICS_EXPORTER": "none"}, "http://c/v1/traces", None),
    ("http://c", {"OTEL_TRACES_EXPORTER": "none"}, None, "http://c/v1/metrics"),
    ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://e", "OTEL_METRICS_EXPORTER": "prometheus"}, "http://e/v1/traces", None),
    ("http://c", {"OTEL_SDK_DISABLED": "true"}, None, None),
    ("http://c", {"OTEL_SDK_DISABLED": "TRUE "}, None, None),
    ("http://c", {"OTEL_SDK_DISABLED": "1"}, "http://c/v1/traces", "http://c/v1/metrics"),
])
def test_where_each_signal_goes(asked, said, spans, metrics, monkeypatch):
    """`--otlp` before the variables, a signal's own variable before the common one, and what is switched off stays off."""
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    for signal, expected in ((TRACES, spans), (METRICS, metrics)):
        told = None if expected is None else Endpoint(expected.removeprefix("grpc "), expected.startswith("grpc "))
        assert endpoint(signal, asked) == told


@pytest.mark.parametrize(("name", "value", "wrong"), [
    ("PROTOCOL", "http/json", "got 'http/json', expected grpc or http/protobuf"), ("ENDPOINT", "ftp://e", "got 'ftp://e', expected http"),
    ("ENDPOINT", "http://e:port", "got 'http://e:port'"), ("ENDPOINT", "e:4318", "got 'e:4318'")])
def test_what_cannot_be_is_said(name, value, wrong, monkeypatch):
    """The error names the variable, what was got and what was expected."""
    monkeypatch.setenv(OTLP + "ENDPOINT", "http://e")
    monkeypatch.setenv(OTLP + name, value)
    with pytest.raises(ValueError, match=wrong) as caught:
        endpoint(TRACES, "")
    assert str(caught.value).startswith(OTLP + name)


@pytest.mark.parametrize(("text", "expected_s"), [("", 10), ("0.5", 0.5), ("10000", 600), ("-1", 10), ("soon", 10), ("nan", 10)])
def test_a_timeout_is_in_seconds_and_bounded(text, expected_s, monkeypatch):
    """What is no positive number is the default, and nobody waits for hours on a variable that was meant in milliseconds."""
    monkeypatch.setenv(OTLP + "TIMEOUT", text)
    assert TRACES.timeout_s == expected_s


def test_how_often_and_by_which_names(monkeypatch):
    """The interval is in milliseconds, a minute if nothing is said; the opt-in is a word in a list."""
    assert (interval_s(), is_latest()) == (60, False)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "1500")
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http/dup, gen_ai_latest_experimental")
    assert (interval_s(), is_latest()) == (1.5, True)
