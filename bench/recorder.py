"""Sends requests to an engine, keeps the arrival of every chunk, and has the energy counter read beside by another process."""

import asyncio
import gzip
import json
import multiprocessing
import random
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from perjoule.adapters.energy import open_counter
from perjoule.sidecar.ports import CounterError, UnavailableError
from perjoule.sidecar.units import UJ_PER_MJ

SETTLE_S = 1.0  # the counter is read so long before and after all requests
SEND_TOKENS = 300, 4000  # prompts are token ids drawn from here: ordinary words in every vocabulary

Arrival = tuple[float, str, int, int]  # when, counted from the first; class; tokens in; tokens out


class RecordingError(Exception):
    """It could not be recorded; the text says what was got and what was expected."""


class Client:
    """Who sends the requests; `requests` is how they went, in the format of recordings."""

    def __init__(self, session: aiohttp.ClientSession, url: str, model: str, seed: int, *, through_sidecar: bool = False) -> None:
        self.requests: list[dict[str, Any]] = []
        self.records: dict[str, dict[str, Any]] = {}  # what a sidecar said, by record id
        self._session, self._url, self._model, self._through_sidecar = session, url.rstrip("/"), model, through_sidecar
        self._random = random.Random(seed)

    async def send(self, arrivals: Iterable[Arrival], **facts: Any) -> None:
        """Send each at its time and wait for all; `facts` are written beside each. Raises RecordingError if one fails."""
        ordered = sorted(arrivals)
        bodies = [self._body(tokens_in, tokens_out) for _, _, tokens_in, tokens_out in ordered]  # made before the clock runs
        start_s = time.monotonic()
        sent = [asyncio.create_task(self._one(start_s + at_s, body, {"cls": name, "in": tokens_in, "want": tokens_out} | facts))
                for (at_s, name, tokens_in, tokens_out), body in zip(ordered, bodies, strict=True)]
        try:
            requests = await asyncio.gather(*sent)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RecordingError(f"{self._url}: got {error!r}, expected a stream of tokens") from error
        finally:
            for task in sent:
                task.cancel()
        self.requests += requests

    async def fetch_records(self) -> None:
        """What the sidecar says of each request, if they went through one; it answers when a record is settled. Raises RecordingError."""
        for request in self.requests:
            if "record" in request and request["record"] not in self.records:
                self.records[request["record"]] = await self._record(request["record"])

    def _body(self, tokens_in: int, tokens_out: int) -> bytes:
        return orjson.dumps({"model": self._model, "prompt": [self._random.randrange(*SEND_TOKENS) for _ in range(tokens_in)],
                             "max_tokens": tokens_out, "ignore_eos": True, "temperature": 1.0, "stream": True,
                             "stream_options": {"include_usage": True, "continuous_usage_stats": True}})

    async def _one(self, at_s: float, body: bytes, request: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(max(0.0, at_s - time.monotonic()))
        request |= {"t0": time.monotonic_ns(), "t": [], "n": []}
        shown, rest = 0, b""
        async with self._session.post(f"{self._url}/v1/completions", data=body, headers={"Content-Type": "application/json"}) as answer:
            if answer.status != 200:
                raise ValueError(f"status {answer.status}: {(await answer.text())[:300]}")
            async for piece in answer.content.iter_any():
                now_ns = time.monotonic_ns()
                *events, rest = (rest + piece).split(b"\n\n")
                for event in events:
                    said = orjson.loads(event[6:]) if event.startswith(b"data: {") else {}
                    if said.get("metrics"):
                        request["metrics"] = said["metrics"]
                    usage = said.get("usage")
                    if usage:
                        request["usage"] = {"in": usage["prompt_tokens"], "out": usage["completion_tokens"]}
                    tokens = usage["completion_tokens"] if usage else shown
                    if tokens > shown:
                        request["t"].append(now_ns)
                        request["n"].append(tokens - shown)
                        shown = tokens
            request["end"] = time.monotonic_ns()
            if self._through_sidecar:
                request["record"] = answer.headers["X-Energy-Record"].rpartition("/")[2]
        if shown != request["want"]:
            raise ValueError(f"{shown} output tokens of {request['want']}")
        return request

    async def _record(self, record_id: str) -> dict[str, Any]:
        async with self._session.get(f"{self._url}/energy/{record_id}") as answer:  # waits until it is settled
            record: dict[str, Any] = await answer.json()
            if answer.status != 200 or not record["settled"]:
                raise RecordingError(f"{self._url}/energy/{record_id}: got status {answer.status}: {record}, expected a settled record")
            return record


@dataclass(slots=True)
class Counter:
    """What the other process read: the changes of all boards' sum, and of their instant power."""

    gpu: str
    board: str
    rows: list[tuple[int, int, int]] = field(default_factory=list)
    power: list[tuple[int, int]] = field(default_factory=list)


@asynccontextmanager
async def counted(energy: str, gpus: str, poll_s: float) -> AsyncIterator[Counter]:
    """The counter is read while the block runs and a little before and after; it is filled when the block ends. Raises RecordingError."""
    ours, theirs = multiprocessing.Pipe()
    reader = multiprocessing.get_context("spawn").Process(target=_read, args=(theirs, energy, gpus, poll_s), daemon=True)
    reader.start()
    theirs.close()
    try:
        counter = Counter(*await _received(ours))
        await asyncio.sleep(SETTLE_S)
        yield counter
        await asyncio.sleep(SETTLE_S)
        ours.send("enough")
        counter.rows, counter.power = await _received(ours)
    finally:
        ours.close()  # which ends the reader, too
        await asyncio.to_thread(reader.join)


async def _received(pipe: Connection) -> Any:
    try:
        said = await asyncio.to_thread(pipe.recv)
    except EOFError:
        raise RecordingError("the process that reads the energy counter has ended") from None
    if isinstance(said, RecordingError):
        raise said
    return said


def _read(pipe: Connection, energy: str, gpus: str, poll_s: float) -> None:
    """The other process."""
    try:
        counter = open_counter(energy, gpus, lambda: 0).counter
        if counter is None:
            raise UnavailableError(f"got --energy {energy}, expected a source that works here")
        pipe.send((" + ".join(device.name for device in counter.devices), " + ".join(device.uuid for device in counter.devices)))
        rows: list[tuple[int, int, int]] = []
        power: list[tuple[int, int]] = []
        while not pipe.poll(poll_s):
            readings = counter.read()
            total_mj = sum(reading.energy_uj for reading in readings) // UJ_PER_MJ
            if not rows or rows[-1][2] != total_mj:
                rows.append((readings[0].t_before_ns, readings[-1].t_after_ns, total_mj))
            powers = [reading.power_mw for reading in readings if reading.power_mw is not None]
            if len(powers) == len(readings) and (not power or power[-1][1] != sum(powers)):
                power.append((readings[-1].t_after_ns, sum(powers)))
        pipe.recv()
        pipe.send((rows, power))
    except (UnavailableError, CounterError, ValueError) as error:
        pipe.send(RecordingError(str(error)))
    except EOFError:
        pass  # nobody wants to know any more


def write(path: Path, client: Client, counter: Counter, marks: Sequence[tuple[list[str], int, int, int]], **about: str) -> None:
    """The recording, so that bench/recording.py can read it."""
    whole: dict[str, Any] = {"name": path.name.partition(".")[0], "gpu": counter.gpu, "board": counter.board, **about,
                             "counter": counter.rows, "power": counter.power, "marks": marks, "requests": client.requests}
    if client.records:
        whole["records"] = client.records
    path.write_bytes(gzip.compress(json.dumps(whole, separators=(",", ":")).encode(), 6, mtime=0))
