"""What a client gets of a stream, by editing the list of its events as a whole."""

import json
from typing import Any

from tests.fuzz.references import events
from tests.fuzz.references.observation import finish_reason
from tests.fuzz.references.strict_json import object_in

SPACE = b" \t\n\r\f\v"
GOES_ON = (b'"finish_reason":null', b'"finish_reason": null')
USAGE_ENDS = ("message_delta", "response.completed", "response.incomplete")
TELLING = (b'"choices":[]', b'"choices": []', b'"message_delta"', b'"response.completed"', b'"response.incomplete"')
"""How these frames are known before they are read: what is spelled otherwise is left as it is."""
DONE = (b"data: [DONE]", b"data:[DONE]")


def edited(stream: bytes, *, hide: bool, comment: bytes | None, energy: bytes | None, limit: int = 1 << 20) -> bytes:
    """The client's bytes of a stream that ended cleanly. `energy` is the JSON that goes into the usage object."""
    reads_events = hide or energy is not None
    text = _with_usage_edited(stream, hide, energy, limit, is_over=True) if reads_events else stream
    return text if comment is None else with_comment(text, comment, is_over=True)


def cut_off(stream: bytes, *, hide: bool, comment: bytes | None, energy: bytes | None, limit: int = 1 << 20) -> bytes:
    """The client's bytes of a stream that broke off here: what had its place by then was edited, and the rest is the engine's."""
    reads_events = hide or energy is not None
    text = _with_usage_edited(stream, hide, energy, limit, is_over=False) if reads_events else stream
    cut = events.cut(stream, limit)
    held = cut.rest if reads_events and not cut.overflowed else b""
    return text if comment is None else with_comment(text.removesuffix(held), comment, is_over=False) + held


def with_comment(text: bytes, comment: bytes, *, is_over: bool) -> bytes:
    """With a comment before the first event that begins with [DONE]; where there is none, behind the last whole event."""
    at, between = 0, True
    for line, end in events.lines(text):
        if between and line.startswith(DONE):
            return text[:at] + comment + text[at:]
        at += len(line + end)
        if end or line:
            between = line in (b"", events.CR)  # a CR that nothing follows ends its line, too
    return text + comment if is_over and text and between else text


def _with_usage_edited(stream: bytes, hide: bool, energy: bytes | None, limit: int, *, is_over: bool) -> bytes:
    cut = events.cut(stream, limit)
    last = [cut.rest] if is_over and cut.rest and not cut.overflowed else []
    todo, done = [*cut.events, *last], []
    while todo:
        event, *todo = todo
        payload = _read(event)
        if hide and _is_usage(payload):
            continue
        if finish_reason(payload) and payload.get("usage"):
            hide = False  # the engine shows usage unasked
        elif hide and finish_reason(payload):
            silent = next((i for i, later in enumerate(todo) if events.data(later) or _goes_on(later)), len(todo))
            usage = _read(todo[silent]) if silent < len(todo) else {}
            if _is_usage(usage):
                event = _with_fingerprint(event, usage.get("system_fingerprint"))
                del todo[silent]
            done.append(event)
            continue
        if energy is not None and any(word in event for word in TELLING) and (_is_usage(payload) or payload.get("type") in USAGE_ENDS):
            event = with_energy(event, energy)
        done.append(event)
    return b"".join(done) + (b"" if last else cut.rest)


def with_energy(text: bytes, energy: bytes, *, is_body: bool = False) -> bytes:
    """With `energy` first in the last usage object, if that reads back as just that. `text` is an event, or a whole body."""
    def read(text: bytes) -> dict[str, Any]:
        return object_in(text if is_body else events.data(text)) or {}

    payload = read(text)
    holder = payload["response"] if isinstance(payload.get("response"), dict) else payload
    usage = holder.get("usage")
    at = max((at for at in range(len(text)) if _is_usage_object(text, at)), default=None)
    if at is None or not isinstance(usage, dict):
        return text
    brace = text.index(b"{", at) + 1
    result = text[:brace] + b'"energy":' + energy + (b"," if usage else b"") + text[brace:]
    usage["energy"] = json.loads(energy)
    return result if read(result) == payload else text


def _is_usage_object(text: bytes, at: int) -> bool:
    name, _, value = text[at:].partition(b":")
    return name.rstrip(SPACE) == b'"usage"' and value.lstrip(SPACE).startswith(b"{")


def _read(event: bytes) -> dict[str, Any]:
    return {} if _goes_on(event) else object_in(events.data(event)) or {}


def _goes_on(event: bytes) -> bool:
    """Whether an event says that the choice goes on; then it is not read."""
    return any(mark in event for mark in GOES_ON)


def _is_usage(payload: dict[str, Any]) -> bool:
    return isinstance(payload.get("usage"), dict) and payload.get("choices") == []


def _with_fingerprint(event: bytes, fingerprint: Any) -> bytes:
    """The finish frame with the fingerprint last, as vLLM writes it to those who asked for no usage."""
    if not isinstance(fingerprint, str) or b'"system_fingerprint"' in event:
        return event
    at = event.rfind(b"}")
    result = event[:at] + b',"system_fingerprint":' + json.dumps(fingerprint, ensure_ascii=False).encode() + event[at:]
    return result if object_in(events.data(result)) == {**_read(event), "system_fingerprint": fingerprint} else event
