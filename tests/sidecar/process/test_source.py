"""A source of energy that comes later than the sidecar: waited for, as the engine is."""

import asyncio
import logging
import threading

from perjoule.sidecar.ports import AbsentError, UnavailableError
from perjoule.sidecar.process.gauges import gauges
from perjoule.sidecar.telemetry import ENERGY_FAILING
from tests.fakes.sidecar import SteadyCounter, body_of, post, sidecar
from tests.fakes.upstream import answer, chunked, scripted, sse, stream_head

PATIENCE_S = 60
CHAT = "/v1/chat/completions"
ANSWER = answer(b'{"model":"m","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}')
FRAME = chunked(sse('{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}'))[:-5]
DONE = chunked(sse("[DONE]"))


class Late:
    """A counter that cannot be opened until `here`, for the reason `why`."""

    def __init__(self):
        self.here, self.why, self.tries = threading.Event(), AbsentError("far: nobody listens"), 0

    def __call__(self):
        self.tries += 1
        if not self.here.is_set():
            raise self.why
        return SteadyCounter()


async def until(condition):
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def test_requests_are_served_until_it_comes_and_metered_from_then_on(caplog):
    """Before: `unavailable`, null and no balance; then what a counter that was there at the start would give."""
    late = Late()
    with caplog.at_level(logging.INFO, "perjoule"):
        async with scripted([ANSWER]) as engine, sidecar(engine.url, energy=False, awaited=late) as front:
            await until(lambda: late.tries > 1)
            ready, why = front.service.ready()
            assert ready
            assert (why["energy"], why["energy_failing"]) == ("unavailable", True)
            assert b"x-energy-status: unavailable" in (await front.send(post(CHAT, b'{"model":"m"}'))).lower()
            await until(lambda: front.sink.records)
            assert (front.sink.records[0].charge.status, front.sink.records[0].charge.energy_uj) == ("unavailable", None)
            assert front.service.balance() is None
            assert gauges(front.service)[ENERGY_FAILING] == {(): 1}
            late.here.set()
            await until(lambda: front.service.counter is not None and front.service.meter.divided_ns)
            assert front.service.ready()[1]["energy_failing"] is False
            assert gauges(front.service)[ENERGY_FAILING] == {(): 0}
            await front.send(post(CHAT, b'{"model":"m"}'))
            await until(lambda: len(front.sink.records) == 2)
            charge = front.sink.records[1].charge
            assert (charge.status, charge.devices) == ("measured", tuple(d.uuid for d in front.service.counter.devices))
            assert charge.energy_uj > 0
            assert front.service.balance()["conserved"]
            assert front.service.learned._divisions[0].calibration.key.gpu == front.service.counter.devices[0].name
    waits = [record.getMessage() for record in caplog.records if "is waited for" in record.getMessage()]
    assert len(waits) == 1, waits
    assert waits[0].endswith("far: nobody listens")


async def test_what_ran_when_it_came_is_charged_for_the_rest_and_says_so():
    """`mixed`: what was drawn before is in nobody's account."""
    late = Late()
    async with scripted([stream_head(), FRAME, 2.0, FRAME, DONE]) as engine, sidecar(engine.url, energy=False, awaited=late) as front:
        asked = asyncio.ensure_future(front.send(post(CHAT, b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}')))
        await until(lambda: front.service.meter.running and front.service.meter.running[0].work.shown)
        late.here.set()
        assert body_of(await asked)
        await until(lambda: front.sink.records)
        charge = front.sink.records[0].charge
        assert charge.status == "mixed"
        assert 0 < charge.energy_uj <= front.service.balance()["requests_uj"]
        assert front.service.balance()["conserved"]


async def test_one_that_answers_and_refuses_is_asked_again(caplog):
    """Its operator may put right what is wrong; each new reason is said once."""
    late = Late()
    async with scripted([ANSWER]) as engine, sidecar(engine.url, energy=False, awaited=late) as front:
        await until(lambda: late.tries)
        late.why = UnavailableError("far: the token is not the one")
        await until(lambda: late.tries > 2)
        late.here.set()
        await until(lambda: front.service.counter)
    assert [r.getMessage().partition("meanwhile: ")[2] for r in caplog.records if "waited for" in r.getMessage()] == [
        "far: nobody listens", "far: the token is not the one"]
