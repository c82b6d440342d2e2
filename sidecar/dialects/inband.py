"""The few bytes that are added to a response or hidden from it: comment, usage frame, usage object, headers."""

import re
from collections.abc import Callable
from typing import Any

import orjson

from perjoule.sidecar.dialects.payload import finish_reason, parsed
from perjoule.sidecar.dialects.sse import EventCutter, data_of
from perjoule.sidecar.dialects.works import Product
from perjoule.sidecar.http.heads import line, opening
from perjoule.sidecar.record import Charge, Status, Unit
from perjoule.sidecar.telemetry import Header
from perjoule.sidecar.units import J_PER_KWH, UJ_PER_J, joules, power_w, seconds

_DONE = re.compile(rb"data: ?\[DONE\]")
_DONE_LINES = (b"data: [DONE]", b"data:[DONE]")
_BLANK_LINES = (b"\n\n", b"\n\r\n", b"\n\r", b"\r\r", b"\r\r\n")
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_USAGE_ENDS = ("message_delta", "response.completed", "response.incomplete")  # no set: a type may be anything, even a list
# In JSON text these bytes would be escaped, so what a model writes does not look like them.
_TELLING = re.compile(rb'(?<=[\n\r])data: ?\[DONE\]|"choices": ?\[\]|"message_delta"|"response\.(?:completed|incomplete)"')
_TELLING_WORDS = (b"[DONE]", b'"choices":[]', b'"choices": []', b"message_delta", b"response.completed", b"response.incomplete")
_LONGEST_TELLING = 24
# Lines of a head, or what of them stands before their value.
_STATUS = {status: line(Header.STATUS.encode(), status.encode()) for status in Status}
_RECORD = opening(Header.RECORD.encode())
_METHOD = opening(Header.METHOD.encode())
_JOULES = opening(Header.JOULES.encode())
_ACTIVE = opening(Header.ACTIVE_JOULES.encode())
_UNCERTAINTY = opening(Header.UNCERTAINTY_JOULES.encode())
_PER = {Unit.IMAGE: opening(Header.PER_IMAGE.encode()), Unit.VIDEO_SECOND: opening(Header.PER_VIDEO_SECOND.encode()),
        Unit.AUDIO_SECOND: opening(Header.PER_AUDIO_SECOND.encode())}
_THREE = [b"%03d" % number for number in range(1000)]


class StreamEditor:
    """Edits one SSE stream on its way to the client; every byte it was not asked to touch passes as it came.

    `hide_usage` takes out what `requests.ask_for_usage` brought into the stream. `usage_energy` gives what goes into
    every usage object of the last kind of frame that has one. `comment` gives what is written just before `data: [DONE]`,
    or at the end of a stream that has none. The two callables are called when their place has come, `comment` at most once.
    """

    __slots__ = ("_comment", "_seen", "_usage")

    def __init__(self, *, hide_usage: bool, comment: Callable[[], bytes] | None,
                 usage_energy: Callable[[], dict[str, Any]] | None) -> None:
        self._usage = _UsageFrame(hide_usage, usage_energy) if hide_usage or usage_energy is not None else None
        self._comment = _Comment(comment) if comment is not None else None
        self._seen = b"\n"  # the last bytes that `may_tell` was asked about

    def may_tell(self, data: bytes) -> bool:
        """Whether the next piece may be where the comment or the usage object has its place, and so needs the charge."""
        text = self._seen + data
        self._seen = text[-_LONGEST_TELLING:]
        # Looking for words takes a hundredth of what the expression takes, and nearly always they are not there.
        return any(text.find(word) >= 0 for word in _TELLING_WORDS) and _TELLING.search(text) is not None

    @property
    def is_at_rest(self) -> bool:
        """Whether a whole event that is one more token, should one come now, passes as it is, and nothing has to remember it."""
        return (self._usage is None or self._usage.is_at_rest) and (self._comment is None or self._comment.is_at_rest)

    def feed(self, data: bytes) -> bytes:
        """What the client gets now."""
        if self._usage is not None:
            data = self._usage.feed(data)
        return data if self._comment is None else self._comment.feed(data)

    def finish(self) -> bytes:
        """The end of a body that ended cleanly: what was held back, and the comment if its place has not come yet."""
        rest = self._usage.finish() if self._usage is not None else b""
        return rest if self._comment is None else self._comment.feed(rest) + self._comment.finish()

    def abandon(self) -> bytes:
        """The end of a body that broke off: what was held back, nothing added."""
        held = self._comment.abandon() if self._comment is not None else b""
        return held if self._usage is None else held + self._usage.abandon()


