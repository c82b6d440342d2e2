"""What is noted of one request while it passes: its times, its tokens and who counted them, and one end."""

from typing import NamedTuple

import pytest

from perjoule.sidecar.dialects.endpoints import endpoint_of
from perjoule.sidecar.dialects.requests import read_request
from perjoule.sidecar.dialects.watch import Identity, Watch
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.process.desk import Desk
from perjoule.sidecar.record import Outcome, TokenSource
from perjoule.sidecar.records.recent import Recent

MS = 1_000_000
FRAME = b'data: {"id":"c-1","model":"m-7b","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":4}}}\n\n'
DONE = b"data: [DONE]\n\n"
STREAM = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"hello there, this is text"}]}'
WHOLE = b'{"model":"m","messages":[{"role":"user","content":"hello there, this is text"}]}'


class Begun(NamedTuple):
    """A watch that has begun, and the records that it brings about."""

    watch: Watch
    settled: list


def watch(body=STREAM, meter=None):
    """A watch of a request that has just been sent on."""
    endpoint = endpoint_of("POST", "/v1/chat/completions")
    settled = []
    desk = Desk(meter or Meter(), Recent(durable=True), settled.extend, None)
    it = Watch(desk, endpoint, read_request(endpoint, body), Identity("r", "mine", tenant="t"), "vllm", 100 * MS, 10**18)
    it.begin(110 * MS)
    return Begun(it, settled)


def ended(begun, *how):
    """The facts of the one record that this end brings about."""
    begun.watch.end(*how)
    (record,) = begun.settled
    return record.facts


def test_a_stream_in_full():
    """Times count from arrival; tokens, model and end come from the engine's words."""
    it = (begun := watch()).watch
    it.head(120 * MS, 200, streamed=True, encoding=None)
    for t_ms, piece in ((130, b": ping\n\n"), (200, FRAME), (220, FRAME), (240, LAST), (240, USAGE), (241, DONE)):
        it.body(t_ms * MS, piece)
    assert it.saw_done
    seen = ended(begun, 250 * MS, Outcome.COMPLETED)
    assert (seen.record_id, seen.request_id, seen.tenant, seen.model) == ("r", "mine", "t", "m")
    assert (seen.first_byte_ns, seen.first_token_ns, seen.last_token_ns, seen.end_ns) == (20 * MS, 100 * MS, 120 * MS, 150 * MS)
    assert (seen.input_tokens, seen.cached_tokens, seen.output_tokens, seen.output_source) == (9, 4, 3, TokenSource.USAGE)
    assert (seen.response_id, seen.response_model, seen.finish_reason) == ("c-1", "m-7b", "stop")
    assert (seen.outcome, seen.error_type, seen.http_status) == (Outcome.COMPLETED, None, 200)


def test_without_usage_frames_are_a_lower_bound():
    """A client that left before the usage frame: the tokens that were seen, and who counted them; the prompt by its size."""
    it = (begun := watch()).watch
    it.head(120 * MS, 200, streamed=True, encoding=None)
    it.body(200 * MS, FRAME + FRAME)
    seen = ended(begun, 250 * MS, Outcome.CANCELLED, "client_disconnected")
    assert (seen.output_tokens, seen.output_source) == (2, TokenSource.FRAMES)
    assert (seen.input_tokens > 0, seen.input_source) == (True, TokenSource.ESTIMATED)
    assert (seen.outcome, seen.error_type) == (Outcome.CANCELLED, "client_disconnected")


def test_an_answer_that_is_not_streamed_has_no_token_times():
    """Its tokens became visible all at once: a time of the first token would be invented."""
    it = (begun := watch(WHOLE)).watch
    it.head(120 * MS, 200, streamed=False, encoding=None)
    it.body(200 * MS, b'{"choices":[{"finish_reason":"length"}],"usage":{"prompt_tokens":9,"completion_tokens":3}}')
    seen = ended(begun, 250 * MS, Outcome.COMPLETED)
    assert (seen.first_token_ns, seen.last_token_ns, seen.streamed) == (None, None, False)
    assert (seen.output_tokens, seen.finish_reason) == (3, "length")


def test_what_is_not_known_is_null():
    """It broke off before a byte came: no status, no times, no output tokens, and never a 0."""
    seen = ended(watch(WHOLE), 250 * MS, Outcome.ERRORED, "upstream_closed")
    assert seen.http_status is seen.first_byte_ns is seen.first_token_ns is seen.output_tokens is seen.output_source is None


def test_only_the_first_end_counts():
    """One record, one outcome."""
    it = (begun := watch()).watch
    it.end(200 * MS, Outcome.CANCELLED)
    it.end(300 * MS, Outcome.COMPLETED)
    assert [record.facts.outcome for record in begun.settled] == [Outcome.CANCELLED]
    assert it.duration_ns(900 * MS) == 100 * MS


def test_after_the_end_nothing_is_noted():
    """A last read that comes late changes no count."""
    it = watch().watch
    it.head(120 * MS, 200, streamed=True, encoding=None)
    it.end(200 * MS, Outcome.CANCELLED)
    it.body(210 * MS, FRAME)
    assert not it.saw_done


@pytest.mark.parametrize(("status", "body", "error_type"), [
    (400, b'{"error":{"type":"BadRequestError"}}', "400"),
    (503, b"", "503"),
    (200, b'data: {"error":{"type":"InternalServerError","message":"x"}}\n\n', "InternalServerError")])
def test_an_engine_s_error_is_no_completion(status, body, error_type):
    """Neither by status nor inside a stream that began with 200."""
    it = (begun := watch()).watch
    it.head(120 * MS, status, streamed=status == 200, encoding=None)
    it.body(200 * MS, body)
    seen = ended(begun, 250 * MS, Outcome.COMPLETED)
    assert (seen.outcome, seen.error_type) == (Outcome.ERRORED, error_type)


def test_an_upload_is_no_running():
    """It runs in the meter from when it is sent on, not from when its first byte arrived."""
    meter = Meter()
    watch(meter=meter)
    (account,) = meter.running
    assert account.begin_ns == 110 * MS
