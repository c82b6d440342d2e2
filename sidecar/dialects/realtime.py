"""What a realtime session tells the meter: which responses it has, when each begins and ends, its tokens, its usage, how it failed.

A session may last for hours and compute for seconds, so not the session is metered but each response in it, from the engine's
`response.created` to `response.done` (OpenAI's protocol), and each transcription, from the audio that is committed to its last word. In
vLLM's protocol, which has transcriptions only and no word for their beginning, that is from the client's `input_audio_buffer.commit`
(which opens the tap for the audio that follows) to `transcription.done`.
"""

from collections.abc import Callable
from typing import Any

from perjoule.sidecar.dialects.payload import error_type, finish_reason, parsed, text_of
from perjoule.sidecar.dialects.watch import Watch
from perjoule.sidecar.dialects.websocket import Reader, UnreadableError, readers
from perjoule.sidecar.record import Outcome

SWITCHED = 101  # the status of the handshake's answer, the only one that a response in it has
_ITEM = "conversation.item.input_audio_transcription."
_BEGINS = frozenset({"response.created", "input_audio_buffer.committed"})
_ENDS = frozenset({"response.done", "transcription.done", _ITEM + "completed", _ITEM + "failed"})
_VLLM = "transcription"  # its one transcription at a time has no id
_VLLM_FATAL = frozenset({"model_not_validated", "processing_error"})  # error codes that end it; after the others it goes on


class Realtime:
    """One session, told everything that passes in both directions. Times are monotonic nanoseconds."""

    __slots__ = ("_client", "_engine", "_goodbye", "_is_vllm", "_model", "_open", "_running", "_transcribes", "_unanswered")

    def __init__(self, open_watch: Callable[[int, str | None], Watch], model: str | None, extensions: bytes) -> None:
        """`open_watch(t_ns, model)` makes the watch of a response; `model` is the handshake's, and so are `extensions`."""
        self._open, self._model = open_watch, model
        self._client, self._engine = readers(extensions)
        self._running: dict[str, Watch] = {}
        self._unanswered: set[str] = set()  # of them, those that the engine has said nothing of
        self._is_vllm = self._transcribes = False
        self._goodbye: tuple[Outcome, str] | None = None  # of who said Close first

    def client_sent(self, t_ns: int, data: bytes) -> None:
        """The next bytes from the client. Raises UnreadableError, and sees nothing more of this side after that."""
        for text in self._client.feed(data):
            self._client_says(t_ns, parsed(text))
        self._note_close(self._client, Outcome.CANCELLED, "client_disconnected")

    def engine_sent(self, t_ns: int, data: bytes) -> None:
        """The next bytes from the engine. Raises UnreadableError: what runs then will not be seen to end, and nothing more to begin."""
        try:
            for text in self._engine.feed(data):
                self._engine_says(t_ns, text)
        except UnreadableError:
            self.over(t_ns, Outcome.ERRORED, "websocket_unreadable")
            raise
        self._note_close(self._engine, Outcome.ERRORED, "upstream_closed")

    def over(self, t_ns: int, outcome: Outcome, error: str) -> None:
        """The session has ended like that, unless a Close frame had said who ended it; so have the responses in it."""
        for key in list(self._running):
            self._end(key, t_ns, *(self._goodbye or (outcome, error)))

    def _note_close(self, reader: Reader, outcome: Outcome, error: str) -> None:
        if reader.closed and self._goodbye is None:
            self._goodbye = outcome, error

    def _client_says(self, t_ns: int, event: dict[str, Any] | None) -> None:
        if event is None or not self._is_vllm or self._engine.broken:
            return
        kind = event.get("type")
        if kind == "session.update":
            self._model = text_of(event, "model") or self._model
        elif kind == "input_audio_buffer.commit" and not event.get("final") and _VLLM not in self._running:
            self._begin(_VLLM, t_ns)

    def _engine_says(self, t_ns: int, text: bytes) -> None:
        event = parsed(text)
        kind = event.get("type") if event is not None else None
        if event is None or not isinstance(kind, str):
            return
        if kind.startswith(("session.", "transcription_session.")):
            self._note_session(event)
            return
        if kind == "error":
            if _VLLM in self._running and (error := error_type(event)) in _VLLM_FATAL:
                self._end(_VLLM, t_ns, Outcome.ERRORED, error)
            return
        key = self._key(kind, event)
        if key is None or not (key in self._running or kind in _BEGINS or kind.endswith(".delta")):
            return
        watch = self._running.get(key) or self._begin(key, t_ns)
        if key in self._unanswered:
            self._unanswered.discard(key)
            watch.head(t_ns, SWITCHED, streamed=True, encoding=None)
        watch.body(t_ns, text)
        if kind in _ENDS:
            self._end(key, t_ns, *_outcome(kind, event))

    def _note_session(self, event: dict[str, Any]) -> None:
        session = event.get("session")
        if not isinstance(session, dict):
            self._is_vllm |= event.get("type") == "session.created"
            return
        self._model = text_of(session, "model") or self._model
        audio = session.get("audio")
        hears = audio.get("input") if isinstance(audio, dict) else None
        self._transcribes = bool(session.get("type") == "transcription" or session.get("input_audio_transcription")  # of the beta
                                 or (isinstance(hears, dict) and hears.get("transcription")))

    def _key(self, kind: str, event: dict[str, Any]) -> str | None:
        """Which response an event is about, None where it is about none."""
        if kind.startswith("response."):
            response = event.get("response")
            return text_of(event, "response_id") or (text_of(response, "id") if isinstance(response, dict) else None)
        if kind.startswith(_ITEM) or (kind == "input_audio_buffer.committed" and self._transcribes):
            return text_of(event, "item_id")
        return _VLLM if kind.startswith("transcription.") else None

    def _begin(self, key: str, t_ns: int) -> Watch:
        watch = self._running[key] = self._open(t_ns, self._model)
        self._unanswered.add(key)
        watch.begin(t_ns)
        return watch

    def _end(self, key: str, t_ns: int, outcome: Outcome, error: str | None) -> None:
        self._running.pop(key).end(t_ns, outcome, error)


def _outcome(kind: str, event: dict[str, Any]) -> tuple[Outcome, str | None]:
    """How a response ended, by the event that ends it. An `incomplete` one is whole as far as its limit let it be."""
    response = event.get("response")
    status = response.get("status") if isinstance(response, dict) else None
    details = response.get("status_details") if isinstance(response, dict) else None
    if kind == _ITEM + "failed" or status == "failed":
        return Outcome.ERRORED, error_type(event) or (error_type(details) if isinstance(details, dict) else None) or "failed"
    if status == "cancelled":
        return Outcome.CANCELLED, finish_reason(event)
    return Outcome.COMPLETED, None
