"""T12–T23: what a record says of tokens and times is what happened, whatever engines leave out and clients ask for."""

import asyncio
import json
from itertools import pairwise

import pytest

from perjoule.sidecar.record import Outcome, TokenSource
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import CUT, PAUSE, answer, chunked, scripted, sse, stream_head
from tests.hostile.wire import (
    ASKED,
    CHAT,
    COUNTED,
    COUNTS,
    ID,
    INFER,
    LAST,
    ONE,
    ROLE,
    STREAM,
    TWO,
    WITH_USAGE,
    WITHOUT_USAGE,
    frame,
    until,
)


async def test_t12_usage_is_known_although_the_client_did_not_ask():
    """The engine is asked for it, and the record has its counts."""
    async with scripted([stream_head(), chunked(WITH_USAGE)]) as engine, sidecar(engine.url) as front:
        await front.send(post(CHAT, STREAM))
        assert b'"include_usage":true' in engine.requests[0]
        (record,) = await front.records(1)
        assert (record.facts.input_tokens, record.facts.output_tokens, record.facts.output_source) == (9, 2, TokenSource.USAGE)


async def test_t13_t14_t24_hidden_usage_leaves_no_trace_however_the_stream_is_cut():
    """Cut at every byte into reads of its own, and glued together: no usage frame, and the fingerprint back in its frame."""
    byte_by_byte = [step for i in range(len(WITH_USAGE)) for step in (PAUSE, chunked(WITH_USAGE[i:i + 1])[:-5])]
    cut, glued = [stream_head(), *byte_by_byte, b"0\r\n\r\n"], [stream_head() + chunked(WITH_USAGE)]
    async with scripted(cut, glued) as engine, sidecar(engine.url, comment=False) as front:
        for _ in range(2):
            assert body_of(await front.send(post(CHAT, STREAM))) == WITHOUT_USAGE
        assert [record.facts.output_tokens for record in await front.records(2)] == [2, 2]


OPTIONS = {
    "t15_continuous_alone": b'{"stream":true,"stream_options":{"continuous_usage_stats":true}}',
    "t15_both": b'{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}',
    "t16_not_streamed": b'{"stream":false}',
    "t16_stream_absent": b'{"model":"m"}',
    "t16_options_without_a_stream": b'{"stream_options":{"include_usage":false}}',
    "t16_options_malformed": b'{"stream":true,"stream_options":[1]}',
    "t16_stream_malformed": b'{"stream":"yes"}',
    "t16_not_json": b'{"stream":true',
}


@pytest.mark.parametrize("body", OPTIONS.values(), ids=OPTIONS)
async def test_t15_t16_nothing_is_asked_where_asking_would_change_the_answer(body):
    """The request goes out as it came: the engine says itself what it thinks of it."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        await front.send(post(CHAT, body))
        assert engine.requests[0].endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize("is_asked", [False, True])
async def test_t17_tokens_of_a_stream_that_is_left_before_its_usage_are_counted(is_asked):
    """Three frames came: three tokens, said to be counted by frames, whether or not usage was asked for."""
    frames = [chunked(sse(frame(text)))[:-5] for text in "abc"]
    async with scripted([stream_head(), *frames, 30.0]) as engine, sidecar(engine.url) as front:
        await front.send(post(CHAT, ASKED if is_asked else STREAM), until=b'"c"')
        (record,) = await front.records(1)
        assert record.facts.outcome is Outcome.CANCELLED
        assert (record.facts.output_tokens, record.facts.output_source) == (3, TokenSource.FRAMES)


async def test_t17_running_usage_is_believed_up_to_where_the_client_left():
    """Where frames carry cumulative usage, the last one that came has the count, although the stream has no end."""
    both = b'{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}'

    def counted(text, tokens):
        return chunked(sse(frame(text, extra=f',"usage":{{"prompt_tokens":9,"completion_tokens":{tokens}}}')))[:-5]

    async with scripted([stream_head(), counted("a", 4), counted("b", 8), 30.0]) as engine, sidecar(engine.url) as front:
        await front.send(post(CHAT, both), until=b'"b"')
        (record,) = await front.records(1)
        assert (record.facts.outcome, record.facts.output_tokens) == (Outcome.CANCELLED, 8)


async def test_t18_no_tokens_is_a_count():
    """A usage of 0 is what the engine counted, not a usage that is missing."""
    whole = answer(b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":0}}')
    async with scripted([whole], [answer(b'{"choices":[]}')]) as engine, sidecar(engine.url) as front:
        await front.send(post(CHAT, INFER))
        await front.send(post(CHAT, INFER))
        zero, missing = await front.records(2)
        assert (zero.facts.output_tokens, zero.facts.output_source) == (0, TokenSource.USAGE)
        assert (missing.facts.output_tokens, missing.facts.output_source) == (None, None)


async def test_t19_what_is_tried_again_is_counted_once():
    """A request that went out twice over a stale connection has one record; a client's own second try has its own."""
    once = post(CHAT, INFER, "X-Request-Id: the-same")
    async with scripted([answer(COUNTED)], [CUT], [answer(COUNTED)]) as engine, sidecar(engine.url) as front:
        await front.send(once)
        await front.send(once)
        assert len(engine.requests) == 3
        records = await front.records(2)
        await until(lambda: front.service.meter.unsettled == 0)
        assert [record.facts.output_tokens for record in records] == [2, 2]
        assert {record.facts.request_id for record in records} == {"the-same"}
        assert len({record.facts.record_id for record in records}) == 2


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "429 Too Many Requests"])
async def test_t19_an_engine_s_refusal_is_counted_with_its_status(status):
    """It is relayed, not tried again, and its one record says errored, with the status."""
    async with scripted([answer(b'{"error":"no"}', "retry-after: 7", status=status)]) as engine, sidecar(engine.url) as front:
        raw = await front.send(post(CHAT, INFER))
        assert raw.startswith(f"HTTP/1.1 {status}\r\n".encode())
        assert b"retry-after: 7\r\n" in raw
        (record,) = await front.records(1)
        assert len(engine.requests) == 1
        assert (record.facts.outcome, record.facts.http_status) == (Outcome.ERRORED, int(status[:3]))