class _Comment:
    """Inserts once, before the event `data: [DONE]`. Holds back only bytes that may become its first line."""

    __slots__ = ("_before", "_held", "_text")

    def __init__(self, text: Callable[[], bytes]) -> None:
        self._text: Callable[[], bytes] | None = text
        self._before = b""  # what the client got last
        self._held = b""

    @property
    def is_at_rest(self) -> bool:
        return not self._held and self._before.endswith(b"\n\n")

    def feed(self, data: bytes) -> bytes:
        if self._text is None:
            return data
        if not self._held and data.endswith(b"\n\n") and data.rfind(b"[DONE]") < 0:
            self._before = data
            return data
        before = self._before[-4:] or b"\n\n"  # a stream begins as after a blank line
        text = before + self._held + data
        self._held = b""
        for match in _DONE.finditer(text):
            if text.endswith(_BLANK_LINES, 0, match.start()):
                return text[len(before):match.start()] + self._said() + text[match.start():]
        line = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        if text.endswith(_BLANK_LINES, 0, line) and any(done.startswith(text[line:]) for done in _DONE_LINES):
            text, self._held = text[:line], text[line:]
        if len(text) > len(before):
            self._before = text
        return text[len(before):]

    def finish(self) -> bytes:
        """Between events the comment can still be said; inside one that never ended it would change that event."""
        if self._held or not self._before.endswith(_BLANK_LINES):
            return self.abandon()
        return self._said()

    def abandon(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def _said(self) -> bytes:
        text, self._text = self._text, None
        return text() if text is not None else b""


class _UsageFrame:
    """Hides the usage frame or writes into it. Passes whole events, since part of one does not say which it is.

    Asked for usage, vLLM sends one more frame (`"choices":[]`) and puts `system_fingerprint` there, instead of last
    into the frame with the finish reason (vllm/entrypoints/openai/*/serving.py). So that frame waits for what follows
    it, and comments wait with it. An upstream with usage in the finish frame does so unasked: nothing is hidden then.
    """

    __slots__ = ("_cutter", "_energy", "_hides", "_waiting")

    def __init__(self, hides: bool, energy: Callable[[], dict[str, Any]] | None) -> None:
        self._hides, self._energy = hides, energy
        self._cutter = EventCutter()
        self._waiting: list[bytes] = []

    @property
    def is_at_rest(self) -> bool:
        return self._energy is None and not self._waiting and self._cutter.is_empty  # what asks for energy is read, whatever its bytes

    def feed(self, data: bytes) -> bytes:
        cutter = self._cutter
        if cutter.is_whole(data):
            return self._edited(data)
        edited = b"".join(map(self._edited, cutter.feed(data)))
        return edited + self.abandon() if cutter.overflowed else edited

    def finish(self) -> bytes:
        rest = self._cutter.rest()
        return (self._edited(rest) if rest else b"") + self._released()

    def abandon(self) -> bytes:
        return self._released() + self._cutter.rest()

    def _edited(self, event: bytes) -> bytes:
        if event.rfind(b'"finish_reason":null') >= 0 or event.rfind(b'"finish_reason": null') >= 0:
            return self._released() + event if self._waiting else event
        data = data_of(event)
        if self._waiting and not data:
            self._waiting.append(event)
            return b""
        payload = parsed(data) or {}
        is_usage = isinstance(payload.get("usage"), dict) and payload.get("choices") == []
        if self._hides and is_usage:
            return self._released(payload.get("system_fingerprint"))
        released = self._released()
        if self._hides and finish_reason(payload) is not None:
            if not payload.get("usage"):
                self._waiting.append(event)
                return released
            self._hides = False
        if self._energy is not None and _TELLING.search(event) and (is_usage or payload.get("type") in _USAGE_ENDS):
            event = _with_energy(event, self._energy(), lambda text: parsed(data_of(text)))
        return released + event

    def _released(self, fingerprint: Any = None) -> bytes:
        """What waited, the finish frame with the fingerprint that vLLM would have given it."""
        waiting, self._waiting = self._waiting, []
        if waiting and isinstance(fingerprint, str) and b'"system_fingerprint"' not in waiting[0]:
            frame, brace, end = waiting[0].rpartition(b"}")
            restored = frame + b',"system_fingerprint":' + orjson.dumps(fingerprint) + brace + end
            if _same(parsed(data_of(restored)), {**(parsed(data_of(waiting[0])) or {}), "system_fingerprint": fingerprint}):
                waiting[0] = restored
        return b"".join(waiting)


def with_energy_in_usage(body: bytes, energy: dict[str, Any]) -> bytes:
    """A JSON body with `energy` as the first member of its usage object and every other byte as it was.

    Returned unchanged where it has no usage object or would not read back as exactly that.
    """
    return _with_energy(body, energy, parsed)


def _with_energy(text: bytes, energy: dict[str, Any], read: Callable[[bytes], dict[str, Any] | None]) -> bytes:
    expected = read(text) or {}
    response = expected.get("response")
    usage = response.get("usage") if isinstance(response, dict) else expected.get("usage")
    places = list(_USAGE.finditer(text))
    if not isinstance(usage, dict) or not places:
        return text
    at, value = places[-1].end(), orjson.dumps(energy)
    edited = text[:at] + b'"energy":' + value + (b"," if usage else b"") + text[at:]
    usage["energy"] = orjson.loads(value)
    return edited if _same(read(edited), expected) else text


def _same(one: dict[str, Any] | None, other: dict[str, Any]) -> bool:
    """Whether two payloads are equal; what is nested deeper than Python compares is not."""
    try:
        return one == other
    except RecursionError:
        return False


def energy_object(charge: Charge, duration_ns: int, record_path: str, made: Product | None = None) -> dict[str, Any]:
    """What a client is told of one charge (docs/in-band.md): None where unknown, no joules at all where unavailable; per unit of what
    was `made` where that is not tokens.

    The first four names and `attribution_method` are those of Neuralwatt's API: what reads its object reads this one.
    """
    said = {"attribution_method": charge.method, "status": _status(charge).value, "source": charge.source,
            "record": record_path}
    if charge.status is Status.UNAVAILABLE:
        return said
    amount = charge.energy_uj
    return {
        "energy_joules": _joules(amount),
        "energy_kwh": None if amount is None else joules(amount) / J_PER_KWH,
        "avg_power_watts": None if amount is None or duration_ns <= 0 else power_w(amount, duration_ns),
        "duration_seconds": seconds(duration_ns),
        "active_joules": _joules(charge.active_uj),
        "prefill_joules": _joules(charge.prefill_uj),
        "decode_joules": _joules(charge.decode_uj),
        "uncertainty_joules": _joules(charge.uncertainty_uj),
        "settled": charge.settled,
        "boundary": charge.boundary or None,
        "gpus": list(charge.devices),
        **({} if made is None else {"unit": made.unit, "units": made.units, "joules_per_unit": _per_unit(charge, made)}),
        **said,
    }


def comment_bytes(energy: dict[str, Any]) -> bytes:
    """The SSE comment `: energy {json}`, which every conforming client ignores."""
    return b": energy " + orjson.dumps(energy) + b"\n\n"


def energy_headers(charge: Charge, record_path: str, made: Product | None = None) -> list[bytes]:
    """The same as HTTP fields, the lines of a head or of trailers; an unknown amount has no field."""
    lines = [_STATUS[_status(charge)], record_header(record_path)]
    if charge.status is not Status.UNAVAILABLE:
        lines.append(_METHOD + charge.method.encode())
        if charge.energy_uj is not None:
            lines.append(_amount(_JOULES, charge.energy_uj))
        if charge.active_uj is not None:
            lines.append(_amount(_ACTIVE, charge.active_uj))
        if charge.uncertainty_uj is not None:
            lines.append(_amount(_UNCERTAINTY, charge.uncertainty_uj))
        if made is not None and (per_unit := _per_unit(charge, made)) is not None:
            lines.append(_PER[made.unit] + b"%.6f" % per_unit)
    return lines


def record_header(record_path: str) -> bytes:
    """The line that says where the record is."""
    return _RECORD + record_path.encode()


def _amount(name: bytes, uj: int) -> bytes:
    """A line with joules to the microjoule, of which there are never less than none. (To write a float would take twice as long.)"""
    below_uj = uj % UJ_PER_J
    return b"%b%d.%b%b" % (name, uj // UJ_PER_J, _THREE[below_uj // 1000], _THREE[below_uj % 1000])


def _status(charge: Charge) -> Status:
    """A measured joule is provisional until it is settled; a simulated or estimated one stays what it is."""
    is_measured = charge.status in (Status.MEASURED, Status.MIXED)
    return Status.PROVISIONAL if is_measured and not charge.settled else charge.status


def _per_unit(charge: Charge, made: Product) -> float | None:
    return joules(charge.energy_uj) / made.units if charge.energy_uj is not None and made.units else None


def _joules(uj: int | None) -> float | None:
    return None if uj is None else joules(uj)
