"""Which paths are inference, and in which dialect their bodies speak.

The table is the union of the routes of vLLM 0.33, TGI 3.3 and SGLang 0.5 that make a GPU compute. Asynchronous jobs
(`POST /v1/videos`) are not in it: their work outlives the request, so an energy figure for the request would be untrue.
"""

from dataclasses import dataclass
from enum import StrEnum


class Dialect(StrEnum):
    """Whose request and response shapes an endpoint has."""

    CHAT = "chat"  # OpenAI chat completions
    COMPLETIONS = "completions"  # OpenAI completions
    RESPONSES = "responses"  # OpenAI responses
    MESSAGES = "messages"  # Anthropic messages
    EMBEDDINGS = "embeddings"
    GENERATE = "generate"  # TGI and SGLang native
    IMAGES = "images"
    AUDIO = "audio"
    REALTIME = "realtime"  # events of a WebSocket, OpenAI's and vLLM's
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One inference route; `operation` is OpenTelemetry's `gen_ai.operation.name` for it.

    `asks_usage` says that streams of this route report usage only to those who send `stream_options.include_usage`.
    """

    name: str
    operation: str
    dialect: Dialect
    asks_usage: bool = False


_CHAT = Endpoint("chat.completions", "chat", Dialect.CHAT, asks_usage=True)
_COMPLETIONS = Endpoint("completions", "text_completion", Dialect.COMPLETIONS, asks_usage=True)
_EMBEDDINGS = Endpoint("embeddings", "embeddings", Dialect.EMBEDDINGS)
_GENERATE = Endpoint("generate", "text_completion", Dialect.GENERATE)
_RERANK = Endpoint("rerank", "rerank", Dialect.OTHER)
_SCORE = Endpoint("score", "score", Dialect.OTHER)
_CLASSIFY = Endpoint("classify", "classify", Dialect.OTHER)
_INVOCATIONS = Endpoint("invocations", "generate_content", Dialect.OTHER)

_ENDPOINTS = {
    "/v1/chat/completions": _CHAT,
    "/v1/chat/completions/batch": Endpoint("chat.completions.batch", "chat", Dialect.CHAT),
    "/v1/completions": _COMPLETIONS,
    "/v1/responses": Endpoint("responses", "chat", Dialect.RESPONSES),
    "/v1/messages": Endpoint("messages", "chat", Dialect.MESSAGES),
    "/cohere/v2/chat": Endpoint("cohere.chat", "chat", Dialect.OTHER),
    "/inference/v1/generate": Endpoint("tokens.generate", "text_completion", Dialect.OTHER),
    "/v1/decisions": Endpoint("decisions", "generate_content", Dialect.OTHER),
    "/v1/systemone": Endpoint("systemone", "generate_content", Dialect.OTHER),
    "/generative_scoring": Endpoint("generative_scoring", "score", Dialect.OTHER),
    "/generate": _GENERATE,
    "/generate_stream": Endpoint("generate_stream", "text_completion", Dialect.GENERATE),
    "": _GENERATE,  # POST / is TGI's older name of /generate
    "/invocations": _INVOCATIONS,
    "/vertex": _INVOCATIONS,
    "/v1/embeddings": _EMBEDDINGS,
    "/v2/embed": _EMBEDDINGS,
    "/pooling": Endpoint("pooling", "embeddings", Dialect.EMBEDDINGS),
    "/classify": _CLASSIFY,
    "/v1/classify": _CLASSIFY,
    "/score": _SCORE,
    "/v1/score": _SCORE,
    "/rerank": _RERANK,
    "/v1/rerank": _RERANK,
    "/v2/rerank": _RERANK,
    "/v1/audio/speech": Endpoint("audio.speech", "generate_content", Dialect.AUDIO),
    "/v1/audio/transcriptions": Endpoint("audio.transcriptions", "generate_content", Dialect.AUDIO),
    "/v1/audio/translations": Endpoint("audio.translations", "generate_content", Dialect.AUDIO),
    "/v1/images/generations": Endpoint("images.generations", "generate_content", Dialect.IMAGES),
    "/v1/images/edits": Endpoint("images.edits", "generate_content", Dialect.IMAGES),
    "/v1/videos/sync": Endpoint("videos.sync", "generate_content", Dialect.IMAGES),
}

PATHS = frozenset(_ENDPOINTS)
"""Every path that infers, `""` for `/`."""

REALTIME = Endpoint("realtime", "generate_content", Dialect.REALTIME)
"""One response, or one transcription, in a WebSocket session."""

OPERATIONS = {endpoint.name: endpoint.operation for endpoint in (*_ENDPOINTS.values(), REALTIME)}
"""`gen_ai.operation.name` by the endpoint's name."""


def endpoint_of(method: str, target: str) -> Endpoint | None:
    """The inference route that a request line names, None where a request is relayed without metering.

    `target` is the request target as received, query included. Only POST infers; a trailing slash is tolerated.
    """
    if method != "POST":
        return None
    return _ENDPOINTS.get(target.partition("?")[0].removesuffix("/"))


def socket_endpoint_of(_method: str, target: str) -> Endpoint | None:
    """The same for a WebSocket."""
    return REALTIME if target.partition("?")[0].removesuffix("/") == "/v1/realtime" else None
