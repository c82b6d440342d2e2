"""What an answer tells while it comes: when each chunk with content arrived, and in the end how many tokens there were.

Whether a chunk has content is decided by its bytes; JSON is parsed only where something else is to be learned. No text is kept."""

import re
from array import array

from perjoule.sidecar.dialects.endpoints import Dialect
from perjoule.sidecar.dialects.observer import BodyObserver
from perjoule.sidecar.dialects.payload import error_type, is_last_word, parsed
from perjoule.sidecar.dialects.sse import EventCutter, data_of
from perjoule.sidecar.dialects.usage import Usage, usage_of

# A quote inside a JSON string is escaped, so `"content":"` is never part of a text. Role-only and empty chunks have `""` or null.
_CONTENT = re.compile(rb'"(?:content|text|reasoning_content|reasoning|thinking|refusal|arguments|partial_json)" ?: ?"[^"]'
                      rb'|"(?:tool_calls|token_ids|delta_token_ids)" ?: ?\[[^]]')
_DELTA = re.compile(rb'"type" ?: ?"response\.[a-z_.]+\.delta"')  # of OpenAI's responses, whose last events repeat the whole text
_DONE = b"[DONE]"
_SHORT = 32  # bytes: an event that may be [DONE]


class StreamAnswer:
    """A stream of server-sent events. Times are as they are given to `feed`."""

    __slots__ = ("_counts", "_cutter", "_first_counts", "_is_content", "_last", "chunk_ns", "error", "is_ended")

    def __init__(self, dialect: Dialect) -> None:
        self._is_content = (_DELTA if dialect is Dialect.RESPONSES else _CONTENT).search
        self._cutter = EventCutter()
        self._first_counts = self._counts = self._last = b""
        self.chunk_ns = array("q")
        self.error: str | None = None
        self.is_ended = False  # its last word has come

    def feed(self, data: bytes, now_ns: int) -> None:
        """What one read brought."""
        for event in self._cutter.feed(data):
            self._see(event, now_ns)
        if self._cutter.overflowed:
            self.error = "an event longer than 1 MiB"

    def _see(self, event: bytes, now_ns: int) -> None:
        if event.startswith(b":"):  # a comment; the sidecar's energy is one
            return
        if self._is_content(event) is not None:
            self.chunk_ns.append(now_ns)
        elif len(event) < _SHORT and data_of(event) == _DONE:
            self.is_ended = True
            return
        self._last = event
        if (event.find(b'"usage"') >= 0 and event.find(b'"usage":null') < 0) or event.find(b'"meta_info"') >= 0:
            if self._first_counts:
                self._counts = event
            else:
                self._first_counts = event
        if event.find(b'"error"') >= 0 and (payload := parsed(data_of(event))) is not None and (kind := error_type(payload)) is not None:
            self.error = f"error in the stream: {kind}"

    def finish(self, now_ns: int) -> Usage:
        """It is over; the counts that its engine gave."""
        if rest := self._cutter.rest():  # the last event may lack its blank line
            self._see(rest, now_ns)
        last = parsed(data_of(self._last))
        self.is_ended = self.is_ended or (last is not None and is_last_word(last))
        first = usage_of(parsed(data_of(self._first_counts))) or Usage()
        if b"message_start" in self._first_counts:  # Anthropic's first word: its output count is not one yet
            first.output_tokens = None
        return first.updated(usage_of(parsed(data_of(self._counts)))).updated(usage_of(last))


class WholeAnswer:
    """A body that is no stream: images, embeddings, and what was not asked to be streamed. Of a long one only the end is kept."""

    __slots__ = ("_observer", "chunk_ns", "error", "is_ended")

    def __init__(self) -> None:
        self._observer = BodyObserver()
        self.chunk_ns = array("q")
        self.error: str | None = None
        self.is_ended = True

    def feed(self, data: bytes, now_ns: int) -> None:
        """What one read brought."""
        self._observer.feed(data)

    def finish(self, now_ns: int) -> Usage:
        """It is over; the counts that its engine gave."""
        self._observer.finish()
        if self._observer.error is not None:
            self.error = f"error in the answer: {self._observer.error}"
        return self._observer.usage or Usage()
