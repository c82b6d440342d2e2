"""What a collector answers, over real HTTP and real gRPC, and what is made of it: sent again, dropped and counted, or left alone."""

import socket
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from perjoule.adapters.otel.environment import TRACES, endpoint
from perjoule.adapters.otel.transport import collector
from perjoule.sidecar.ports import RefusedError, TryLaterError
from tests.fakes.certificates import make_certificates
from tests.fakes.collector import grpc_collector, http_collector

MESSAGE = ExportTraceServiceRequest(resource_spans=[ResourceSpans(schema_url="x")]).SerializeToString()
RECEIVERS = {"http": http_collector, "grpc": grpc_collector}
CODES = {code: code.name in ("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS")
         for code in grpc.StatusCode if code is not grpc.StatusCode.OK}


def send(url, count=7):
    way = collector(TRACES, endpoint(TRACES, url))
    try:
        way.send(MESSAGE, count)
    finally:
        way.close()


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_http_answers_that_ask_to_come_again(status):
    """The specification names four; with Retry-After they say when, as seconds or as a date, and nonsense is nothing."""
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    with http_collector() as there:
        there.answers = [(status, 13), (status, later), (status, "soon"), status]
        waits = []
        for _ in range(4):
            with pytest.raises(TryLaterError, match=f"HTTP {status}") as caught:
                send(there.url)
            waits.append(caught.value.after_s)
    assert waits[0] == 13
    assert 60 < waits[1] <= 90
    assert waits[2:] == [0, 0]


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 413, 500, 501])
def test_http_answers_that_are_final(status):
    """All others refuse the whole message, which must not be sent again; redirects are not followed."""
    with http_collector() as there:
        there.status = status
        with pytest.raises(RefusedError, match=f"HTTP {status}") as caught:
            send(there.url)
        assert (caught.value.count, there.tries) == (7, 1)


@pytest.mark.parametrize(("code", "is_again"), CODES.items(), ids=lambda value: getattr(value, "name", None))
def test_grpc_answers(code, is_again):
    """Which codes may be sent again is the table of the specification."""
    with grpc_collector() as there:
        there.status = code
        with pytest.raises(TryLaterError if is_again else RefusedError, match=code.name) as caught:
            send(there.url)
        assert is_again or caught.value.count == 7


@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE])
def test_grpc_throttling(code):
    """With RetryInfo a collector that is exhausted says that it recovers, and when."""
    with grpc_collector() as there:
        there.status = code, 1.5
        with pytest.raises(TryLaterError) as caught:
            send(there.url)
        assert caught.value.after_s == 1.5


@pytest.mark.parametrize("receiver", RECEIVERS.values(), ids=RECEIVERS)
def test_partial_success_counts_what_was_rejected(receiver, caplog):
    """Rejected spans are told as refused, with the collector's words; a mere warning is logged, and all is taken."""
    with receiver() as there:
        there.rejects, there.why = 3, "too old"
        with pytest.raises(RefusedError, match="too old") as caught:
            send(there.url)
        assert caught.value.count == 3
        there.rejects, there.why = 0, "send less"
        send(there.url)
        assert "send less" in caplog.text


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_there(scheme):
    """A connection that is refused is no reason to drop anything."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    with pytest.raises(TryLaterError):
        send(f"{scheme}://127.0.0.1:{port}")


def test_what_logs_in_is_told_to_nobody():
    """A password or a key in the URL is used, and is in no error, whether the collector refuses or is not there."""
    with http_collector() as there:
        secret = there.url.replace("http://", "http://me:hunter2@") + "/v1/traces?key=hunter3"
        there.answers = [400]
        with pytest.raises(RefusedError) as refused:
            send(secret)
        assert there.headers["Authorization"].startswith("Basic ")
        assert there.paths == ["/v1/traces?key=hunter3"]
    with pytest.raises(TryLaterError) as away:
        send(secret)
    for caught in (refused, away):
        assert "hunter" not in "".join(traceback.format_exception(caught.value))


def test_an_answer_that_never_comes_is_a_failure(monkeypatch):
    """OTEL_EXPORTER_OTLP_TIMEOUT ends the waiting for a collector that takes a message and says nothing."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TryLaterError, match="Timeout"):
        send(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_a_page_instead_of_an_answer_is_a_success():
    """Some receivers answer 200 with JSON or text: what they have taken is not sent again."""
    with http_collector() as there:
        there.take_spans = lambda request: type("Text", (), {"SerializeToString": lambda self: b"<html>\xff fine</html>"})()
        send(there.url)
        assert there.tries == 1


def test_grpc_with_tls_and_with_a_certificate_of_our_own(tmp_path, monkeypatch):
    """grpcs:// believes the authority in OTEL_EXPORTER_OTLP_CERTIFICATE and shows the client's certificate; without either it fails."""
    files = make_certificates(tmp_path)
    read = {name: (tmp_path / name).read_bytes() for name in ("server.key", "server.pem", "ca.pem")}
    credentials = grpc.ssl_server_credentials([(read["server.key"], read["server.pem"])], read["ca.pem"], require_client_auth=True)
    with grpc_collector(credentials=credentials) as there:
        assert there.url.startswith("grpcs://")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "10")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", files("ca.pem"))
        with pytest.raises(TryLaterError):
            send(there.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", files("client.pem"))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", files("client.key"))
        send(there.url)
        assert there.tries == 1
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", files("other.pem"))
        with pytest.raises(TryLaterError):
            send(there.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", files("missing.pem"))
        with pytest.raises(ValueError, match=r"missing\.pem"):
            send(there.url)


@pytest.mark.parametrize(("compression", "told"), [("gzip", "gzip"), ("deflate", "deflate"), ("none", None), ("zip", None)])
def test_http_compression(compression, told, monkeypatch):
    """The body is packed as the variable says, the field says so, and the receiver unpacks what was sent."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    with http_collector() as there:
        send(there.url)
        assert there.headers.get("Content-Encoding") == told
        assert [request.SerializeToString() for request in there.requests] == [MESSAGE]
