"""What a response tells while it passes: tokens as they come, usage, errors; it never raises and never changes a byte.

Most frames of a stream say only "one more": they are recognised by a few bytes and counted, and the others are parsed.
"""

import zlib
from dataclasses import replace
from functools import lru_cache
from typing import Any

from perjoule.sidecar.dialects.endpoints import Dialect, Endpoint
from perjoule.sidecar.dialects.longtext import LongTexts
from perjoule.sidecar.dialects.payload import choices_of, error_type, finish_reason, has_output, is_last_word, parsed, text_of
from perjoule.sidecar.dialects.sse import EventCutter, data_of
from perjoule.sidecar.dialects.usage import Usage, usage_of
from perjoule.sidecar.dialects.works import Product, product_answered, wav_answered

_OPENAI = (b'"finish_reason":null', b'"finish_reason": null')
_ORDINARY = {  # the bytes that only a frame with more output, and nothing else to tell, has; JSON text cannot hold them
    Dialect.CHAT: _OPENAI,
    Dialect.COMPLETIONS: _OPENAI,
    Dialect.RESPONSES: (b".delta\ndata:",),
    Dialect.MESSAGES: (b"event: content_block_delta\n",),
    Dialect.GENERATE: (b'"generated_text":null', b'"generated_text": null', b'"stop":false'),
}
READABLE = frozenset({b"gzip", b"x-gzip", b"deflate", b"identity"})
_MOST_INFLATED = 8 << 20  # of one piece; a real one is a few KiB
_BODY_END = 4 << 10  # usage, and what engines write after it
_FILE_HEAD = 4 << 10


class _Observer:
    """What has been seen: None where the response has not said it (yet).

    `error` is the type of an error object inside the response, `broken` says why reading stopped, for a person; `makes` is what was
    asked for that is not tokens, and then what the response says of it.
    """

    __slots__ = ("_inflate", "_long_texts", "broken", "error", "finish_reason", "makes", "output_frames", "response_id", "response_model",
                 "saw_done", "usage")

    def __init__(self, makes: Product | None = None) -> None:
        self._inflate: Inflate | None = None
        self._long_texts = LongTexts() if makes is not None else None
        self.makes = makes
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
        if self.makes is not None:
            self.makes = product_answered(self.makes, payload)
        usage = usage_of(payload)
        if usage is not None:
            if payload.get("type") == "message_start":  # Anthropic's first word: its output count is not one yet
                usage = replace(usage, output_tokens=None)
            self.usage = usage if self.usage is None else self.usage.updated(usage)
        return usage


class Inflate:
    """gzip or zlib, decompressed a piece at a time with a bound."""

    __slots__ = ("_most", "_zlib")

    def __init__(self, most: int = _MOST_INFLATED) -> None:
        self._most = most
        self._zlib = zlib.decompressobj(wbits=zlib.MAX_WBITS + 32)

    def __call__(self, data: bytes) -> bytes:
        """The text of `data`. Raises zlib.error, and OverflowError where it is absurdly long."""
        text = self._zlib.decompress(data, self._most)
        if self._zlib.unconsumed_tail:
            raise OverflowError(f"a piece of {len(data)} bytes holds more than {self._most}")
        return text


