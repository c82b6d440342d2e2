"""What a request leaves behind: nothing that waits for the garbage collector, and no memory that is not needed any more."""

import asyncio
import ctypes
import gc
import sys
from pathlib import Path

import pytest

from perjoule.sidecar.process import interpreter
from tests.fakes.sidecar import post, sidecar
from tests.fakes.upstream import CUT, answer, chunked, scripted, sse, stream_head
from tests.sidecar.relay.test_handler import CHAT, ONE, ROLE, STREAM, TWO, WHOLE

ANSWERED = [answer(WHOLE)]
STREAMED = [stream_head(), chunked(*sse(ROLE, ONE, TWO, "[DONE]").splitlines(keepends=True))]
BROKEN = [stream_head(), chunked(*sse(ROLE, ONE).splitlines(keepends=True)).removesuffix(b"0\r\n\r\n"), CUT]


@pytest.fixture
def garbage():
    """What the garbage collector finds of ours, once it is called: the names of the types."""
    gc.collect()
    gc.disable()

    def look():
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            gc.collect()
            return sorted({type(each).__qualname__ for each in gc.garbage if type(each).__module__.startswith("perjoule.sidecar.")})
        finally:
            gc.set_debug(0)
            gc.garbage.clear()

    yield look
    gc.enable()


@pytest.mark.parametrize(("script", "body"), [(ANSWERED, CHAT), (STREAMED, STREAM), (BROKEN, STREAM)], ids=["answer", "stream", "broken"])
async def test_a_request_leaves_no_cycle(garbage, script, body):
    """All of it is freed when its last word is sent: an answer of megabytes that waited for the collector would pile up."""
    async with scripted(script) as engine, sidecar(engine.url) as front:
        await front.send(post("/v1/chat/completions", body))
        await front.records(1)
        garbage()
        await front.send(post("/v1/chat/completions", body))
        await front.records(2)
        await asyncio.sleep(0.05)
        assert garbage() == []


def test_a_cycle_would_be_found(garbage):
    """The test above can fail."""
    head = interpreter._Heap()
    head.itself = head
    del head
    assert garbage() == ["_Heap"]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library is not glibc 2.33 or later")
async def test_memory_goes_back(monkeypatch):
    """What large bodies have left free in the heap goes back to the system a moment later, though something lies behind it."""
    monkeypatch.setattr(interpreter, "GIVE_BACK_EVERY_S", 0.05)
    resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096  # noqa: E731
    bodies = [bytes([7]) * 100_000 for _ in range(1_000)]  # each below the size that the C library takes from the system at once
    behind = bytes([7]) * 100_000
    del bodies
    held = resident()
    giving = asyncio.ensure_future(interpreter.give_back())
    await asyncio.sleep(0.3)
    giving.cancel()
    assert held - resident() > 50_000_000
    assert len(behind) == 100_000
    assert sys.getswitchinterval() > 0
