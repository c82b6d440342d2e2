"""What a realtime session tells: one record for each response and each transcription, with its times, its tokens and its end."""

import base64
import json
import re
from itertools import count
from pathlib import Path

import pytest

from perjoule.sidecar.dialects.endpoints import REALTIME
from perjoule.sidecar.dialects.realtime import Realtime
from perjoule.sidecar.dialects.requests import Asked
from perjoule.sidecar.dialects.watch import Identity, Watch
from perjoule.sidecar.dialects.websocket import UnreadableError
from perjoule.sidecar.record import Outcome, TokenSource

MS = 1_000_000
BETA, NOW = "response.text.delta", "response.output_text.delta"
FRAMES = TokenSource.FRAMES


class Told:
    """The meter's side of a watch: what it was told, in order."""

    def __init__(self):
        self.events, self.facts = [], []

    def begin(self, watch, t_ns):
        self.events.append(("begin", watch.identity.record_id, t_ns // MS))

    def prompt(self, record_id, tokens, cached):
        self.events.append(("prompt", record_id, tokens, cached))

    def tokens(self, record_id, t_ns, count):
        self.events.append(("tokens", record_id, t_ns // MS, count))

    def end(self, facts, t_ns):
        self.events.append(("end", facts.record_id, t_ns // MS))
        self.facts.append(facts)


class Session:
    """A session whose events are told in milliseconds, each as one frame."""

    def __init__(self, model=None, extensions=b""):
        self.told, numbers = Told(), count(1)

        def open_watch(t_ns, model):
            identity = Identity(f"r{next(numbers)}", "mine")
            return Watch(self.told, REALTIME, Asked(model=model, streamed=True), identity, "vllm", t_ns, 10**18 + t_ns)

        self.realtime = Realtime(open_watch, model, extensions)

    def engine(self, t_ms, kind, **fields):
        self.realtime.engine_sent(t_ms * MS, text(kind, **fields))

    def client(self, t_ms, kind, **fields):
        self.realtime.client_sent(t_ms * MS, text(kind, **fields))


def text(kind, **fields):
    """An event as a text frame."""
    payload = json.dumps({"type": kind, **fields}).encode()
    return b"\x81" + (bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")) + payload


def openai(**session):
    """OpenAI's protocol: the engine tells the session, and when a response begins."""
    it = Session()
    it.engine(0, "session.created", event_id="e", session={"id": "sess_1", "type": "realtime", "model": "gpt-realtime", **session})
    return it


def vllm():
    """vLLM's protocol (entrypoints/speech_to_text/realtime): transcriptions only, one at a time, begun by a commit."""
    it = Session()
    it.engine(0, "session.created", id="sess-1", created=1)
    it.client(1, "session.update", model="voxtral")
    return it


def done(status="completed", details=None, **usage):
    response = {"object": "realtime.response", "id": "resp_1", "status": status, "status_details": details, "usage": usage or None}
    return {"response": response}


def test_a_response_is_metered_from_created_to_done():
    """Begun by the engine's word, a token for each delta, the counts of usage at the end; nothing for the time around it."""
    it = openai()
    it.client(5, "response.create")
    it.engine(10, "response.created", response={"id": "resp_1", "status": "in_progress"})
    it.engine(11, "response.output_item.added", response_id="resp_1", item={"id": "i"})
    it.engine(30, NOW, response_id="resp_1", delta="Hel")
    it.engine(40, NOW, response_id="resp_1", delta="lo")
    it.engine(50, "response.done", **done(input_tokens=90, output_tokens=7, input_token_details={"cached_tokens": 64}))
    assert it.told.events == [("begin", "r1", 10), ("tokens", "r1", 30, 1), ("tokens", "r1", 40, 1), ("prompt", "r1", 90, 64),
                              ("end", "r1", 50)]
    (facts,) = it.told.facts
    assert (facts.endpoint, facts.model, facts.response_id, facts.finish_reason) == ("realtime", "gpt-realtime", "resp_1", "completed")
    assert (facts.outcome, facts.error_type, facts.http_status, facts.streamed) == (Outcome.COMPLETED, None, 101, True)
    assert (facts.input_tokens, facts.cached_tokens, facts.output_tokens, facts.output_source) == (90, 64, 7, TokenSource.USAGE)
    assert (facts.first_byte_ns, facts.first_token_ns, facts.last_token_ns, facts.end_ns) == (0, 20 * MS, 30 * MS, 40 * MS)
    it.realtime.over(60 * MS, Outcome.CANCELLED, "client_disconnected")
    assert len(it.told.facts) == 1


def test_responses_may_run_at_once():
    """Those outside of the conversation do; each has its own deltas and its own end."""
    it = openai()
    for name in ("a", "b"):
        it.engine(10, "response.created", response={"id": name})
    it.engine(20, NOW, response_id="b", delta="x")
    it.engine(30, "response.done", response={"id": "b", "status": "completed"})
    it.engine(40, "response.output_audio.delta", response_id="a", delta="AAAA")
    it.engine(50, "response.done", response={"id": "a", "status": "completed"})
    assert [(f.record_id, f.output_tokens, f.output_source) for f in it.told.facts] == [("r2", 1, FRAMES), ("r1", 1, FRAMES)]


ENDS = {
    "completed": ("completed", None, Outcome.COMPLETED, None, "completed"),
    "at its limit": ("incomplete", {"type": "incomplete", "reason": "max_output_tokens"}, Outcome.COMPLETED, None, "max_output_tokens"),
    "interrupted": ("cancelled", {"type": "cancelled", "reason": "turn_detected"}, Outcome.CANCELLED, "turn_detected", "turn_detected"),
    "cancelled, unsaid": ("cancelled", None, Outcome.CANCELLED, "cancelled", "cancelled"),
    "failed": ("failed", {"type": "failed", "error": {"type": "server_error", "code": "x"}}, Outcome.ERRORED, "server_error", "failed"),
    "failed, unsaid": ("failed", None, Outcome.ERRORED, "failed", "failed"),
}


@pytest.mark.parametrize(("status", "details", "outcome", "error", "reason"), ENDS.values(), ids=ENDS)
def test_a_response_ends_as_the_engine_says(status, details, outcome, error, reason):
    """Its status is the outcome, with the reason behind it."""
    it = openai()
    it.engine(10, "response.created", response={"id": "resp_1"})
    it.engine(20, "response.done", **done(status, details))
    (facts,) = it.told.facts
    assert (facts.outcome, facts.error_type, facts.finish_reason) == (outcome, error, reason)


TRANSCRIBING = {
    "a transcription session": {"type": "transcription"},
    "a session that transcribes its input": {"audio": {"input": {"transcription": {"model": "whisper"}}}},
    "the beta's": {"input_audio_transcription": {"model": "whisper"}},
}


@pytest.mark.parametrize("session", TRANSCRIBING.values(), ids=TRANSCRIBING)
def test_a_transcription_is_metered_from_the_committed_audio(session):
    """Where input is transcribed, audio that the engine has taken is work; it ends with its transcript or its failure."""
    it = openai(**session)
    said = "conversation.item.input_audio_transcription"
    it.engine(10, "input_audio_buffer.committed", item_id="i")
    it.engine(11, "input_audio_buffer.committed", item_id="j")
    it.engine(20, f"{said}.delta", item_id="i", delta="hello")
    it.engine(30, f"{said}.completed", item_id="i", transcript="hello", usage={"type": "tokens", "input_tokens": 26, "output_tokens": 3})
    it.engine(40, f"{said}.failed", item_id="j", error={"type": "invalid_request_error", "code": "audio_unintelligible"})
    first, second = it.told.facts
    assert (first.outcome, first.input_tokens, first.output_tokens, first.end_ns) == (Outcome.COMPLETED, 26, 3, 20 * MS)
    assert (second.outcome, second.error_type, second.output_tokens) == (Outcome.ERRORED, "invalid_request_error", 0)


def test_committed_audio_of_a_conversation_is_no_work_of_its_own():
    """It is the input of the response to come, and would never end."""
    it = openai()
    it.engine(10, "input_audio_buffer.committed", item_id="i")
    assert not it.told.events


def test_a_translation_session_has_no_responses():
    """OpenAI's streams without end: nothing of it begins, and a commit in it is no transcription of vLLM's."""
    it = openai()
    it.engine(10, "session.output_transcript.delta", delta="x")
    it.client(20, "input_audio_buffer.commit")
    it.engine(30, "session.closed")
    assert not it.told.events


def test_a_delta_whose_beginning_was_not_seen_begins():
    """It runs, that much is sure; but an end alone is no response."""
    it = openai()
    it.engine(10, BETA, response_id="a", delta="x")
    it.engine(20, "response.done", response={"id": "b", "status": "completed"})
    it.engine(30, "response.done", response={"id": "a", "status": "completed"})
    assert it.told.events == [("begin", "r1", 10), ("tokens", "r1", 10, 1), ("end", "r1", 30)]


def test_a_transcription_of_vllm_is_metered_from_the_client_s_commit():
    """vLLM has no word for its beginning; a second commit is ignored, as vLLM does, and one that is final begins nothing."""
    it = vllm()
    it.client(10, "input_audio_buffer.commit", final=False)
    it.client(20, "input_audio_buffer.append", audio="AAAA")
    it.client(25, "input_audio_buffer.commit")
    it.engine(30, "transcription.delta", delta=" hel")
    it.engine(40, "transcription.delta", delta="")
    it.client(45, "input_audio_buffer.commit", final=True)
    it.engine(50, "transcription.done", text=" hel", usage={"prompt_tokens": 39, "completion_tokens": 2, "total_tokens": 41})
    it.client(60, "input_audio_buffer.commit", final=True)
    it.client(70, "input_audio_buffer.commit")
    it.realtime.over(80 * MS, Outcome.CANCELLED, "client_disconnected")
    first, second = it.told.facts
    assert (first.model, first.input_tokens, first.output_tokens, first.output_source) == ("voxtral", 39, 2, TokenSource.USAGE)
    assert (first.first_byte_ns, first.first_token_ns, first.last_token_ns, first.end_ns) == (20 * MS, 20 * MS, 30 * MS, 40 * MS)
    assert (second.outcome, second.error_type, second.end_ns) == (Outcome.CANCELLED, "client_disconnected", 10 * MS)
    assert (second.first_byte_ns, second.http_status) == (None, None)


@pytest.mark.parametrize("code", ["model_not_validated", "processing_error"])
def test_an_error_that_ends_vllm_s_transcription_ends_its_record(code):
    """The commit was refused, or generation failed."""
    it = vllm()
    it.client(10, "input_audio_buffer.commit")
    it.engine(20, "error", error="secret text", code=code)
    (facts,) = it.told.facts
    assert (facts.outcome, facts.error_type) == (Outcome.ERRORED, code)


@pytest.mark.parametrize("code", ["invalid_audio", "invalid_json", "unknown_event", [], {}, 7, None])
def test_an_error_about_one_event_ends_nothing(code):
    """Generation goes on, in both protocols."""
    it = vllm()
    it.client(10, "input_audio_buffer.commit")
    it.engine(20, "error", error="no", code=code)
    it.engine(30, "transcription.done", text="", usage=None)
    assert [facts.outcome for facts in it.told.facts] == [Outcome.COMPLETED]
    it = openai()
    it.engine(10, "response.created", response={"id": "resp_1"})
    it.engine(20, "error", error={"type": "invalid_request_error", "code": code})
    it.engine(30, "response.done", **done())
    assert [facts.outcome for facts in it.told.facts] == [Outcome.COMPLETED]


CLOSE = b"\x88\x02\x03\xe8"


@pytest.mark.parametrize(("by", "outcome"), [("client", (Outcome.CANCELLED, "client_disconnected")),
                                             ("engine", (Outcome.ERRORED, "upstream_closed"))])
def test_who_closes_first_has_ended_what_runs(by, outcome):
    """A Close frame tells more than who closed the connection first, which by RFC 6455 is always the server."""
    it = openai()
    it.engine(10, "response.created", response={"id": "resp_1"})
    sent = it.realtime.client_sent if by == "client" else it.realtime.engine_sent
    answered = it.realtime.engine_sent if by == "client" else it.realtime.client_sent
    sent(20 * MS, CLOSE)
    answered(21 * MS, CLOSE)
    it.realtime.over(22 * MS, Outcome.ERRORED, "upstream_closed" if by == "client" else "x")
    (facts,) = it.told.facts
    assert ((facts.outcome, facts.error_type), facts.end_ns) == (outcome, 12 * MS)


def test_what_is_not_seen_to_end_is_not_charged_on():
    """When the engine's side cannot be read any further, what runs ends there, and says why."""
    it = openai()
    it.engine(10, "response.created", response={"id": "resp_1"})
    with pytest.raises(UnreadableError):
        it.realtime.engine_sent(20 * MS, b"\xff\x00")
    (facts,) = it.told.facts
    assert (facts.outcome, facts.error_type, facts.end_ns) == (Outcome.ERRORED, "websocket_unreadable", 10 * MS)


def test_what_cannot_be_seen_to_end_does_not_begin():
    """A commit after that is not metered: it would seem to run for as long as the session lasts."""
    it = vllm()
    with pytest.raises(UnreadableError):
        it.realtime.engine_sent(5 * MS, b"\xff\x00")
    it.client(10, "input_audio_buffer.commit")
    assert not it.told.events


def test_a_client_that_cannot_be_read_is_metered_by_the_engine_s_words():
    """A commit is missed then, and the first delta begins."""
    it = vllm()
    with pytest.raises(UnreadableError):
        it.realtime.client_sent(2 * MS, b"\xff\x00")
    it.client(10, "input_audio_buffer.commit")
    it.engine(20, "transcription.delta", delta="a")
    it.engine(30, "transcription.done", text="a", usage={"prompt_tokens": 1, "completion_tokens": 1})
    assert it.told.events[0] == ("begin", "r1", 20)


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"type":1}', b'{"type":"response.created"}', b'{"type":"error"}',
                                     b'{"type":"response.created","response":[]}', b'{"type":"response.done","response":1}',
                                     b'{"type":"session.created","session":{"audio":{"input":7}}}',
                                     b'{"type":"response.x.delta","response_id":7}', b"\xff"])
def test_nonsense_is_nothing(payload):
    """No type is trusted; nothing begins and nothing is raised."""
    it = openai()
    it.realtime.engine_sent(MS, b"\x81" + bytes([len(payload)]) + payload)
    it.realtime.client_sent(MS, b"\x81" + bytes([len(payload)]) + payload)
    assert not it.told.events


def test_the_model_of_the_handshake_holds_until_the_session_says_another():
    """`?model=` names it, `session.updated` knows better."""
    it = Session(model="asked")
    it.engine(10, "response.created", response={"id": "a"})
    it.engine(20, "session.updated", session={"model": "served"})
    it.engine(30, "response.created", response={"id": "b"})
    it.realtime.over(40 * MS, Outcome.ERRORED, "shutdown")
    assert [facts.model for facts in it.told.facts] == ["asked", "served"]


STREAMS = Path(__file__).parents[2] / "streams"


@pytest.mark.parametrize(("name", "deltas"), [("realtime-plain", 125), ("realtime-deflate", 128)])
def test_a_recorded_session_of_vllm_is_read_to_the_token(name, deltas):
    """Bytes of vLLM 0.32 with a tiny Qwen3-ASR, as they came: a commit that is refused, then two transcriptions of 0.6 s of sound."""
    passed = [json.loads(line) for line in (STREAMS / f"{name}.jsonl").read_text().splitlines()]
    pieces = [(piece["from"], round(piece["ms"] * MS), base64.b64decode(piece["bytes"])) for piece in passed]
    _, (_, _, answered), *pieces = pieces
    extensions = re.search(rb"Sec-WebSocket-Extensions: (.*)\r\n", answered)
    it = Session(extensions=extensions[1] if extensions else b"")
    for sender, t_ns, data in pieces:
        (it.realtime.client_sent if sender == "client" else it.realtime.engine_sent)(t_ns, data)
    refused, *transcribed = it.told.facts
    assert (refused.outcome, refused.error_type, refused.output_tokens) == (Outcome.ERRORED, "model_not_validated", 0)
    assert len(transcribed) == 2
    for facts in transcribed:
        assert (facts.outcome, facts.model, facts.input_tokens, facts.output_tokens) == (Outcome.COMPLETED, "tiny", 20, 64)
        assert 0 < facts.first_token_ns < facts.last_token_ns <= facts.end_ns
    shown = [told[3] for told in it.told.events if told[0] == "tokens"]
    assert sum(shown) == deltas  # vLLM puts tokens together that wait to be sent: a delta is one, or more
