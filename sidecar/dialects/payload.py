"""What one JSON object of a response says, a whole body or one frame of a stream, in the shape of every dialect.

Everything here takes what an engine sent, so nothing here trusts a type and nothing raises.
"""

from typing import Any

import orjson

_MOST_TEXT = 256  # characters of a name or an id; what is kept must not grow with what was sent
_MOST_WORD = 64
_NOTHING: dict[str, Any] = {}
_LAST_WORDS = frozenset({"message_stop", "message-end", "response.completed", "response.incomplete", "response.failed"})


def parsed(data: bytes) -> dict[str, Any] | None:
    """The JSON object in `data`, None where there is none."""
    try:
        payload = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if isinstance(payload, list):
        payload = _of_several(payload)
    return payload if isinstance(payload, dict) else None


def _of_several(answers: list[Any]) -> Any:
    """One answer for all: TGI's `POST /` has a list of one, SGLang's `/generate` of several prompts one for each. None of others: the first
    alone would not be the whole."""
    if len(answers) == 1:
        return answers[0]
    told = [_inner(answer, "meta_info") for answer in answers if isinstance(answer, dict)]
    if not all(told) or len(told) < len(answers) or not told:
        return None
    whole = told[-1] | {"queue_time": None}
    for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
        counts = [one[name] for one in told if type(one.get(name)) is int and one[name] >= 0]
        whole[name] = sum(counts) if len(counts) == len(told) else None
    return {"meta_info": whole}


def text_of(payload: dict[str, Any], name: str) -> str | None:
    """The first 256 characters of a text that describes the whole response (`id`, `model`), wherever the dialect puts it."""
    return (_word(payload, name, _MOST_TEXT) or _word(_inner(payload, "response"), name, _MOST_TEXT)
            or _word(_inner(payload, "message"), name, _MOST_TEXT))


def choices_of(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """The choices of an OpenAI body or frame."""
    choices = payload.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def has_output(payload: dict[str, Any]) -> bool:
    """Whether a frame carries generated output; role-only and empty frames do not, reasoning and tool calls do."""
    kind = payload.get("type")
    if isinstance(kind, str):  # OpenAI responses, Anthropic messages, Cohere chat
        return kind.endswith((".delta", "_delta", "-delta")) and kind != "message_delta"
    for choice in choices_of(payload):
        delta = choice.get("delta")
        if choice.get("text") or choice.get("token_ids"):
            return True
        if isinstance(delta, dict) and any(value for key, value in delta.items() if key != "role"):
            return True
    return bool(payload.get("token") or payload.get("text")  # TGI, SGLang
                or (payload.get("stop") is False and payload.get("content")))  # llama.cpp


def is_last_word(payload: dict[str, Any]) -> bool:
    """Whether a dialect without `[DONE]` ends its streams with this frame."""
    kind = payload.get("type")
    return kind in _LAST_WORDS if isinstance(kind, str) else isinstance(payload.get("generated_text"), str) or payload.get("stop") is True


def error_type(payload: dict[str, Any]) -> str | None:
    """The type of the error that a payload is, None where it is none; never its message, which may quote a prompt."""
    response = payload.get("response")
    error = payload.get("error") or (response.get("error") if isinstance(response, dict) else None)
    if not error and payload.get("type") != "error":
        return None
    for holder, name in ((error, "type"), (error, "code"), (payload, "error_type"), (payload, "code")):
        value = holder.get(name) if isinstance(holder, dict) else None
        if value and isinstance(value, str | int):
            return str(value)[:_MOST_WORD]
    return "error"


def finish_reason(payload: dict[str, Any]) -> str | None:
    """Why generation ended, in the dialect's own word; None in every frame but the last."""
    for choice in choices_of(payload):
        if reason := _word(choice, "finish_reason"):
            return reason
    response = _inner(payload, "response") or payload  # OpenAI responses
    if reason := _word(_inner(response, "incomplete_details"), "reason"):
        return reason
    if reason := _word(_inner(response, "status_details"), "reason"):  # OpenAI realtime
        return reason
    if response.get("object") in ("response", "realtime.response") and (status := _word(response, "status")) != "in_progress":
        return status
    return (_word(payload, "stop_reason") or _word(_inner(payload, "delta"), "stop_reason")  # Anthropic messages
            or _word(payload, "finish_reason") or _word(_inner(payload, "delta"), "finish_reason")  # Cohere chat
            or _word(_inner(payload, "details"), "finish_reason")  # TGI
            or _word(_inner(_inner(payload, "meta_info"), "finish_reason"), "type")  # SGLang
            or _word(payload, "stop_type"))  # llama.cpp


def _inner(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    return value if isinstance(value, dict) else _NOTHING


def _word(holder: dict[str, Any], name: str, most: int = _MOST_WORD) -> str | None:
    value = holder.get(name)
    return value[:most] if isinstance(value, str) and value else None