async def test_t20_frames_are_not_tokens():
    """Frames of several tokens, and frames of none: the engine's own count stands, not the number of frames."""
    frames = [ROLE, frame("a few tokens"), frame(""), frame("more of them", '"stop"')]
    last = f'{{{ID},"choices":[],"usage":{{"prompt_tokens":9,"completion_tokens":7}}}}'
    async with scripted([stream_head(), chunked(sse(*frames, last, "[DONE]"))]) as engine, sidecar(engine.url) as front:
        await front.send(post(CHAT, STREAM))
        (record,) = await front.records(1)
        assert (record.facts.output_tokens, record.facts.output_source) == (7, TokenSource.USAGE)


REASONING = f'{{{ID},"choices":[{{"index":0,"delta":{{"reasoning_content":"hm"}},"finish_reason":null}}]}}'


@pytest.mark.parametrize("first", [ONE, REASONING], ids=["content", "t20_reasoning"])
async def test_t21_the_first_byte_is_not_the_first_token(first):
    """A keep-alive comment and a role come early, a token late; and a thought is a token."""
    early = [stream_head(), chunked(b": keep-alive\n\n", sse(ROLE))[:-5], 0.2]
    async with scripted([*early, chunked(sse(first, TWO, LAST, "[DONE]"))]) as engine, sidecar(engine.url) as front:
        await front.send(post(CHAT, ASKED))
        (record,) = await front.records(1)
        assert record.facts.first_token_ns - record.facts.first_byte_ns > 100_000_000
        assert record.facts.first_token_ns <= record.facts.last_token_ns <= record.facts.end_ns


MANY = {
    "choices": ("/v1/chat/completions", {"n": 3, "stream": True, "messages": []}),
    "prompts": ("/v1/completions", {"prompt": ["a", "b", "c"], "stream": True}),
    "embeddings": ("/v1/embeddings", {"input": ["a", "b", "c"]}),
}


@pytest.mark.parametrize(("path", "asked"), MANY.values(), ids=MANY)
async def test_t22_tokens_of_many_in_one_request_are_summed_once(path, asked):
    """Three choices, three prompts or three inputs: prompt and output as the engine summed them, in one record."""
    usage = '"usage":{"prompt_tokens":9,"completion_tokens":6,"total_tokens":15}'
    asked = asked | ({"stream_options": {"include_usage": True}} if "stream" in asked else {})
    events = sse(*(frame("x", index=i) for i in (0, 1, 2, 2, 1, 0)), f'{{{ID},"choices":[],{usage}}}', "[DONE]")
    script = [stream_head(), chunked(events)] if "stream" in asked else [answer(f'{{"model":"m","data":[],{usage}}}'.encode())]
    async with scripted(script) as engine, sidecar(engine.url) as front:
        await front.send(post(path, json.dumps(asked).encode()))
        (record,) = await front.records(1)
        assert (record.facts.input_tokens, record.facts.output_tokens) == (9, 6)


async def test_t22_a_hidden_count_is_not_asked_for_where_it_could_not_be_hidden():
    """With several choices frames cannot be put back as they would have been: nothing is asked, and frames are counted."""
    body = b'{"n":2,"stream":true,"messages":[]}'
    events = sse(frame("x"), frame("y", index=1), "[DONE]")
    async with scripted([stream_head(), chunked(events)]) as engine, sidecar(engine.url, comment=False) as front:
        assert body_of(await front.send(post(CHAT, body))) == events
        assert engine.requests[0].endswith(body)
        (record,) = await front.records(1)
        assert (record.facts.output_tokens, record.facts.output_source) == (2, TokenSource.FRAMES)


async def test_t23_durations_are_of_the_clock_that_never_steps():
    """A record's times are in the order of events, and all within what the monotonic clock saw from outside."""
    script = [stream_head(), 0.05, chunked(sse(ONE))[:-5], 0.05, chunked(sse(TWO, LAST, f'{{{ID},"choices":[],{COUNTS}}}', "[DONE]"))]
    async with scripted(script) as engine, sidecar(engine.url) as front:
        began_ns = asyncio.get_running_loop().time() * 1e9
        await front.send(post(CHAT, ASKED))
        (record,) = await front.records(1)
        took_ns = asyncio.get_running_loop().time() * 1e9 - began_ns
        facts = record.facts
        times = [0, facts.first_byte_ns, facts.first_token_ns, facts.last_token_ns, facts.end_ns, took_ns]
        assert all(before <= after for before, after in pairwise(times))
        assert facts.last_token_ns - facts.first_token_ns >= 40_000_000
