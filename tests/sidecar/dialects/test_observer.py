"""What a response tells while it passes, on streams recorded from vLLM 0.32 and on hostile ones."""

import gzip
import json
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.dialects.endpoints import endpoint_of
from perjoule.sidecar.dialects.observer import BodyObserver, StreamObserver, observer_for, readable_encodings
from perjoule.sidecar.dialects.usage import Usage
from perjoule.sidecar.dialects.works import Product
from perjoule.sidecar.record import Unit, UnitSource

STREAMS = Path(__file__).parents[2] / "streams"
PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "responses": "/v1/responses",
         "messages": "/v1/messages", "engine": "/v1/chat/completions"}
RECORDED = {path.stem: path.read_bytes() for path in sorted(STREAMS.glob("*.sse"))}
CHAT = endpoint_of("POST", PATHS["chat"])
GENERATE = endpoint_of("POST", "/generate")


def endpoint(name):
    return endpoint_of("POST", PATHS[name.partition("-")[0]])


def observe(observer, data, sizes=()):
    """The tokens that the observer counted, the data fed in pieces of these sizes and then the rest."""
    tokens, at = 0, 0
    for size in sizes:
        tokens += observer.feed(data[at:at + size])
        at += size
    tokens += observer.feed(data[at:])
    observer.finish()
    return tokens


def seen(observer):
    return {name: getattr(observer, name) for name in (
        "usage", "output_frames", "error", "finish_reason", "response_id", "response_model", "saw_done", "broken")}


def frame(content, **more):
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}], **more}


def stream(*payloads):
    return b"".join(b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n" for payload in payloads)


@pytest.mark.parametrize(("name", "tokens", "usage", "reason"), [
    ("chat-plain", 6, None, "length"),
    ("chat-usage", 6, (10, 6, 0), "length"),
    ("chat-continuous", 6, (10, 6, 0), "length"),
    ("chat-one-token-usage", 1, (10, 1, 0), "length"),
    ("chat-logprobs-usage", 3, (10, 3, 0), "length"),
    ("chat-stop-usage", 1, (10, 1, 0), "stop"),
    ("chat-two-choices-plain", 6, None, "length"),
    ("chat-two-choices-usage", 6, (10, 6, 0), "length"),
    ("chat-two-choices-continuous", 6, (10, 6, 0), "length"),
    ("completions-plain", 6, None, "length"),
    ("completions-continuous", 6, (2, 6, 0), "length"),
    ("completions-two-prompts-usage", 6, (4, 6, 0), "length"),
    ("completions-echo-usage", 2, (2, 2, 0), "length"),
    ("responses-plain", 2, (10, 5, 0), "max_output_tokens"),  # five tokens came in two frames: a chunk is not a token
    ("messages-plain", 5, (10, 5, 0), "max_tokens"),
])
def test_a_recorded_stream_is_read(name, tokens, usage, reason):
    """Tokens seen in passing, the engine's own counts, and why it ended."""
    observer = observer_for(endpoint(name), True, None, 2 if "-two-" in name else 1)
    assert observe(observer, RECORDED[name]) == tokens
    said = observer.usage
    counts = said and (said.input_tokens, said.output_tokens, said.cached_tokens)
    assert (counts, observer.finish_reason, observer.response_model) == (usage, reason, "tiny")
    assert observer.saw_done
    assert observer.error is observer.broken is None


def test_a_transcript_may_come_as_bare_text():
    """From `transformers serve`: each event is a piece of text, and nothing but text."""
    observer = StreamObserver(endpoint_of("POST", "/v1/audio/transcriptions"))
    assert observe(observer, b"data: def\n\ndata:  main\n\ndata: 5\n\n: comment\n\ndata: [DONE]\n\n") == 3
    assert (observer.output_frames, observer.saw_done, observer.usage) == (3, True, None)


def timed(index, output_tokens):
    return {"choices": [{"index": index, "delta": {}, "finish_reason": "length"}],
            "timings": {"cache_n": 3, "prompt_n": 1, "predicted_n": output_tokens}}


def test_llama_cpp_tells_the_tokens_of_each_choice_at_its_end():
    """Nobody asked for usage: what was counted by frames stays, and the engine's count of the request is that of all its choices."""
    observer = StreamObserver(CHAT, choices=2)
    first, second = frame("a"), frame("b") | {"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": None}]}
    assert observe(observer, stream(first, second, first, timed(0, 3), second, timed(1, 2)) + b"data: [DONE]\n\n") == 4
    assert (observer.usage, observer.output_frames) == (Usage(4, 5, 3), 4)


