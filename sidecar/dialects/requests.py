"""What a request body asks for, JSON or a form, and asking the engine for usage by splicing a few bytes into it."""

import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

from perjoule.sidecar.dialects.comfyui import work_of
from perjoule.sidecar.dialects.endpoints import Dialect, Endpoint
from perjoule.sidecar.dialects.forms import Form, read_form
from perjoule.sidecar.dialects.works import USUAL_BYTES_PER_S, Product, audio_tokens, product_asked, wav_seconds, work_tokens
from perjoule.sidecar.record import Unit, UnitSource

_MOST_NAME = 256  # characters: a model's name becomes a label of metrics, the name of a span, a key of the ledger
_NOTHING: dict[str, Any] = {}
_SEMICOLON = 0x3B
_LIMITS: Final[tuple[str, ...]] = ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens", "n_predict")
_HOLDERS: Final[tuple[str, ...]] = ("", "parameters", "sampling_params")  # of limits
_IDS: Final[tuple[str, ...]] = ("prompt", "input", "input_ids", "token_ids")
_PROMPTS = frozenset({"messages", "prompt", "input", "inputs", "text", "query", "documents", "instructions", "system", "tools"})
_TEXT = frozenset({"content", "text", "output", "arguments", "function", "tool_calls", "reasoning", "thinking", "input",
                   "name", "description", "parameters", "input_schema", "refusal"})

_STREAM_OPTIONS = re.compile(rb'"stream_options"\s*:\s*(null|\{[^{}]*\})')
_INCLUDE_USAGE = re.compile(rb'("include_usage"\s*:\s*)(?:false|null)')


@dataclass(slots=True)
class Asked:
    """What one request body says, None or False where it does not say it.

    `choices` is how many sequences the engine will generate (n times the prompts); `input_tokens` is exact, known only
    where the prompt is token ids; `input_bytes` is the text a tokenizer will see, an estimate; `can_ask` says that
    `ask_for_usage` may be used and its effect on the stream hidden again. `decodes` is false of what the engine computes like a
    prompt, all of it, and then answers: embeddings, images; `makes` is what comes of it that is not tokens, and `work_tokens` is how much
    work that is.
    """

    model: str | None = None
    streamed: bool = False
    choices: int = 1
    usage_asked: bool = False
    can_ask: bool = False
    max_output_tokens: int | None = None
    input_tokens: int | None = None
    input_bytes: int = 0
    decodes: bool = True
    work_tokens: int | None = None
    makes: Product | None = None


def read_request(endpoint: Endpoint, body: bytes) -> Asked:
    """What `body` asks of `endpoint`. Never raises: what cannot be read is unknown, and the engine will answer it."""
    if endpoint.unit is not None:
        form = read_form(body)
        return _product_request(endpoint, (_parsed(body) if form is None else {**form.fields}) or {}, body, form)
    asks = _parsed(body)
    if asks is None:
        return Asked(decodes=endpoint.decodes)
    options, model = asks.get("stream_options"), asks.get("model")
    streamed = asks.get("stream") is True or endpoint.name == "generate_stream"
    choices = _samples(asks) * _prompts(endpoint, asks) if endpoint.decodes else 1
    return Asked(
        model=model if isinstance(model, str) and len(model) <= _MOST_NAME else None,
        streamed=streamed,
        choices=choices,
        usage_asked=isinstance(options, dict) and options.get("include_usage") is True,
        can_ask=endpoint.asks_usage and streamed and choices == 1 and _may_ask(options),
        max_output_tokens=_max_output_tokens(asks),
        input_tokens=_token_ids(asks),
        input_bytes=_text_bytes(asks),
        decodes=endpoint.decodes,
    )


def _product_request(endpoint: Endpoint, asks: dict[str, Any], body: bytes, form: Form | None) -> Asked:
    """The same where what is asked for is not tokens; texts of a form stand for what JSON has."""
    assert endpoint.unit is not None
    if endpoint.dialect is Dialect.COMFYUI:
        graph = work_of(asks)
        return Asked(model=graph.model, decodes=False, work_tokens=graph.work_tokens, makes=graph.makes)
    makes, model = product_asked(endpoint.unit, asks, is_sdapi=endpoint.dialect is Dialect.SDAPI), asks.get("model")
    work = work_tokens(makes)
    if endpoint.unit is Unit.AUDIO_SECOND and form is not None and form.file is not None:
        if seconds := wav_seconds(body, *form.file):
            makes.units, makes.units_source = seconds, UnitSource.ASKED
        work = audio_tokens(seconds or (form.file[1] - form.file[0]) / USUAL_BYTES_PER_S)
    return Asked(
        model=model if isinstance(model, str) and len(model) <= _MOST_NAME else None,
        streamed=asks.get("stream") in (True, "true", "True", "1"),
        input_bytes=_text_bytes(asks),
        decodes=endpoint.decodes, work_tokens=work, makes=makes)


