"""The load of bench/relay.py: drives one relay at a time, and takes that relay's CPU time over just what it drove.

It is a process that others send jobs to: a line of JSON (`Job`) over TCP, answered by a line of JSON (`Measured`).

    python -m perjoule.bench.relay_load
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import orjson
import uvloop

from perjoule.bench.process_tree import Cpu, Memory, cpu, memory
from perjoule.bench.relay_client import Client, Tally, chat
from perjoule.bench.relay_upstream import Wish
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

RAMP_S = 0.002  # between one stream's begin and the next one's: they are to be at different points of their gap
BEGIN_S = 10.0  # within so long all streams have their first token, or are measured as they are
GRACE_S = 5.0  # beyond its planned end a load waits so long for the relay
QUIET_S, QUIET_SHARE, QUIET_LIMIT_S = 0.1, 0.05, 10.0  # when it uses less of a core than this, a relay has done what it had put off


@dataclass(frozen=True, slots=True)
class Job:
    """One load: on the relay at `port`, whose process is `pid` (None: nobody's CPU time is taken), from so many connections.

    With a `gap_ms` each connection has one stream, and what is measured are the `seconds` from when all of them run. Without, each
    sends one request after the other for so long, for streams of so many frames if there are any, and all of it is measured.
    Streams that are not to be heard `to_the_end` are hung up on as soon as they have been measured."""

    port: int
    pid: int | None
    engine_pid: int
    connections: int
    seconds: float
    frames: int = 0
    gap_ms: int = 0
    body_bytes: int = 1000
    answer_bytes: int = 600
    to_the_end: bool = True

    @property
    def request(self) -> bytes:
        """What each connection sends."""
        return chat(self.port, Wish(self.frames, self.gap_ms, self.answer_bytes), self.body_bytes)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a load was and cost. Pairs of times are the median and the 99th percentile, None where there was nothing to time."""

    wall_ns: int
    cpu_ns: int | None  # of the relay, with what it put off until after the load
    loop_ns: int | None  # of that, its first threads
    load_ns: int  # CPU time of this process, and of the engine's: near `wall_ns` they would be the limit
    engine_ns: int
    begun: int  # answers with a first token
    requests: int
    frames: int
    failed: int  # answers that broke off, or had another status than 200
    lost: int  # frames that were missing in answers that ended as if they were whole
    stalled: int  # answers that had not come when the load, and a grace, were over
    rss_bytes: int | None
    pss_bytes: int | None
    first_ms: tuple[float, float] | None  # request to first token
    gap_ms: tuple[float, float] | None  # token to token
    way_ms: tuple[float, float] | None  # token, from the engine to here
    answer_ms: tuple[float, float] | None  # request to the end of its answer


class Look(NamedTuple):
    """A moment, and what had been spent and counted by then."""

    t_ns: int
    own_ns: int
    engine: Cpu
    relay: Cpu | None
    frames: int
    memory: Memory | None


def look(job: Job, tally: Tally) -> Look:
    """This moment."""
    t_ns, pid = time.monotonic_ns(), job.pid
    relay, held = (None, None) if pid is None else (cpu(pid), memory(pid))
    return Look(t_ns, time.process_time_ns(), cpu(job.engine_pid), relay, tally.frames, held)


async def connect(job: Job, tally: Tally) -> Client:
    """One more client, which has sent its request."""
    _, client = await asyncio.get_running_loop().create_connection(lambda: Client(tally), "127.0.0.1", job.port)
    return client


async def paced(job: Job) -> Measured:
    """One stream on each connection; frames and CPU time are those of the time in which all streams ran."""
    tally = Tally(job.request, job.frames, again=lambda: False)
    clients = []
    for _ in range(job.connections):
        clients.append(await connect(job, tally))
        await asyncio.sleep(RAMP_S)
    give_up_s = time.monotonic() + BEGIN_S
    while tally.begun + tally.failed < job.connections and time.monotonic() < give_up_s:
        await asyncio.sleep(0.01)
    before = look(job, tally)
    await asyncio.sleep(job.seconds)
    after = look(job, tally)
    rest_s = job.frames * job.gap_ms / 1000 + GRACE_S if job.to_the_end else 0.0
    return measured(tally, before, after, await ended(clients, rest_s))


async def closed(job: Job) -> Measured:
    """One request after the other on each connection; the relay's CPU time includes what it put off until after the last answer."""
    until_s = time.monotonic() + job.seconds
    tally = Tally(job.request, job.frames, again=lambda: time.monotonic() < until_s)
    before = look(job, tally)
    clients = [await connect(job, tally) for _ in range(job.connections)]
    stalled = await ended(clients, job.seconds + GRACE_S)
    after = look(job, tally)
    if job.pid is not None:
        after = after._replace(relay=await quiet(job.pid))
    return measured(tally, before, after, stalled)


async def ended(clients: Sequence[Client], patience_s: float) -> int:
    """Wait for the clients to end, and hang up; how many had not."""
    _, late = await asyncio.wait([client.done for client in clients], timeout=patience_s)
    for client in clients:
        client.hang_up()
    return len(late)


async def quiet(pid: int) -> Cpu:
    """Wait until the relay has nothing to do any more; its CPU time then."""
    give_up_s = time.monotonic() + QUIET_LIMIT_S
    before = cpu(pid)
    while True:
        await asyncio.sleep(QUIET_S)
        now = cpu(pid)
        if now.since(before).ns < QUIET_SHARE * QUIET_S * NS_PER_S or time.monotonic() > give_up_s:
            return now
        before = now


def measured(tally: Tally, before: Look, after: Look, stalled: int) -> Measured:
    """What lies between two looks."""
    relay = after.relay.since(before.relay) if after.relay is not None and before.relay is not None else None
    return Measured(
        wall_ns=after.t_ns - before.t_ns, cpu_ns=relay and relay.ns, loop_ns=relay and relay.first_ns,
        load_ns=after.own_ns - before.own_ns, engine_ns=after.engine.since(before.engine).ns, begun=tally.begun,
        requests=tally.requests, frames=after.frames - before.frames, failed=tally.failed, lost=tally.lost, stalled=stalled,
        rss_bytes=after.memory and after.memory.rss, pss_bytes=after.memory and after.memory.pss,
        first_ms=middle_and_tail(tally.first_ns), gap_ms=middle_and_tail(tally.gap_ns), way_ms=middle_and_tail(tally.way_ns),
        answer_ms=middle_and_tail(tally.answer_ns))


def middle_and_tail(ns: Sequence[int]) -> tuple[float, float] | None:
    """The median and the 99th percentile in milliseconds, by nearest rank; None of nothing."""
    if not ns:
        return None
    ranked = sorted(ns)
    return ranked[(len(ranked) - 1) // 2] / NS_PER_MS, ranked[min(len(ranked) - 1, len(ranked) * 99 // 100)] / NS_PER_MS


async def serve() -> None:
    """Do jobs, one after the other, until the process is told to end; prints where to send them, as JSON."""

    async def work(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            job = Job(**json.loads(line))
            writer.write(orjson.dumps(asdict(await (paced if job.gap_ms else closed)(job))) + b"\n")

    server = await asyncio.start_server(work, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    uvloop.run(serve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