def test_llama_cpp_s_usage_is_that_of_each_choice():
    """Asked for usage, it sends one for each choice, and the request's is their sum."""
    observer = StreamObserver(CHAT, choices=2)
    usage = {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}, "timings": {"cache_n": 3, "predicted_n": 2}}
    assert observe(observer, stream(frame("a"), frame("a"), usage, frame("a"), frame("a"), usage)) == 4
    assert observer.usage == Usage(4, 4)


def test_llama_cpp_s_own_stream_has_a_last_word_without_done():
    """A frame is a token until the last, which tells the count; more than one token may be in a frame."""
    observer = StreamObserver(endpoint_of("POST", "/completion"))
    frames = [{"index": 0, "content": text, "tokens": [5], "stop": False, "tokens_predicted": 1} for text in "abc"]
    last = {"content": "", "stop": True, "stop_type": "limit", "timings": {"cache_n": 0, "prompt_n": 2, "predicted_n": 4}}
    assert observe(observer, stream(*frames)) == 3
    assert not observer.saw_done
    assert observe(observer, stream(last)) == 0
    assert (observer.usage, observer.saw_done, observer.finish_reason) == (Usage(2, 4, 0), True, "limit")


@pytest.mark.parametrize("name", RECORDED)
def test_byte_by_byte_and_event_by_event_tell_the_same(name):
    """How a network cuts a stream changes nothing in what is seen, and neither does another line end."""
    whole = observer_for(endpoint(name), True, None, 2)
    tokens = observe(whole, RECORDED[name])
    events = [len(event) + 2 for event in RECORDED[name].split(b"\n\n")]
    for data, sizes in ((RECORDED[name], [1] * len(RECORDED[name])), (RECORDED[name], events),
                        (RECORDED[name].replace(b"\n", b"\r\n"), ())):
        other = observer_for(endpoint(name), True, None, 2)
        assert observe(other, data, sizes) == tokens
        assert seen(other) == seen(whole)


@given(st.sampled_from(sorted(RECORDED)), st.lists(st.integers(1, 400)))
def test_chunking_is_invisible(name, sizes):
    """Any chunking gives the same tokens and the same facts."""
    whole, pieces = (observer_for(endpoint(name), True, None, 2) for _ in range(2))
    assert observe(pieces, RECORDED[name], sizes) == observe(whole, RECORDED[name])
    assert seen(pieces) == seen(whole)


@pytest.mark.parametrize(("name", "error", "tokens"), [
    ("engine-killed", "InternalServerError", 3), ("chat-refused", "BadRequestError", 0),
])
def test_an_error_inside_a_stream_of_status_200_is_an_error(name, error, tokens):
    """vLLM's engine killed under a stream, and a bad parameter found late: both end in [DONE], both failed."""
    observer = observer_for(CHAT, True, None, 1)
    assert observe(observer, RECORDED[name]) == tokens
    assert (observer.error, observer.usage, observer.saw_done) == (error, None, True)


def test_a_stream_cut_off_keeps_what_was_seen():
    """Running usage up to the cut is exact; half a frame is none."""
    data = RECORDED["chat-continuous"]
    observer = observer_for(CHAT, True, None, 1)
    assert observe(observer, data[:data.index(b'"completion_tokens":4')]) == 3
    assert (observer.usage, observer.saw_done) == (Usage(10, 3), False)


def test_anthropic_s_first_count_is_not_a_count():
    """`message_start` says how long the prompt is; how long the answer is stays unknown until `message_delta`."""
    observer = observer_for(endpoint("messages"), True, None, 1)
    observe(observer, RECORDED["messages-plain"].partition(b"event: message_delta")[0])
    assert observer.usage == Usage(input_tokens=10)


def test_comments_and_roles_come_before_the_first_token():
    """Keep-alives, the role and empty deltas show nothing; reasoning is the first token."""
    observer = observer_for(CHAT, True, None, 1)
    assert observer.feed(b": keep-alive\n\n") == 0
    assert observer.feed(stream({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})) == 0
    assert observer.feed(stream(frame(""))) == 0
    assert observer.feed(stream({"choices": [{"index": 0, "delta": {"reasoning": "hm"}, "finish_reason": None}]})) == 1


def test_running_usage_counts_several_tokens_a_frame():
    """With speculative decoding a frame brings more than one; cumulative usage tells how many."""
    frames = [stream(frame("a b c", usage={"prompt_tokens": 2, "completion_tokens": 3})),
              stream(frame("", usage={"prompt_tokens": 2, "completion_tokens": 4})),
              stream(frame("d e", usage={"prompt_tokens": 2, "completion_tokens": 6}))]
    observer = observer_for(CHAT, True, None, 1)
    assert [observer.feed(data) for data in frames] == [3, 1, 2]
    assert observer.usage == Usage(2, 6)