def ask_for_usage(body: bytes) -> bytes:
    """`body` with `stream_options.include_usage` true and every other byte as it was.

    Returned unchanged where the result would not read back as exactly the original plus that one setting.
    """
    asks = _parsed(body)
    if not asks:
        return body
    if "stream_options" not in asks:  # a new first member needs no reading back
        return body.replace(b"{", b'{"stream_options":{"include_usage":true},', 1)
    options = asks["stream_options"] or {}
    if not isinstance(options, dict) or options.get("include_usage"):
        return body
    asking = _STREAM_OPTIONS.sub(lambda match: match[0].removesuffix(match[1]) + _asking(match[1]), body, count=1)
    asks["stream_options"] = {**options, "include_usage": True}
    try:
        return asking if _parsed(asking) == asks else body
    except RecursionError:  # nested deeper than Python compares
        return body


def _parsed(body: bytes) -> dict[str, Any] | None:
    """The JSON object in `body` without the content of `data:` URLs (a 60 MB image takes 0.1 s to parse), else None."""
    pieces, start = [], 0
    while _SEMICOLON in body and (at := body.find(b";base64,", start)) >= 0:  # most have none, and one byte is found at once
        end = body.find(b'"', at)
        if end < 0 or body.find(b"\\", at, end) >= 0:  # text about such URLs: read the rest as it is
            break
        pieces.append(body[start:at])
        start = end
    try:
        asks = orjson.loads(b"".join((*pieces, body[start:])) if pieces else body)
    except orjson.JSONDecodeError:
        return None
    return asks if isinstance(asks, dict) else None


def _asking(options: bytes) -> bytes:
    """The text of a `stream_options` value with `include_usage` true in it."""
    if options == b"null":
        return b'{"include_usage":true}'
    asking, replaced = _INCLUDE_USAGE.subn(rb"\1true", options, count=1)
    if replaced:
        return asking
    separator = b"," if options[1:-1].strip() else b""
    return b'{"include_usage":true' + separator + options[1:]


def _may_ask(options: Any) -> bool:
    """Whether usage may be asked for beside these `stream_options` without the client's stream changing.

    Who sends `continuous_usage_stats` without `include_usage` gets no usage at all; asking would turn both on.
    """
    if options is None:
        return True
    return (isinstance(options, dict) and options.get("include_usage") in (None, False)
            and options.get("continuous_usage_stats") in (None, False))


def _prompts(endpoint: Endpoint, asks: dict[str, Any]) -> int:
    """How many prompts one body holds: a completions request may hold a list of them, and SGLang's own."""
    prompt = asks.get("prompt") if endpoint.dialect is Dialect.COMPLETIONS else None
    if endpoint.dialect is Dialect.GENERATE:
        prompt = asks.get("text") or asks.get("input_ids")
    if endpoint.name == "chat.completions.batch":
        prompt = asks.get("messages")
    is_many = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int | dict)
    return len(prompt) if is_many and prompt else 1


def _samples(asks: dict[str, Any]) -> int:
    """How many answers to each prompt are generated: all of TGI's `best_of`, though it tells one."""
    return (_positive(asks, "n") or _positive(_inner(asks, "sampling_params"), "n")
            or _positive(_inner(asks, "parameters"), "best_of") or 1)


def _inner(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    return value if isinstance(value, dict) else _NOTHING


def _positive(holder: dict[str, Any], name: str) -> int | None:
    value = holder.get(name)
    return value if type(value) is int and value > 0 else None


def _max_output_tokens(asks: dict[str, Any]) -> int | None:
    """The client's limit, at the top or where TGI (`parameters`) and SGLang (`sampling_params`) have it."""
    for place in _HOLDERS:
        holder = _inner(asks, place) if place else asks
        for name in _LIMITS:
            if name in holder:
                return _positive(holder, name)
    return None


def _token_ids(asks: dict[str, Any]) -> int | None:
    """How many token ids the prompt is, None where any of it is text."""
    for name in _IDS:
        prompt = asks.get(name)
        if isinstance(prompt, list) and prompt:
            rows = prompt if isinstance(prompt[0], list) else [prompt]
            if all(isinstance(row, list) and row and all(type(token) is int for token in row) for row in rows):
                return sum(map(len, rows))
    return None


def _text_bytes(asks: dict[str, Any]) -> int:
    """UTF-8 bytes of the text in its prompts, of any shape; images, audio and files have none."""
    count, unread = 0, [value for name, value in asks.items() if name in _PROMPTS]
    while unread:  # not recursive: a body may be nested deeper than Python's stack
        value = unread.pop()
        if isinstance(value, str):
            count += len(value) if value.isascii() else len(value.encode())
        elif isinstance(value, list):
            unread += value
        elif isinstance(value, dict):
            for name, inner in value.items():
                if name in _TEXT:
                    unread.append(inner)
    return count
