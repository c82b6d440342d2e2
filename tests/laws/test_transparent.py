"""Law 2, Transparent: the client gets the engine's bytes, whatever they are and however they are cut."""

import asyncio
import re
from contextlib import AsyncExitStack

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import CUT, PAUSE, chunked, scripted

COMMENT = re.compile(rb": energy \{[^\n]*\}\n\n")
STREAM, ASKED = b'{"stream":true}', b'{"stream":true,"stream_options":{"include_usage":true}}'
PATHS = ["/v1/chat/completions", "/v1/models", "/anything?at=all"]

words = st.sampled_from([b"data: ", b"data:", b"[DONE]", b"data: [DONE]\n\n", b'{"choices":[{"delta":{"content":"\xc3\xbc"},', b'"usage":{',
                         b'"finish_reason":"stop"}]}', b'"finish_reason":null}]}', b"\n", b"\n\n", b"\r\n", b"\r", b": keep-alive\n\n",
                         b"event: error\n"])
pieces = st.lists(st.one_of(words, words, st.binary(min_size=1, max_size=40)), max_size=20)
framings = st.sampled_from(["length", "chunked", "close"])
types = st.sampled_from([b"text/event-stream", b"application/json", b"image/png"])


def script(parts, framing, content_type, pauses):
    """An engine's answer with these parts as its body, written in as many goes."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: " + content_type + b"\r\n"
    length = sum(map(len, parts))
    head += {"length": b"content-length: %d\r\n" % length, "chunked": b"transfer-encoding: chunked\r\n", "close": b""}[framing]
    body = [chunked(part)[:-5] for part in parts] if framing == "chunked" else parts
    steps = [head + b"\r\n", *body, *([b"0\r\n\r\n"] if framing == "chunked" else []), *([CUT] if framing == "close" else [])]
    return [s for step in steps for s in ([step] if step is CUT or not pauses else [PAUSE, step])]


@pytest.fixture
def relayed():
    """Sends a request through a sidecar that runs for the whole test to an engine with this script; answers the body."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stack, running = AsyncExitStack(), []

        async def start(**more):
            engine = await stack.enter_async_context(scripted([b""]))
            running[:] = engine, await stack.enter_async_context(sidecar(engine.url, **more))

        def send(steps, *request):
            engine, front = running
            engine.scripts = [steps]
            return body_of(runner.run(front.send(post(*request))))

        send.start = lambda **more: runner.run(start(**more))
        yield send
        runner.run(stack.aclose())


@pytest.mark.parametrize("settings_", [{}, {"energy": False, "engine": "openai"}], ids=["metered", "no source"])
def test_transparent(relayed, settings_):
    """With nothing added, the body is the engine's: any bytes, framing and cutting, metered or not, usage asked for or not."""
    relayed.start(**settings_)

    @settings(max_examples=150)
    @given(pieces, framings, types, st.booleans(), st.sampled_from(PATHS), st.sampled_from([STREAM, ASKED, b"", b"{"]))
    def holds(parts, framing, content_type, pauses, path, body):
        got = relayed(script(parts, framing, content_type, pauses), path, body, "X-Energy-Include: none")
        assert got == b"".join(parts)

    holds()


def test_transparent_but_for_the_comment(relayed):
    """With the comment on, taking it out again gives the engine's bytes; it comes at most once, and never into anything but a stream."""
    relayed.start()

    @settings(max_examples=150)
    @given(pieces, framings, types, st.booleans(), st.sampled_from(PATHS), st.sampled_from([STREAM, ASKED]))
    def holds(parts, framing, content_type, pauses, path, body):
        got = relayed(script(parts, framing, content_type, pauses), path, body)
        said = COMMENT.findall(got)
        assert len(said) <= (content_type == b"text/event-stream" and path == PATHS[0])
        assert COMMENT.sub(b"", got) == b"".join(parts)

    holds()