def test_usage_in_the_finish_frame_is_not_counted_twice():
    """Some engines put the only usage beside the last content: the frames before it were counted already."""
    last = frame("c", usage={"prompt_tokens": 2, "completion_tokens": 3})
    last["choices"][0]["finish_reason"] = "stop"
    observer = observer_for(CHAT, True, None, 1)
    assert observe(observer, stream(frame("a"), frame("b"), last)) == 3
    assert observer.usage == Usage(2, 3)


def test_a_whole_answer_in_one_frame_counts_all_its_tokens():
    """vLLM answers some streams with a single event that holds everything, usage too."""
    data = b"data: " + (STREAMS / "completions-body.json").read_bytes() + b"\n\ndata: [DONE]\n\n"
    assert observe(observer_for(endpoint("completions"), True, None, 2), data) == 12


@pytest.mark.parametrize("spaced", [b'"finish_reason": null', b'"finish_reason":null'])
def test_text_about_the_protocol_is_only_text(spaced):
    """Content that quotes usage, errors and [DONE] is content."""
    content = '"usage":{"completion_tokens":99},"error":{"type":"x"} data: [DONE]\n\ndata: {} "finish_reason":"stop"'
    data = stream(frame("a"), frame(content), frame(content)).replace(b'"finish_reason":null', spaced)
    observer = observer_for(CHAT, True, None, 1)
    assert observe(observer, data) == 3
    assert (observer.usage, observer.error, observer.finish_reason, observer.saw_done) == (None, None, None, False)


def test_tgi_and_sglang_streams_are_read():
    """TGI: one event a token, the last with the details. SGLang: text and counts that grow."""
    tgi = observer_for(GENERATE, True, None, 1)
    assert observe(tgi, stream(
        {"index": 1, "token": {"id": 5, "text": "a"}, "generated_text": None, "details": None},
        {"index": 2, "token": {"id": 6, "text": "b"}, "generated_text": None, "details": None},
        {"index": 3, "token": {"id": 7, "text": "c"}, "generated_text": "abc",
         "details": {"finish_reason": "length", "generated_tokens": 3, "input_length": 4}})) == 3
    assert (tgi.usage, tgi.finish_reason, tgi.saw_done) == (Usage(4, 3), "length", True)
    sglang = observer_for(GENERATE, True, None, 1)
    assert observe(sglang, stream(
        {"text": "a", "meta_info": {"prompt_tokens": 4, "completion_tokens": 1, "finish_reason": None}},
        {"text": "abc", "meta_info": {"prompt_tokens": 4, "completion_tokens": 3, "finish_reason": {"type": "stop"}}})
        + b"data: [DONE]\n\n") == 3
    assert (sglang.usage, sglang.finish_reason, sglang.saw_done) == (Usage(4, 3), "stop", True)


@pytest.mark.parametrize(("name", "usage", "reason"), [
    ("chat-body", (10, 6), "length"), ("completions-body", (3, 12), "length"),
    ("responses-body", (8, 5), "max_output_tokens"), ("messages-body", (10, 5), "max_tokens"),
])
def test_a_recorded_body_is_read(name, usage, reason):
    """A body shows no token in passing; at its end it tells usage, model and why it stopped, however it was cut."""
    for cut in (1, 100, 5000):
        body = (STREAMS / f"{name}.json").read_bytes()
        observer = observer_for(endpoint(name), False, b"identity", 1)
        assert observe(observer, body, [cut] * (len(body) // cut)) == 0
        assert (observer.usage.input_tokens, observer.usage.output_tokens) == usage
        assert (observer.finish_reason, observer.response_model, observer.broken) == (reason, "tiny", None)


def test_an_error_body_is_an_error():
    """vLLM's 404 names its type."""
    observer = observer_for(CHAT, False, None, 1)
    observe(observer, (STREAMS / "error-body.json").read_bytes())
    assert observer.error == "NotFoundError"


def test_of_a_long_body_the_end_is_read():
    """Megabytes of vectors are neither kept nor parsed; the usage behind them is read."""
    vectors, end = b'{"data":[' + b"0.5," * 1_000_000, b'1],"usage":{"prompt_tokens":7,"total_tokens":7},"x":null}'
    observer = BodyObserver()
    observe(observer, vectors + end, [65536] * 60)
    assert (observer.usage, observer.broken) == (Usage(7), None)


@pytest.mark.parametrize(("body", "broken"), [
    (b"RIFF....WAVE", "the body is not a JSON object"),
    (b'{"data":"' + b"A" * 600_000 + b'"}', "no usage at the end of a long body"),
])
def test_a_body_without_usage_says_why(body, broken):
    """Audio and images tell nothing, and the observer says so instead of inventing."""
    observer = BodyObserver()
    observe(observer, body)
    assert (observer.usage, observer.broken) == (None, broken)


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"X-GZIP"])
def test_a_compressed_stream_is_read_on_the_side(encoding):
    """gzip and zlib, cut anywhere, tell what the plain stream tells."""
    plain = RECORDED["chat-usage"]
    packed = zlib.compress(plain) if encoding == b"deflate" else gzip.compress(plain)
    for sizes in ((), [1] * len(packed)):
        observer = observer_for(CHAT, True, encoding, 1)
        assert observe(observer, packed, sizes) == 6
        assert (observer.usage.output_tokens, observer.broken) == (6, None)


