"""What a response tells while it passes: tokens as they come, usage, errors; it never raises and never changes a byte.

Most frames of a stream say only "one more": they are recognised by a few bytes and counted, and the others are parsed.
"""

import zlib
from dataclasses import replace
from functools import lru_cache
from typing import Any

from perjoule.sidecar.dialects.endpoints import Dialect, Endpoint
from perjoule.sidecar.dialects.payload import choices_of, error_type, finish_reason, has_output, is_last_word, parsed, text_of
from perjoule.sidecar.dialects.sse import EventCutter, data_of
from perjoule.sidecar.dialects.usage import Usage, usage_of

_OPENAI = (b'"finish_reason":null', b'"finish_reason": null')
_ORDINARY = {  # the bytes that only a frame with more output, and nothing else to tell, has; JSON text cannot hold them
    Dialect.CHAT: _OPENAI,
    Dialect.COMPLETIONS: _OPENAI,
    Dialect.RESPONSES: (b".delta\ndata:",),
    Dialect.MESSAGES: (b"event: content_block_delta\n",),
    Dialect.GENERATE: (b'"generated_text":null', b'"generated_text": null'),
}
READABLE = frozenset({b"gzip", b"x-gzip", b"deflate", b"identity"})
_MOST_INFLATED = 8 << 20  # of one piece; a real one is a few KiB
_BODY_END = 4 << 10  # usage, and what engines write after it


class _Observer:
    """What has been seen: None where the response has not said it (yet).

    `error` is the type of an error object inside the response, `broken` says why reading stopped, for a person.
    """

    __slots__ = ("_inflate", "broken", "error", "finish_reason", "output_frames", "response_id", "response_model",
                 "saw_done", "usage")

    def __init__(self) -> None:
        self._inflate: _Inflate | None = None
        self.usage: Usage | None = None
        self.output_frames = 0
        self.error: str | None = None
        self.finish_reason: str | None = None
        self.response_id: str | None = None
        self.response_model: str | None = None
        self.saw_done = False
        self.broken: str | None = None

    def feed(self, data: bytes) -> int:
        """Look at the next piece of the body; how many new output tokens it shows."""
        if self._inflate is not None:
            data = self._inflated(data)
        return 0 if self.broken is not None else self._see(data)

    def finish(self) -> None:
        """The body is over, or nobody waits for the rest of it."""

    def _see(self, data: bytes) -> int:
        raise NotImplementedError

    def _inflated(self, data: bytes) -> bytes:
        assert self._inflate is not None
        try:
            return self._inflate(data)
        except (zlib.error, OverflowError) as error:
            self.broken = f"cannot decompress: {error}"
            return b""

    def _note(self, payload: dict[str, Any]) -> Usage | None:
        """Keep what one payload says about the whole response; its own usage is returned too."""
        self.response_id = self.response_id or text_of(payload, "id")
        self.response_model = self.response_model or text_of(payload, "model")
        self.error = self.error or error_type(payload)
        self.finish_reason = finish_reason(payload) or self.finish_reason
        usage = usage_of(payload)
        if usage is not None:
            if payload.get("type") == "message_start":  # Anthropic's first word: its output count is not one yet
                usage = replace(usage, output_tokens=None)
            self.usage = usage if self.usage is None else self.usage.updated(usage)
        return usage


class _Inflate:
    """gzip or zlib, decompressed a piece at a time with a bound."""

    __slots__ = ("_zlib",)

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS + 32)

    def __call__(self, data: bytes) -> bytes:
        """The text of `data`. Raises zlib.error, and OverflowError where it is absurdly long."""
        text = self._zlib.decompress(data, _MOST_INFLATED)
        if self._zlib.unconsumed_tail:
            raise OverflowError(f"a piece of {len(data)} bytes holds more than {_MOST_INFLATED}")
        return text


