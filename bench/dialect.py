"""What clients may ask of a vLLM server, as numbers of tokens, and how vLLM words a refusal."""

from dataclasses import dataclass
from typing import Any

import orjson

MODEL = "perjoule/simulated-8b"
MAX_MODEL_LEN = 131_072

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"

_PROMPT = {CHAT: "messages", COMPLETIONS: "prompt", EMBEDDINGS: "input", RESPONSES: "input", MESSAGES: "messages"}
_LIMITS = {CHAT: ("max_completion_tokens", "max_tokens"), COMPLETIONS: ("max_tokens",), EMBEDDINGS: (),
           RESPONSES: ("max_output_tokens",), MESSAGES: ("max_tokens",)}
_DEFAULTS = {COMPLETIONS: 16, EMBEDDINGS: 0}  # elsewhere an answer may fill the context


class RefusedError(Exception):
    """A request that vLLM would not run: its HTTP status, its error type and the parameter at fault."""

    def __init__(self, message: str, *, param: str | None = None, status: int = 400,
                 kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.param, self.status, self.kind = param, status, kind

    def body(self, path: str) -> bytes:
        """The error as JSON, in the shape of the endpoint that was called."""
        if path == MESSAGES:
            return orjson.dumps({"type": "error", "error": {"type": self.kind, "message": str(self)}})
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.status}
        return orjson.dumps({"error": error})


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: a number of tokens for each prompt, and how it wants to be answered."""

    prompts: tuple[int, ...]
    n: int
    max_tokens: int
    ignore_eos: bool
    stream: bool
    include_usage: bool
    continuous_usage: bool
    base64: bool


def read(path: str, body: bytes) -> Asked:
    """What the body of a POST to `path` asks for. Raises RefusedError."""
    fields = read_object(body)
    options = fields.get("stream_options")
    stream = fields.get("stream") is True
    if options is not None and not stream:
        raise RefusedError("Stream options can only be defined when `stream=True`.", param="stream_options")
    options = options or {}
    prompts = count_prompts(path, fields)
    n = _at_least_one(fields, "n") if path in (CHAT, COMPLETIONS) else 1
    room = MAX_MODEL_LEN - max(prompts)
    limits = [_at_least_one(fields, name) for name in _LIMITS[path] if fields.get(name) is not None]
    max_tokens = limits[0] if limits else min(room, _DEFAULTS.get(path, room))
    if room < 0 or max_tokens > room:
        raise RefusedError(f"This model's maximum context length is {MAX_MODEL_LEN} tokens. However, you requested "
                           f"{max_tokens} output tokens and your prompt contains {max(prompts)} input tokens.",
                           param="input_tokens")
    include_usage = options.get("include_usage") is True
    return Asked(prompts, n, max_tokens, fields.get("ignore_eos") is True, stream, include_usage,
                 include_usage and options.get("continuous_usage_stats") is True,
                 fields.get("encoding_format") == "base64")


def read_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object that names our model, an adapter of it (`MODEL:NAME`, any) or none. Raises RefusedError."""
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(f"JSON decode error: {error}") from error
    if not isinstance(fields, dict):
        raise RefusedError(f"Input should be a valid dictionary, got {type(fields).__name__}")
    if fields.get("model") is not None and str(fields["model"]).partition(":")[0] != MODEL:
        raise RefusedError(f"The model `{fields['model']}` does not exist. Valid aliases: {MODEL}.", param="model",
                           status=404, kind="NotFoundError")
    return fields


def count_prompts(path: str, fields: dict[str, Any]) -> tuple[int, ...]:
    """The number of tokens of each prompt in a body: exact for token ids, about a quarter of the characters for text.
    Raises RefusedError."""
    name = _PROMPT[path]
    prompt = fields.get(name)
    if not isinstance(prompt, str | list) or not prompt:
        raise RefusedError(f"{name}: got {prompt!r}, expected text or a list that is not empty", param=name)
    if path in (CHAT, RESPONSES, MESSAGES):
        messages = 1 if isinstance(prompt, str) else len(prompt)
        return (4 * messages + _tokens(_characters(prompt) + _characters(fields.get("system"))),)
    if isinstance(prompt, str) or isinstance(prompt[0], int):
        prompt = [prompt]
    return tuple(_tokens(len(one)) if isinstance(one, str) else len(one) for one in prompt)


def _tokens(characters: int) -> int:
    return max(1, -(-characters // 4))


def _characters(content: Any) -> int:
    """How much text there is in a message, in any of the nestings that the dialects allow."""
    if isinstance(content, str):
        return len(content)
    if isinstance(content, list):
        return sum(map(_characters, content))
    return _characters(content.get("text")) + _characters(content.get("content")) if isinstance(content, dict) else 0


def _at_least_one(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    if value is None:
        return 1
    if type(value) is not int or value < 1:
        raise RefusedError(f"{name} must be at least 1, got {value}.", param=name)
    return value