def test_plain_text_inside_a_compressed_stream_is_broken_and_no_token():
    """What looks like an ordinary frame is still decompressed first where the response said gzip."""
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS + 16)
    observer = observer_for(CHAT, True, b"gzip", 1)
    assert observer.feed(packer.compress(stream(frame("a"))) + packer.flush(zlib.Z_SYNC_FLUSH)) == 1
    assert observer.feed(stream(frame("b"))) == 0
    assert observer.broken


@pytest.mark.parametrize(("encoding", "data"), [
    (b"br", b"\x8b\x00"), (b"gzip, br", b"x"), (b"zstd", b"x"), (b"gzip", b"not gzip"),
    (b"gzip", gzip.compress(bytes(20 << 20), mtime=0)),
])
def test_what_cannot_be_decompressed_is_said(encoding, data):
    """Unknown encodings, broken ones and bombs: nothing counted, the reason kept, nothing raised."""
    for streamed in (True, False):
        observer = observer_for(CHAT, streamed, encoding, 1)
        assert observe(observer, data) == 0
        assert observer.feed(b"data: {}\n\n") == 0
        assert observer.broken
        assert observer.usage is None


def test_an_endless_event_ends_the_reading_and_not_the_relay():
    """Beyond the bound the observer says so and counts no more."""
    observer = observer_for(CHAT, True, None, 1)
    observer.feed(stream(frame("a")))
    observer.feed(b"data: " + b"x" * (2 << 20))
    assert observer.broken == "an event too long to read"
    assert observer.feed(stream(frame("b"))) == 0
    observer.finish()


@pytest.mark.parametrize(("accepted", "readable"), [
    (b"gzip, deflate", b"gzip, deflate"), (b"gzip;q=0.5, br;q=1.0", b"gzip;q=0.5"), (b"br, GZIP ,zstd", b"GZIP"), (b"*", b"identity"),
    (b"", b"identity"), (b"identity;q=0", b"identity;q=0")])
def test_of_encodings_those_are_kept_that_can_be_read(accepted, readable):
    """With their weights and spelling; where none is left, it is the one that everybody accepts."""
    assert readable_encodings(accepted) == readable


_IMAGE = "A" * 9000
_SAYS = st.sampled_from([b'{"created":1,"data":[{"b64_json":"%b"},{"b64_json":"%b","x":"\\""}],"size":"64x32","num_inference_steps":4}' % (
    (_IMAGE.encode(),) * 2), b'{"error":{"type":"x"}}', b"\x89PNG" * 4000, b'{"data":[', b'  {"data":[{}]}'])


@given(_SAYS, st.lists(st.integers(1, 9000), min_size=1, max_size=30))
def test_an_answer_with_images_tells_the_same_however_it_is_cut(body, sizes):
    """Whole or in pieces: images, size, steps and error, with the images themselves left out."""
    def told(sizes):
        observer = observer_for(endpoint_of("POST", "/v1/images/generations"), False, None, 1, Product(Unit.IMAGE, 4, UnitSource.ASKED))
        observe(observer, body, sizes)
        return observer.makes, observer.error, observer.broken

    assert told(sizes) == told([])
    if b"PNG" not in body and body.endswith(b'"num_inference_steps":4}'):
        assert told(sizes)[0] == Product(Unit.IMAGE, 2, UnitSource.ANSWERED, 4, 64, 32)


@given(st.lists(st.binary(max_size=40) | st.sampled_from(
    [b"data: ", b"\n\n", b"{", b"}", b'"usage":{"prompt_tokens":', b'"choices":[', b"[DONE]", b"null", b"1"]))
    .map(b"".join), st.booleans())
def test_garbage_does_not_raise(data, streamed):
    """Whatever an upstream sends, the relay goes on."""
    observer = observer_for(CHAT, streamed, None, 1)
    assert isinstance(observer, StreamObserver if streamed else BodyObserver)
    assert observe(observer, data, [7] * (len(data) // 7)) >= 0