class StreamObserver(_Observer):
    """Reads an SSE stream. A token is first seen in the first frame with content: a role or a comment is none.

    Frames are a lower bound of tokens; where frames carry cumulative usage, the tokens counted are exact.
    """

    __slots__ = ("_choices", "_cutter", "_endpoint", "_is_cumulative", "_marker", "_prompts", "_shown", "_shown_in_all")

    def __init__(self, endpoint: Endpoint, choices: int = 1, makes: Product | None = None) -> None:
        super().__init__(makes)
        self._endpoint = endpoint
        self._choices = choices
        self._cutter = EventCutter()
        self._marker: bytes | None = None
        self._shown: dict[int, int] = {}  # tokens of each choice, by its own count
        self._prompts = 0  # tokens, where the engine tells each prompt's when its answer ends
        self._shown_in_all = 0
        self._is_cumulative = False  # that count came with the first output, and is told all along

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
        if self._long_texts is not None:
            data = self._long_texts.feed(data)
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
        if self.broken is None and self._long_texts is not None:
            self._cutter.feed(self._long_texts.finish())
        if self.broken is None:
            self._read(self._cutter.rest())

    def _read(self, event: bytes) -> int:
        """A frame that is not an ordinary one."""
        data = data_of(event)
        if data == b"[DONE]":
            self.saw_done = True
        payload = parsed(data)
        if payload is None:
            is_text = self._endpoint.dialect is Dialect.AUDIO and data not in (b"", b"[DONE]")  # bare, from `transformers serve`
            self.output_frames += is_text
            return int(is_text)
        usage = self._note(payload)
        self.saw_done = self.saw_done or is_last_word(payload)
        is_first, is_output = self.output_frames == 0, has_output(payload)
        self.output_frames += is_output
        if usage is not None and usage.output_tokens is not None and ("meta_info" in payload or payload.get("choices")):
            if is_first or self._is_cumulative:  # else the engine shows usage only at the end
                new = self._newly_shown(payload, usage.output_tokens)
                self._is_cumulative = bool(self._shown)
                return new
            if "timings" in payload:  # llama.cpp's, at the end of each choice; those of all are the request's
                self._newly_shown(payload, usage.output_tokens)
            elif self._choices > 1:  # TGI's, at the end of each prompt's answer
                self._prompts += usage.input_tokens or 0
                self._newly_shown(payload, usage.output_tokens)
                self.usage = replace(self.usage or usage, input_tokens=self._prompts)
        elif usage is not None and usage.output_tokens is not None and "timings" in payload and self._choices > 1:
            self._newly_shown({"index": len(self._shown)}, usage.output_tokens)  # its usage, too, is that of the choice that just ended
        elif is_output and self._marker is None:
            self._marker = next((m for m in _ORDINARY.get(self._endpoint.dialect, ()) if m in event), None)
        return int(is_output)

    def _newly_shown(self, payload: dict[str, Any], output_tokens: int) -> int:
        """The step of a cumulative count, which engines keep for each choice."""
        index = next(iter(choices_of(payload)), payload).get("index", 0)
        step = 0
        if type(index) is int and 0 <= index < self._choices:
            before = self._shown.get(index, 0)
            self._shown[index] = max(before, output_tokens)
            step = self._shown[index] - before
            self._shown_in_all += step
        assert self.usage is not None
        if self._shown:
            self.usage = replace(self.usage, output_tokens=self._shown_in_all)
        return step


class BodyObserver(_Observer):
    """Reads a JSON body when it is whole; of one longer than `limit` bytes only the end, where engines put usage. A body that is a file
    is not read, but for how long a sound it is."""

    __slots__ = ("_is_cut", "_is_file", "_kept", "_limit", "_pieces", "_size")

    def __init__(self, limit: int = 256 << 10, makes: Product | None = None) -> None:
        super().__init__(makes)
        self._limit = limit
        self._pieces: list[bytes] = []
        self._kept = self._size = 0  # bytes: of the pieces, of the body
        self._is_cut = self._is_file = False

    def _see(self, data: bytes) -> int:
        if not self._size and self.makes is not None:
            self._is_file = data.lstrip()[:1] not in (b"{", b"[", b"")
        self._size += len(data)
        if self._is_file:
            if self._kept < _FILE_HEAD:
                self._keep(data[:_FILE_HEAD - self._kept])
            return 0
        self._keep(data if self._long_texts is None else self._long_texts.feed(data))
        if self._kept > self._limit:
            self._is_cut = True
            self._keep(self._taken()[-_BODY_END:])
        return 0

    def _keep(self, data: bytes) -> None:
        self._pieces.append(data)
        self._kept += len(data)

    def _taken(self) -> bytes:
        pieces, self._pieces, self._kept = self._pieces, [], 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def finish(self) -> None:
        """Read the body."""
        if self.broken is not None or not self._kept:
            return
        body = self._taken()
        if self._is_file:
            self.broken = "the body is not a JSON object"
            self.makes = wav_answered(self.makes, body, self._size) if self.makes is not None else None
            return
        if self._long_texts is not None:
            body += self._long_texts.finish()
        if self._is_cut:
            _, name, rest = body[-_BODY_END:].rpartition(b'"usage"')
            body = b"{" + name + rest if name else b""
        payload = parsed(body)
        if payload is None:
            self.broken = "no usage at the end of a long body" if self._is_cut else "the body is not a JSON object"
        else:
            self._note(payload)


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


def observer_for(endpoint: Endpoint, streamed: bool, content_encoding: bytes | None, choices: int, makes: Product | None = None
                 ) -> StreamObserver | BodyObserver | EventObserver:
    """Who reads this response; a content encoding that cannot be read is said in `broken`, and nothing is counted."""
    if endpoint.dialect is Dialect.REALTIME:
        return EventObserver()
    observer = StreamObserver(endpoint, choices, makes) if streamed else BodyObserver(makes=makes)
    if not content_encoding:
        return observer
    encoding = content_encoding.strip().lower()
    if encoding in READABLE:
        observer._inflate = Inflate() if encoding != b"identity" else None
    else:
        observer.broken = f"content-encoding {encoding.decode('latin-1')} is not read, only gzip and deflate"
    return observer
