"""What a response says, read whole: every event parsed, every count taken where its dialect's documentation has it."""

from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.references import events
from tests.fuzz.references.strict_json import object_in

MOST_TOKENS = 2**40
ORDINARY = {  # a frame with these bytes says "one more" and nothing else, once a first one has been read
    "chat": (b'"finish_reason":null', b'"finish_reason": null'),
    "completions": (b'"finish_reason":null', b'"finish_reason": null'),
    "responses": (b".delta\ndata:",),
    "messages": (b"event: content_block_delta\n",),
    "generate": (b'"generated_text":null', b'"generated_text": null', b'"stop":false'),
}
COUNTS = {  # each count under all its names, in the order in which they win
    "input_tokens": ("prompt_tokens", "input_tokens", "input_length"),
    "output_tokens": ("completion_tokens", "output_tokens", "generated_tokens"),
}
DETAILS = {
    "cached_tokens": ("prompt_tokens_details", "input_tokens_details", "input_token_details"),
    "reasoning_tokens": ("completion_tokens_details", "output_tokens_details", "output_token_details"),
}
LAST_WORDS = ("message_stop", "message-end", "response.completed", "response.incomplete", "response.failed")
Payload = dict[str, Any]


@dataclass
class Told:
    """All that a response told, and how many tokens were seen `passing`."""

    passing: int = 0
    usage: dict[str, int] | None = None
    output_frames: int = 0
    error: str | None = None
    finish_reason: str | None = None
    response_id: str | None = None
    response_model: str | None = None
    saw_done: bool = False
    broken: str | None = None
    shown: dict[int, int] = field(default_factory=dict)  # counts of each choice
    is_cumulative: bool = False  # they are told all along
    prompts: int = 0  # tokens, where they are told at the end of each prompt's answer


def of_stream(stream: bytes, dialect: str, choices: int, *, reads_all: bool = False) -> Told:
    """What a stream told. `reads_all` parses the ordinary frames, too."""
    told, cut, ordinary = Told(), events.cut(stream), None
    for event in cut.events:
        if ordinary is not None and ordinary in event:
            told.output_frames += 1
            told.passing += 1
            continue
        new, counted = _read(told, event, choices)
        told.passing += new
        if new and not counted and ordinary is None and not reads_all:
            ordinary = next((mark for mark in ORDINARY.get(dialect, ()) if mark in event), None)
    if cut.overflowed:
        told.broken = "an event too long to read"
    else:
        _read(told, cut.rest, choices)
    return told


def of_body(body: bytes, limit: int, kept: int) -> Told:
    """What a body told; of one longer than `limit` only what its last `kept` bytes say after the last `"usage"`."""
    told = Told()
    if not body:
        return told
    is_long = len(body) > limit
    if is_long:
        end = body[-kept:]
        body = b"{" + end[end.rindex(b'"usage"'):] if b'"usage"' in end else b""
    payload = object_in(body)
    if payload is None:
        told.broken = "no usage at the end of a long body" if is_long else "the body is not a JSON object"
    else:
        _note(told, payload)
    return told


def _read(told: Told, event: bytes, choices: int) -> tuple[int, bool]:
    """Take in one event: how many tokens it shows, and whether it was its count that said so."""
    data = events.data(event)
    payload = object_in(data)
    told.saw_done = told.saw_done or data == b"[DONE]"
    if payload is None:
        return 0, False
    usage = _note(told, payload)
    kind = payload.get("type")
    ends = kind in LAST_WORDS if isinstance(kind, str) else isinstance(payload.get("generated_text"), str) or payload.get("stop") is True
    told.saw_done = told.saw_done or ends
    is_first, is_output = told.output_frames == 0, _is_output(payload)
    told.output_frames += is_output
    if "output_tokens" not in usage:
        return int(is_output), False
    is_timed = "timings" in payload
    if "meta_info" in payload or payload.get("choices"):
        if is_first or told.is_cumulative:
            new = _show(told, payload, usage["output_tokens"], choices)
            told.is_cumulative = bool(told.shown)
            return new, True
        if is_timed or choices > 1:  # a count for each choice, when it ends
            _show(told, payload, usage["output_tokens"], choices)
        if choices > 1 and not is_timed:
            assert told.usage is not None
            told.prompts += usage.get("input_tokens", 0)
            told.usage["input_tokens"] = told.prompts
        return int(is_output), True
    if is_timed and choices > 1:  # llama.cpp's usage is that of the choice that has just ended
        _show(told, {"index": len(told.shown)}, usage["output_tokens"], choices)
        return int(is_output), True
    return int(is_output), False


def _show(told: Told, payload: Payload, tokens: int, choices: int) -> int:
    """Take in one choice's count; by how much all of them are more."""
    before = sum(told.shown.values())
    index = (_choices(payload) or [payload])[0].get("index", 0)
    if type(index) is int and index in range(choices):
        told.shown[index] = max(told.shown.get(index, 0), tokens)
    if told.shown:
        assert told.usage is not None
        told.usage["output_tokens"] = sum(told.shown.values())
    return sum(told.shown.values()) - before


def _note(told: Told, payload: Payload) -> dict[str, int]:
    """Take in what one payload says of the whole response; answers its own counts."""
    told.response_id = told.response_id or _text(payload, "id")
    told.response_model = told.response_model or _text(payload, "model")
    told.error = told.error or _error(payload)
    told.finish_reason = finish_reason(payload) or told.finish_reason
    usage = counts(payload)
    if usage:
        if payload.get("type") == "message_start":
            usage.pop("output_tokens", None)
        told.usage = (told.usage or {}) | usage
    return usage


