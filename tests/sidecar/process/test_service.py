"""The service in this process: what it says of itself while it runs, and what survives trouble around it."""

import asyncio
import time

import pytest

from perjoule import __version__
from perjoule.sidecar.ports import Device
from perjoule.sidecar.process.lookout import Questions
from perjoule.sidecar.record import Status
from tests.fakes.sidecar import SteadyCounter, post, sidecar
from tests.fakes.upstream import answer, chunked, scripted, sse, stream_head

CHAT, STREAM = "/v1/chat/completions", b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'
FRAME = chunked(sse('{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}'))[:-5]


async def until(condition):
    """Wait for something that other tasks bring about."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_it_is_ready_once_the_upstream_has_answered_until_it_drains():
    """And says why not."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        ready, why = front.service.ready()
        assert ready
        assert (why["engine"], why["energy"], why["energy_failing"], why["sinks_failing"]) == ("vllm", "steady", False, {})
        front.service.presence.answers.clear()
        assert not front.service.ready()[0]
        front.service.presence.answers.set()
        front.service.draining = True
        assert not front.service.ready()[0]


async def test_setting_and_boards_of_a_running_sidecar():
    """Two runs are compared by these: the engine that answered, the source and its boards, with what they draw."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        await asyncio.sleep(0.3)
        setting = front.service.setting()
        assert (setting["energy_source"], setting["energy_method"]) == (front.service.counter.name, "step-model")
        assert (setting["engine"], setting["perjoule"]) == ("vllm", __version__)
        (board,) = await front.service.boards()
        assert (board["uuid"], board["temperature_c"]) == (front.service.counter.devices[0].uuid, None)
        assert board["power_w"] > 0


async def test_requests_in_flight_are_shown_while_they_run():
    """With what they have cost so far, and no longer than they run."""
    async with scripted([stream_head(), FRAME, 30.0]) as engine, sidecar(engine.url) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(post(CHAT, STREAM))
        await asyncio.wait_for(reader.readuntil(FRAME), 10)
        await until(lambda: front.service.meter.running[0].energy_uj > 0)
        (row,) = front.service.in_flight()
        assert (row["model"], row["output_frames"], row["status"]) == ("m", 1, "measured")
        assert row["energy_joules_so_far"] > 0
        writer.close()
        await until(lambda: front.service.in_flight() == [])


async def test_without_a_source_there_is_no_balance():
    """Null, and no joules of those in flight."""
    async with scripted([30.0]) as engine, sidecar(engine.url, energy=False) as front:
        _, writer = await asyncio.open_connection("127.0.0.1", front.port)
        writer.write(post(CHAT, STREAM))
        await until(front.service.in_flight)
        (row,) = front.service.in_flight()
        assert (row["energy_joules_so_far"], row["status"], front.service.balance()) == (None, "unavailable", None)
        writer.close()


async def test_the_balance_is_conserved_in_traffic():
    """measured == requests + idle + unattributed after twenty streams, and the records sum to the requests' part."""
    async with scripted([stream_head(), *[FRAME, 0.01] * 5, b"0\r\n\r\n"]) as engine, sidecar(engine.url) as front:
        await asyncio.gather(*(front.send(post(CHAT, STREAM)) for _ in range(20)))
        records = await front.records(20)
        balance = front.service.balance()
        assert balance["conserved"]
        assert sum(record.charge.energy_uj or 0 for record in records) == balance["requests_uj"]


async def test_a_counter_that_fails_is_said_and_recovers():
    """Requests are served meanwhile; readiness says that energy fails, until it works again."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        counter = front.service.counter

        def fails():
            raise OSError("the driver is gone")

        counter.read = fails
        await until(lambda: front.service.ready()[1]["energy_failing"])
        assert (await front.send(post(CHAT, b"{}"))).startswith(b"HTTP/1.1 200 OK")
        del counter.read
        await until(lambda: not front.service.ready()[1]["energy_failing"])


async def test_a_meter_that_keeps_the_loop_busy_rests():
    """Dividing took 0.1 s: for twice as long readings are left out, and the next one after that is divided."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url, energy=False) as front:
        divided = []

        def divide(number):
            divided.append((number, time.monotonic()))
            time.sleep(0.1)

        async with asyncio.timeout(10):
            for number in range(10_000):
                front.service._in_turn(divide, number)
                if len(divided) == 2:
                    break
                await asyncio.sleep(0.01)
        (first, began), (second, again) = divided
        assert second > first + 1
        assert again - began >= 0.3


async def test_one_failing_tick_is_not_the_last_one():
    """The clock that settles what waits for nothing but time goes on after a fault."""
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url) as front:
        ticks = []

        def fails(t_ns):
            ticks.append(t_ns)
            raise RuntimeError("one bad tick")

        front.service.desk.tick = fails
        await until(lambda: len(ticks) >= 2)
        del front.service.desk.tick


class TwoBoards(SteadyCounter):
    """Two boards that draw the same."""

    devices = (Device("GPU-0", "constant power"), Device("GPU-1", "constant power"))

    def read(self):
        return super().read() * 2


@pytest.mark.parametrize(("headers", "devices", "status"), [
    (["X-data-parallel-rank: 0"], ("GPU-0",), Status.MEASURED), (["x-data-parallel-rank: 1"], ("GPU-1",), Status.MEASURED),
    (["X-data-parallel-rank: 2"], ("GPU-0", "GPU-1"), Status.MIXED), (["X-data-parallel-rank: first"], ("GPU-0", "GPU-1"), Status.MIXED),
    ([], ("GPU-0", "GPU-1"), Status.MIXED),
])
async def test_the_rank_that_a_client_chooses_reaches_meter_and_engine(headers, devices, status):
    """The record names that rank's boards; without one, or with one that is not there, it may have been any."""
    async with (scripted([stream_head(), *[FRAME, 0.05] * 6, b"0\r\n\r\n"]) as engine,
                sidecar(engine.url, counter=TwoBoards(), gpus="0=GPU-0;1=GPU-1") as front):
        await until(lambda: all(division.group.divided_ns for division in front.service.meter.divisions))
        await front.send(post(CHAT, STREAM, *headers))
        (record,) = await front.records(1)
        assert (record.charge.devices, record.charge.status) == (devices, status)
        assert all(header.encode() in engine.requests[-1] for header in headers)


async def test_an_engine_s_limit_and_its_neighbours_are_known():
    """The limit goes to the detector, the boards that are shared into readiness, which they do not take away."""
    async def largest_batch(url):
        return 48

    async def queue(url):
        return None

    ask = Questions(largest_batch, queue, lambda: {"GPU-steady": 3})
    async with scripted([answer(b"{}")]) as engine, sidecar(engine.url, ask=ask) as front:
        await until(lambda: front.service.meter.divisions[0].group.steady.max_num_seqs == 48)
        await until(lambda: front.service.ready() == (True, front.service.ready()[1] | {"shared_boards": {"GPU-steady": 3}}))
