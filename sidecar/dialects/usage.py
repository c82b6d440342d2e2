"""The engine's own token counts, in the shape of every dialect.

Shapes: OpenAI chat, completions and embeddings (`prompt_tokens`), OpenAI responses, realtime and audio (`input_tokens`),
Anthropic messages, Cohere v2, TGI `details`, SGLang `meta_info`, llama.cpp `timings`, and beside them vLLM's `metrics`
(--enable-per-request-metrics). TGI tells it in the head of an answer, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Final

from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

_Names = tuple[str, ...]
_MOST_TOKENS = 2**40  # beyond any request there will be, and millions of such counts still add up in 64 bits
_MOST_QUEUE_NS = 2**62
_MOST_DIGITS = 20
_NOTHING: dict[str, Any] = {}
_OUTER: Final[_Names] = ("response", "message", "delta")
_INPUT: Final[_Names] = ("prompt_tokens", "input_tokens", "input_length")
_OUTPUT: Final[_Names] = ("completion_tokens", "output_tokens", "generated_tokens")
_CACHED: Final[_Names] = ("cached_tokens", "cache_read_input_tokens")
_INPUT_DETAILS: Final[_Names] = ("prompt_tokens_details", "input_tokens_details", "input_token_details")  # realtime has the singular
_OUTPUT_DETAILS: Final[_Names] = ("completion_tokens_details", "output_tokens_details", "output_token_details")


@dataclass(slots=True)
class Usage:
    """Token counts of one request, None where the engine did not say; an explicit 0 is a count.

    `input_tokens` includes `cached_tokens`, `output_tokens` includes `reasoning_tokens`; `queue_ns` is the time the
    request waited inside the engine.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    queue_ns: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the engine said nothing."""
        return (self.input_tokens is None and self.output_tokens is None and self.cached_tokens is None and self.reasoning_tokens is None
                and self.queue_ns is None)

    def updated(self, newer: "Usage | None") -> "Usage":
        """These counts, with those that `newer` knows in their place."""
        if newer is None:
            return self
        return Usage(*(getattr(self, f.name) if getattr(newer, f.name) is None else getattr(newer, f.name)
                       for f in fields(Usage)))


def usage_of(payload: Any) -> Usage | None:
    """The counts in one parsed response body or stream frame, None where it holds none. Never raises."""
    if not isinstance(payload, dict):
        return None
    counts = _counts(payload)
    usage = Usage(
        input_tokens=_input_tokens(counts),
        output_tokens=None if _is_of_one_choice(payload) else _first_of(counts, _OUTPUT),
        cached_tokens=_cached_tokens(counts),
        reasoning_tokens=_tokens(_details(counts, _OUTPUT_DETAILS) or counts, "reasoning_tokens"),  # SGLang has no details
        queue_ns=_queue_ns(payload),
    )
    return None if usage.is_empty else usage


NO_USAGE = Usage()


def _counts(payload: dict[str, Any]) -> dict[str, Any]:
    """The object in which this payload's dialect puts its counts; empty where there is none."""
    usage = payload.get("usage")
    for outer in _OUTER:
        if not isinstance(usage, dict):
            usage = _inner(payload, outer).get("usage")
    if isinstance(usage, dict):
        deeper = _inner(usage, "tokens")  # where Cohere's chat has them
        return usage | deeper if deeper else usage
    return (_inner(payload, "details")  # TGI
            or _inner(payload, "meta_info")  # SGLang
            or _inner(_inner(payload, "meta"), "billed_units")  # Cohere's embeddings
            or _timed(payload))


def usage_in_head(headers: Iterable[tuple[bytes, bytes]]) -> Usage | None:
    """What TGI tells in the head of an answer that is not streamed, None where it tells nothing. Never raises."""
    told = {name.lower(): value for name, value in headers}

    def number(name: bytes, most: int) -> int | None:
        value = told.get(name, b"").strip()
        return int(value) if len(value) <= _MOST_DIGITS and value.isdigit() and int(value) <= most else None

    waited_ms = number(b"x-queue-time", _MOST_QUEUE_NS // NS_PER_MS)
    usage = Usage(number(b"x-prompt-tokens", _MOST_TOKENS), number(b"x-generated-tokens", _MOST_TOKENS),
                  queue_ns=None if waited_ms is None else waited_ms * NS_PER_MS)
    return None if usage.is_empty else usage


def _timed(payload: dict[str, Any]) -> dict[str, Any]:
    """llama.cpp's `timings`, which the last frame of its streams has though nobody asked for usage."""
    timings = _inner(payload, "timings")
    cached, computed, output = (_tokens(timings, name) for name in ("cache_n", "prompt_n", "predicted_n"))
    if cached is None or computed is None or output is None:
        return {}
    return {"prompt_tokens": cached + computed, "cached_tokens": cached, "completion_tokens": output}


def _is_of_one_choice(payload: dict[str, Any]) -> bool:
    """Whether this is llama.cpp's answer of several choices, whose usage counts the tokens of one."""
    choices = payload.get("choices")
    return "timings" in payload and isinstance(choices, list) and len(choices) > 1


def _inner(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    return value if isinstance(value, dict) else _NOTHING


def _tokens(counts: dict[str, Any], name: str) -> int | None:
    """A whole number of tokens; Cohere writes them as floats."""
    value = counts.get(name)
    if type(value) is int:
        return value if 0 <= value <= _MOST_TOKENS else None
    return int(value) if type(value) is float and 0 <= value <= _MOST_TOKENS and value.is_integer() else None


def _first_of(counts: dict[str, Any], names: _Names) -> int | None:
    for name in names:
        if name in counts and (tokens := _tokens(counts, name)) is not None:
            return tokens
    return None


def _details(counts: dict[str, Any], names: _Names) -> dict[str, Any]:
    """The first of these that holds anything."""
    for name in names:
        if found := _inner(counts, name):
            return found
    return _NOTHING


def _input_tokens(counts: dict[str, Any]) -> int | None:
    tokens = _first_of(counts, _INPUT)
    if tokens is None or "input_tokens" not in counts:
        return tokens
    # Anthropic's input_tokens leave out what went through the cache; the whole prompt is the sum of the three.
    return tokens + (_tokens(counts, "cache_read_input_tokens") or 0) + (_tokens(counts, "cache_creation_input_tokens") or 0)


def _cached_tokens(counts: dict[str, Any]) -> int | None:
    cached = _tokens(_details(counts, _INPUT_DETAILS), "cached_tokens")
    return _first_of(counts, _CACHED) if cached is None else cached


def _queue_ns(payload: dict[str, Any]) -> int | None:
    """vLLM's `metrics.queue_time_ms`, in a body, a usage frame or a `response` object; what SGLang's own
    API has in `meta_info` with --enable-metrics, in seconds."""
    metrics = _inner(payload, "metrics") or _inner(_inner(payload, "response"), "metrics")
    waited_ns = _ns(metrics, "queue_time_ms", NS_PER_MS)
    return _ns(_inner(payload, "meta_info"), "queue_time", NS_PER_S) if waited_ns is None else waited_ns


def _ns(holder: dict[str, Any], name: str, unit_ns: int) -> int | None:
    waited: Any = holder.get(name)
    is_amount = (type(waited) is int or type(waited) is float) and 0 <= waited <= _MOST_QUEUE_NS // unit_ns
    return round(waited * unit_ns) if is_amount else None