def counts(payload: Payload) -> dict[str, int]:
    """The counts that one payload holds, by the names of `Usage`."""
    places = [_at(payload, "usage"), _at(payload, "response", "usage"), _at(payload, "message", "usage"), _at(payload, "delta", "usage")]
    place = next((place for place in places if place is not None), None)
    if place is not None:
        place = {**place, **(_at(place, "tokens") or {})}
    else:
        place = _at(payload, "details") or _at(payload, "meta_info") or _at(payload, "meta", "billed_units") or _timed(payload)
    found = {name: _first_count(place, names) for name, names in COUNTS.items()}
    several = payload.get("choices")
    if "timings" in payload and isinstance(several, list) and len(several) > 1:
        found["output_tokens"] = None
    for name, holders in DETAILS.items():
        found[name] = _first_count(next((inner for holder in holders if (inner := _at(place, holder))), {}), (name,))
    if found["cached_tokens"] is None:
        found["cached_tokens"] = _first_count(place, ("cached_tokens", "cache_read_input_tokens"))
    if not any(_at(place, holder) for holder in DETAILS["reasoning_tokens"]):  # SGLang
        found["reasoning_tokens"] = _first_count(place, ("reasoning_tokens",))
    if found["input_tokens"] is not None and "input_tokens" in place:
        for name in ("cache_read_input_tokens", "cache_creation_input_tokens"):
            found["input_tokens"] += _first_count(place, (name,)) or 0
    waited_ms = ((_at(payload, "metrics") or _at(payload, "response", "metrics")) or {}).get("queue_time_ms")
    waited_s = (_at(payload, "meta_info") or {}).get("queue_time")
    if type(waited_ms) in (int, float) and 0 <= waited_ms <= 2**62 // 10**6:
        found["queue_ns"] = round(waited_ms * 10**6)
    elif type(waited_s) in (int, float) and 0 <= waited_s <= 2**62 // 10**9:
        found["queue_ns"] = round(waited_s * 10**9)
    return {name: count for name, count in found.items() if count is not None}


def _timed(payload: Payload) -> Payload:
    """llama.cpp's, where it tells no usage."""
    timings = _at(payload, "timings") or {}
    counts = [_first_count(timings, (name,)) for name in ("cache_n", "prompt_n", "predicted_n")]
    if None in counts:
        return {}
    cached, computed, output = (count or 0 for count in counts)
    return {"prompt_tokens": cached + computed, "cached_tokens": cached, "completion_tokens": output}


def _first_count(place: Payload, names: tuple[str, ...]) -> int | None:
    values = [place[name] for name in names if name in place]
    whole = [int(v) for v in values if type(v) in (int, float) and 0 <= v <= MOST_TOKENS and v == int(v)]
    return whole[0] if whole else None


def _at(payload: Payload, *path: str) -> Payload | None:
    """The object at the end of a path, None where there is none."""
    place: Any = payload
    for name in path:
        place = place.get(name) if isinstance(place, dict) else None
    return place if isinstance(place, dict) else None


def _choices(payload: Payload) -> list[Payload]:
    choices = payload.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _text(payload: Payload, name: str) -> str | None:
    """The first 256 characters of a text, at the top or where responses and messages have theirs."""
    places = [payload, _at(payload, "response") or {}, _at(payload, "message") or {}]
    texts = [place.get(name) for place in places if isinstance(place.get(name), str)]
    return next((text[:256] for text in texts if text), None)


def _word(place: Payload | None, name: str) -> str | None:
    word = (place or {}).get(name)
    return word[:64] if isinstance(word, str) and word else None


def _error(payload: Payload) -> str | None:
    error = payload.get("error") or (_at(payload, "response") or {}).get("error")
    if not error and payload.get("type") != "error":
        return None
    inside = error if isinstance(error, dict) else {}
    words = [inside.get("type"), inside.get("code"), payload.get("error_type"), payload.get("code")]
    return next((str(word)[:64] for word in words if word and isinstance(word, str | int)), "error")


def finish_reason(payload: Payload) -> str | None:
    """Why generation ended, in the dialect's own word."""
    response = _at(payload, "response") or payload
    status = _word(response, "status") if response.get("object") in ("response", "realtime.response") else None
    words = [_word(choice, "finish_reason") for choice in _choices(payload)]
    words += [_word(_at(response, "incomplete_details"), "reason"), _word(_at(response, "status_details"), "reason")]
    words += [None if status == "in_progress" else status]
    words += [_word(payload, "stop_reason"), _word(_at(payload, "delta"), "stop_reason")]  # Anthropic messages
    words += [_word(payload, "finish_reason"), _word(_at(payload, "delta"), "finish_reason")]  # Cohere chat
    words += [_word(_at(payload, "details"), "finish_reason")]  # TGI
    words += [_word(_at(payload, "meta_info", "finish_reason"), "type")]  # SGLang
    words += [_word(payload, "stop_type")]  # llama.cpp
    return next((word for word in words if word), None)


def _is_output(payload: Payload) -> bool:
    """Whether a frame brings something that was generated."""
    kind = payload.get("type")
    if isinstance(kind, str):
        return kind != "message_delta" and any(kind.endswith(mark + "delta") for mark in (".", "_", "-"))
    for choice in _choices(payload):
        delta = _at(choice, "delta") or {}
        if choice.get("text") or choice.get("token_ids") or any(delta[name] for name in delta if name != "role"):
            return True
    return bool(payload.get("token") or payload.get("text") or (payload.get("stop") is False and payload.get("content")))
