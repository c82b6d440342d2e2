"""Which requests are inference, and which only look like it."""

import pytest

from perjoule.sidecar.dialects.endpoints import OPERATIONS, REALTIME, Dialect, endpoint_of, socket_endpoint_of


@pytest.mark.parametrize(("target", "name", "operation", "dialect"), [
    ("/v1/chat/completions", "chat.completions", "chat", Dialect.CHAT),
    ("/v1/completions", "completions", "text_completion", Dialect.COMPLETIONS),
    ("/v1/responses", "responses", "chat", Dialect.RESPONSES),
    ("/v1/messages", "messages", "chat", Dialect.MESSAGES),
    ("/v1/embeddings", "embeddings", "embeddings", Dialect.EMBEDDINGS),
    ("/generate", "generate", "text_completion", Dialect.GENERATE),
    ("/generate_stream", "generate_stream", "text_completion", Dialect.GENERATE),
    ("/", "generate", "text_completion", Dialect.GENERATE),
    ("/v1/images/generations", "images.generations", "generate_content", Dialect.IMAGES),
    ("/v1/audio/transcriptions", "audio.transcriptions", "generate_content", Dialect.AUDIO),
    ("/v2/rerank", "rerank", "rerank", Dialect.OTHER),
    ("/completion", "completion", "text_completion", Dialect.GENERATE),
    ("/chat/completions", "chat.completions", "chat", Dialect.CHAT),
])
def test_an_inference_route_is_named(target, name, operation, dialect):
    """Each route of vLLM, TGI, SGLang and llama.cpp that computes has its name, its OpenTelemetry operation and its dialect."""
    endpoint = endpoint_of("POST", target)
    assert endpoint is not None
    assert (endpoint.name, endpoint.operation, endpoint.dialect) == (name, operation, dialect)


@pytest.mark.parametrize("target", ["/v1/chat/completions/", "/v1/chat/completions?a=b", "/v1/chat/completions/?a=/x?"])
def test_a_query_and_a_trailing_slash_do_not_hide_a_route(target):
    """What routers tolerate is metered too."""
    assert endpoint_of("POST", target) == endpoint_of("POST", "/v1/chat/completions")


@pytest.mark.parametrize(("method", "target"), [
    ("GET", "/v1/chat/completions"), ("OPTIONS", "/v1/chat/completions"), ("post", "/v1/completions"),
    ("POST", "/v1/chat/completions/render"), ("POST", "/v1/messages/count_tokens"), ("POST", "/tokenize"),
    ("POST", "/v1/models"), ("POST", "/health"), ("POST", "/prefix/v1/completions"), ("POST", "/v1/completions//"),
    ("POST", "/v1/videos"), ("POST", "*"),
])
def test_everything_else_is_relayed_without_metering(method, target):
    """Other methods, routes that only count or render, prefixes and asynchronous jobs are nobody's energy."""
    assert endpoint_of(method, target) is None


def test_only_openai_streams_have_to_be_asked_for_usage():
    """Every other dialect reports usage by itself, and would refuse or ignore stream_options."""
    asking = {path for path in ("/v1/chat/completions", "/v1/chat/completions/batch", "/v1/completions",
                                "/v1/responses", "/v1/messages", "/generate", "/v1/embeddings", "/invocations")
              if (endpoint := endpoint_of("POST", path)) is not None and endpoint.asks_usage}
    assert asking == {"/v1/chat/completions", "/v1/completions"}


def test_only_a_realtime_session_is_inference_over_a_websocket():
    """A GET without an upgrade is not; and its operation has a name for spans."""
    assert socket_endpoint_of("GET", "/v1/realtime/?model=m") is REALTIME
    assert socket_endpoint_of("GET", "/v1/chat/completions") is None
    assert endpoint_of("GET", "/v1/realtime") is None
    assert OPERATIONS[REALTIME.name] == "generate_content"
