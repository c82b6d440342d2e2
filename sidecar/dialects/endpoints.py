"""Which paths are inference, and in which dialect their bodies speak.

The table is the union of the routes of vLLM 0.33, vLLM-Omni, TGI 3.3, SGLang 0.5 with its diffusion, llama.cpp and A1111 that make a
GPU compute.
What creates a job (`POST /v1/videos`) has a table of its own: its work outlives the request.
"""

from dataclasses import dataclass
from enum import StrEnum

from perjoule.sidecar.record import Unit


class Dialect(StrEnum):
    """Whose request and response shapes an endpoint has."""

    CHAT = "chat"  # OpenAI chat completions
    COMPLETIONS = "completions"  # OpenAI completions
    RESPONSES = "responses"  # OpenAI responses
    MESSAGES = "messages"  # Anthropic messages
    EMBEDDINGS = "embeddings"
    GENERATE = "generate"  # native of TGI, SGLang and llama.cpp
    IMAGES = "images"
    SDAPI = "sdapi"  # images, as AUTOMATIC1111 has them
    VIDEOS = "videos"
    COMFYUI = "comfyui"
    AUDIO = "audio"
    REALTIME = "realtime"  # events of a WebSocket, OpenAI's and vLLM's
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One inference route; `operation` is OpenTelemetry's `gen_ai.operation.name` for it.

    `asks_usage` says that streams of this route report usage only to those who send `stream_options.include_usage`. `decodes` is false
    where all is computed like a prompt and then answered; `unit` is what such an answer is counted in, where that is not tokens.
    """

    name: str
    operation: str
    dialect: Dialect
    asks_usage: bool = False
    decodes: bool = True
    unit: Unit | None = None


def _all_prompt(name: str, operation: str, dialect: Dialect = Dialect.OTHER, unit: Unit | None = None) -> Endpoint:
    return Endpoint(name, operation, dialect, decodes=False, unit=unit)


_CHAT = Endpoint("chat.completions", "chat", Dialect.CHAT, asks_usage=True)
_COMPLETIONS = Endpoint("completions", "text_completion", Dialect.COMPLETIONS, asks_usage=True)
_EMBEDDINGS = _all_prompt("embeddings", "embeddings", Dialect.EMBEDDINGS)
_GENERATE = Endpoint("generate", "text_completion", Dialect.GENERATE)
_RERANK = _all_prompt("rerank", "rerank")
_SCORE = _all_prompt("score", "score")
_CLASSIFY = _all_prompt("classify", "classify")
_COMPLETION = Endpoint("completion", "text_completion", Dialect.GENERATE)  # llama.cpp's own
_RESPONSES = Endpoint("responses", "chat", Dialect.RESPONSES)
_INVOCATIONS = Endpoint("invocations", "generate_content", Dialect.OTHER)


def _audio(name: str) -> Endpoint:
    return Endpoint(name, "generate_content", Dialect.AUDIO, unit=Unit.AUDIO_SECOND)


def _images(name: str, dialect: Dialect = Dialect.IMAGES) -> Endpoint:
    return _all_prompt(name, "generate_content", dialect, Unit.IMAGE)


def _videos(name: str) -> Endpoint:
    return _all_prompt(name, "generate_content", Dialect.VIDEOS, Unit.VIDEO_SECOND)


_ENDPOINTS = {
    "/v1/chat/completions": _CHAT,
    "/v1/chat/completions/batch": Endpoint("chat.completions.batch", "chat", Dialect.CHAT),
    "/v1/completions": _COMPLETIONS,
    "/v1/responses": _RESPONSES,
    "/v1/messages": Endpoint("messages", "chat", Dialect.MESSAGES),
    "/cohere/v2/chat": Endpoint("cohere.chat", "chat", Dialect.OTHER),
    "/inference/v1/generate": Endpoint("tokens.generate", "text_completion", Dialect.OTHER),
    "/v1/decisions": Endpoint("decisions", "generate_content", Dialect.OTHER),
    "/v1/systemone": Endpoint("systemone", "generate_content", Dialect.OTHER),
    "/generative_scoring": _all_prompt("generative_scoring", "score"),
    "/generate": _GENERATE,
    "/generate_stream": Endpoint("generate_stream", "text_completion", Dialect.GENERATE),
    "": _GENERATE,  # POST / is TGI's older name of /generate
    "/completion": _COMPLETION,
    "/completions": _COMPLETION,
    "/infill": Endpoint("infill", "text_completion", Dialect.GENERATE),
    "/chat/completions": _CHAT,
    "/responses": _RESPONSES,
    "/embedding": _EMBEDDINGS,
    "/embeddings": _EMBEDDINGS,
    "/reranking": _RERANK,
    "/v1/reranking": _RERANK,
    "/invocations": _INVOCATIONS,
    "/vertex": _INVOCATIONS,
    "/v1/embeddings": _EMBEDDINGS,
    "/v2/embed": _EMBEDDINGS,
    "/pooling": _all_prompt("pooling", "embeddings", Dialect.EMBEDDINGS),
    "/classify": _CLASSIFY,
    "/v1/classify": _CLASSIFY,
    "/score": _SCORE,
    "/v1/score": _SCORE,
    "/rerank": _RERANK,
    "/v1/rerank": _RERANK,
    "/v2/rerank": _RERANK,
    "/v1/audio/speech": _audio("audio.speech"),
    "/v1/audio/transcriptions": _audio("audio.transcriptions"),
    "/audio/transcriptions": _audio("audio.transcriptions"),
    "/v1/audio/translations": _audio("audio.translations"),
    "/v1/images/generations": _images("images.generations"),
    "/v1/images/edits": _images("images.edits"),
    "/v1/images/variations": _images("images.variations"),
    "/sdapi/v1/txt2img": _images("txt2img", Dialect.SDAPI),
    "/sdapi/v1/img2img": _images("img2img", Dialect.SDAPI),
    "/v1/videos/sync": _videos("videos.sync"),
}

_COMFYUI = _all_prompt("comfyui.prompt", "generate_content", Dialect.COMFYUI, Unit.IMAGE)  # or video: its graph says

_JOBS = {
    "/v1/videos": _videos("videos"),
    "/prompt": _COMFYUI,
    "/api/prompt": _COMFYUI,
}

PATHS = frozenset(_ENDPOINTS)
"""Every path that infers, `""` for `/`."""

REALTIME = Endpoint("realtime", "generate_content", Dialect.REALTIME)
"""One response, or one transcription, in a WebSocket session."""

OPERATIONS = {endpoint.name: endpoint.operation for endpoint in (*_ENDPOINTS.values(), *_JOBS.values(), REALTIME)}
"""`gen_ai.operation.name` by the endpoint's name."""


def endpoint_of(method: str, target: str) -> Endpoint | None:
    """The inference route that a request line names, None where a request is relayed without metering.

    `target` is the request target as received, query included. Only POST infers; a trailing slash is tolerated.
    """
    if method != "POST":
        return None
    found = _ENDPOINTS.get(target)  # mostly without either
    return found if found is not None else _ENDPOINTS.get(target.partition("?")[0].removesuffix("/"))


def job_endpoint_of(method: str, target: str) -> Endpoint | None:
    """The same for what creates a job: it is answered at once, and computed afterwards."""
    return _JOBS.get(target.partition("?")[0].removesuffix("/")) if method == "POST" else None


def socket_endpoint_of(_method: str, target: str) -> Endpoint | None:
    """The same for a WebSocket."""
    return REALTIME if target.partition("?")[0].removesuffix("/") == "/v1/realtime" else None
