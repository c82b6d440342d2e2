"""What a meter tells, and to whom it stops telling."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from perjoule.sidecar.http.addresses import Unix
from perjoule.sidecar.http.sockets import listening_socket
from perjoule.sidecar.ports import CounterError, Reading
from perjoule.sidecar.process import publisher
from perjoule.sidecar.process import readings as wire
from perjoule.sidecar.process.publisher import Publisher
from tests.fakes.sidecar import SteadyCounter

PATIENCE_S = 30.0


class Broken(SteadyCounter):
    """A board that can be read until it is lost."""

    lost = False

    def read(self) -> tuple[Reading, ...]:
        if self.lost:
            raise CounterError("GPU is lost")
        return super().read()


@asynccontextmanager
async def publishing(counter: SteadyCounter, path: Path, token: str | None = None) -> AsyncIterator[str]:
    """A meter in this process; yields its socket, whose buffer in the kernel is small."""
    where, ready = str(path / "meter.sock"), asyncio.Event()
    listening = listening_socket(Unix(where))
    task = asyncio.ensure_future(Publisher(counter, 1_000_000, token).run(listening, None, ready.set))
    await asyncio.wait_for(ready.wait(), PATIENCE_S)
    try:
        yield where
    finally:
        task.cancel()
        await asyncio.wait([task])


async def said(reader: asyncio.StreamReader, word: str) -> dict[str, object]:
    """The next line that has this word."""
    async with asyncio.timeout(PATIENCE_S):
        while word not in (row := json.loads(await reader.readline())):
            pass
    return dict(row)


async def test_looks_answers_and_failures_are_told(tmp_path: Path) -> None:
    """Every look with its times, a ping at once, and why the counter cannot be read, also to who comes later."""
    counter = Broken()
    async with publishing(counter, tmp_path) as where:
        reader, writer = await asyncio.open_unix_connection(where)
        writer.write(wire.ask(None))
        told = wire.read_hello(await reader.readline())
        assert (told.name, told.devices, told.period_ns) == ("steady", counter.devices, counter.period_ns)
        before_ns = time.monotonic_ns()
        (reading,) = wire.read_rows((await said(reader, "r"))["r"], 1)
        assert reading.t_before_ns < time.monotonic_ns()
        writer.write(wire.line({"ping": 7}))
        pong = await said(reader, "pong")
        assert pong["pong"] == 7
        assert isinstance(pong["t"], int)
        assert before_ns <= pong["t"] <= time.monotonic_ns()
        counter.lost = True
        assert (await said(reader, "failing"))["failing"] == "GPU is lost"
        later, other = await asyncio.open_unix_connection(where)
        other.write(wire.ask(None))
        assert (await said(later, "failing"))["failing"] == "GPU is lost"
        assert (await said(later, "quiet"))["quiet"]
        counter.lost = False
        await said(reader, "r")
        writer.close()
        other.close()


async def test_who_does_not_read_is_cut_off_and_the_others_are_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It costs the meter no memory."""
    monkeypatch.setattr(publisher, "MOST_WAITING", 2_000)
    async with publishing(SteadyCounter(), tmp_path) as where:
        stuck = socket.socket(socket.AF_UNIX)
        stuck.connect(where)
        await asyncio.to_thread(
            stuck.sendall, wire.ask(None) + wire.line({"ping": "x" * 4_000}) * 100)  # the answers are more than the kernel keeps
        reader, writer = await asyncio.open_unix_connection(where)
        writer.write(wire.ask(None))

        def is_cut() -> bool:
            try:
                stuck.send(wire.line({"ping": 1}), socket.MSG_DONTWAIT)  # which alone is no reason to be cut off
            except BlockingIOError:
                return False
            except OSError:
                return True
            return False

        async with asyncio.timeout(PATIENCE_S):
            while not is_cut():
                await said(reader, "r")
        await said(reader, "r")
        writer.close()
        stuck.close()


async def test_the_token_is_asked_for_before_anything_is_told(tmp_path: Path) -> None:
    """Not even what boards there are."""
    async with publishing(SteadyCounter(), tmp_path, "right") as where:
        for token in (None, "wrong", "righ", "right "):
            reader, writer = await asyncio.open_unix_connection(where)
            writer.write(wire.ask(token))
            answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
            assert b"refused" in answer
            assert b"GPU" not in answer
            writer.close()
        reader, writer = await asyncio.open_unix_connection(where)
        writer.write(wire.ask("right"))
        assert wire.read_hello(await reader.readline()).name == "steady"
        writer.close()