class StreamObserver(_Observer):
    """Reads an SSE stream. A token is first seen in the first frame with content: a role or a comment is none.

    Frames are a lower bound of tokens; where frames carry cumulative usage, the tokens counted are exact.
    """

    __slots__ = ("_choices", "_cutter", "_endpoint", "_marker", "_shown")

    def __init__(self, endpoint: Endpoint, choices: int = 1) -> None:
        super().__init__()
        self._endpoint = endpoint
        self._choices = choices
        self._cutter = EventCutter()
        self._marker: bytes | None = None
        self._shown: dict[int, int] = {}  # cumulative tokens of each choice

    @property
    def ordinary(self) -> bytes | None:
        """The bytes by which a whole event, should one come now, is known to be one more token and nothing else; None if by none."""
        return self._marker if self._inflate is None and self._cutter.is_empty else None

    def feed(self, data: bytes) -> int:
        """Look at the next piece of the stream; how many new output tokens it shows."""
        marker = self._marker
        if marker is not None and self._inflate is None and self._cutter.is_whole(data) and data.rfind(marker) >= 0:
            self.output_frames += 1
            return 1
        return super().feed(data)

    def _see(self, data: bytes) -> int:
        new = 0
        for event in self._cutter.feed(data):
            if self._marker is not None and event.rfind(self._marker) >= 0:
                self.output_frames += 1
                new += 1
            else:
                new += self._read(event)
        if self._cutter.overflowed:
            self.broken, self._marker = "an event too long to read", None
            self._cutter.rest()
        return new

    def finish(self) -> None:
        """The last event may lack its blank line."""
        if self.broken is None:
            self._read(self._cutter.rest())

    def _read(self, event: bytes) -> int:
        """A frame that is not an ordinary one."""
        data = data_of(event)
        if data == b"[DONE]":
            self.saw_done = True
        payload = parsed(data)
        if payload is None:
            return 0
        usage = self._note(payload)
        self.saw_done = self.saw_done or is_last_word(payload)
        is_first, is_output = self.output_frames == 0, has_output(payload)
        self.output_frames += is_output
        if usage is not None and usage.output_tokens is not None and ("meta_info" in payload or payload.get("choices")):
            if is_first or self._shown:  # else the engine shows usage only at the end
                return self._newly_shown(payload, usage.output_tokens)
        elif is_output and self._marker is None:
            self._marker = next((m for m in _ORDINARY.get(self._endpoint.dialect, ()) if m in event), None)
        return int(is_output)

    def _newly_shown(self, payload: dict[str, Any], output_tokens: int) -> int:
        """The step of a cumulative count, which engines keep for each choice."""
        index = next(choices_of(payload), payload).get("index", 0)
        if type(index) is not int or not 0 <= index < self._choices:
            return 0
        before = self._shown.get(index, 0)
        self._shown[index] = max(before, output_tokens)
        assert self.usage is not None
        self.usage = replace(self.usage, output_tokens=sum(self._shown.values()))
        return self._shown[index] - before


class BodyObserver(_Observer):
    """Reads a JSON body when it is whole; of one longer than `limit` bytes only the end, where engines put usage."""

    __slots__ = ("_body", "_is_cut", "_limit")

    def __init__(self, limit: int = 256 << 10) -> None:
        super().__init__()
        self._limit = limit
        self._body = bytearray()
        self._is_cut = False

    def _see(self, data: bytes) -> int:
        self._body += data
        if len(self._body) > self._limit:
            self._is_cut = True
            del self._body[:-_BODY_END]
        return 0

    def finish(self) -> None:
        """Read the body."""
        if self.broken is not None or not self._body:
            return
        body = bytes(self._body)
        if self._is_cut:
            _, name, rest = body[-_BODY_END:].rpartition(b'"usage"')
            body = b"{" + name + rest if name else b""
        payload = parsed(body)
        if payload is None:
            self.broken = "no usage at the end of a long body" if self._is_cut else "the body is not a JSON object"
        else:
            self._note(payload)
        self._body.clear()


class EventObserver(_Observer):
    """Reads the events of one response in a realtime session; each piece is the text of one. A delta is a frame, as in a stream."""

    __slots__ = ()

    def _see(self, data: bytes) -> int:
        payload = parsed(data)
        if payload is None:
            return 0
        if has_output(payload):  # and nothing else
            self.output_frames += 1
            return 1
        self._note(payload)
        return 0


@lru_cache(maxsize=256)
def readable_encodings(accepted: bytes) -> bytes:
    """What of an Accept-Encoding can be read here; `identity` where that is nothing, since whoever accepts any accepts it, too."""
    kept = [part for part in accepted.split(b",") if part.partition(b";")[0].strip().lower() in READABLE]
    return b",".join(kept).strip() or b"identity"


def observer_for(endpoint: Endpoint, streamed: bool, content_encoding: bytes | None, choices: int
                 ) -> StreamObserver | BodyObserver | EventObserver:
    """Who reads this response; a content encoding that cannot be read is said in `broken`, and nothing is counted."""
    if endpoint.dialect is Dialect.REALTIME:
        return EventObserver()
    observer = StreamObserver(endpoint, choices) if streamed else BodyObserver()
    encoding = (content_encoding or b"identity").strip().lower()
    if encoding in READABLE:
        observer._inflate = _Inflate() if encoding != b"identity" else None
    else:
        observer.broken = f"content-encoding {encoding.decode('latin-1')} is not read, only gzip and deflate"
    return observer
