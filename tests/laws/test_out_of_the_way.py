"""Law 5, Out of the way: when the meter, a sink or the counter is in trouble, traffic flows on, byte for byte, and at once."""

import asyncio
import threading

import pytest

from perjoule.sidecar.records.outbox import Outbox
from tests.fakes.sidecar import body_of, post, sidecar
from tests.fakes.upstream import answer, chunked, scripted, sse, stream_head

FRAME = '{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}'
USAGE = '{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1}}'
EVENTS = sse(FRAME, USAGE, "[DONE]")
STREAM = b'{"stream":true,"stream_options":{"include_usage":true}}'
COUNTED = b'{"usage":{"prompt_tokens":9,"completion_tokens":1}}'
ANSWERS = ([stream_head(), chunked(*EVENTS.splitlines(keepends=True))], [answer(COUNTED)])
CALLS = ("begin", "prompt", "tokens", "end", "charge", "ask")


def broken(desk, *names):
    """A desk whose methods of these names raise whenever they are called."""

    def raises(*args, **more):
        raise RuntimeError("the meter is broken")

    class Broken:
        def __getattr__(self, name):
            return raises if name in names else getattr(desk, name)

    return Broken()


@pytest.mark.parametrize("names", [*((name,) for name in CALLS), CALLS], ids="+".join)
@pytest.mark.parametrize("include", ["none", "settled"])
async def test_out_of_the_way(names, include):
    """A desk that raises at any call, or at every one, changes no byte and hangs no client, streamed or not."""
    async with scripted(*ANSWERS) as engine, sidecar(engine.url, comment=False, energy=False) as front:
        front.service.traffic.relay.desk = broken(front.service.desk, *names)
        field = f"X-Energy-Include: {include}"
        assert body_of(await front.send(post("/v1/chat/completions", STREAM, field))) == EVENTS
        assert body_of(await front.send(post("/v1/chat/completions", b"{}", field))) == COUNTED
        assert front.service.traffic.active == 0


class Unwilling:
    """A sink that never takes a record: it hangs until `leave` is set, then raises for ever."""

    name = "unwilling"

    def __init__(self, *, hangs):
        self.leave = threading.Event()
        if not hangs:
            self.leave.set()

    def put(self, records):
        self.leave.wait()
        raise OSError("no space left")

    def close(self): ...


@pytest.mark.parametrize("hangs", [True, False], ids=["hangs", "raises"])
async def test_a_sink_in_trouble_is_not_waited_for(hangs):
    """Requests are answered and recorded elsewhere while one sink takes nothing; what it did not take is counted."""
    sink = Unwilling(hangs=hangs)
    outbox = Outbox(sink, capacity=3)
    try:
        async with scripted(ANSWERS[0]) as engine, sidecar(engine.url, comment=False, energy=False) as front:
            front.service.archive.outboxes.append(outbox)
            for _ in range(8):
                assert body_of(await front.send(post("/v1/chat/completions", STREAM))) == EVENTS
            await front.records(8)
            assert (outbox.stored, outbox.pending, outbox.dropped) == (0, 3, 5)
            front.service.archive.outboxes.remove(outbox)
    finally:
        outbox.close(0.01)
        sink.leave.set()


async def test_a_counter_that_hangs_is_not_waited_for():
    """A driver call that does not return holds up no request; the record settles and says that the counter missed its end."""
    released = threading.Event()
    async with scripted(ANSWERS[0]) as engine, sidecar(engine.url, comment=False) as front:
        await asyncio.sleep(0.1)
        front.service.counter.read = released.wait
        try:
            assert body_of(await front.send(post("/v1/chat/completions", STREAM))) == EVENTS
            (record,) = await front.records(1)
            assert record.charge.status in ("mixed", "unavailable")
        finally:
            del front.service.counter.read
            released.set()
