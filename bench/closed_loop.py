"""A closed loop of streamed completions: so many requests in flight until all have been answered, and what came back."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp
import orjson

from perjoule.sidecar.units import seconds

PROMPT_TOKENS, OUTPUT_TOKENS = (64, 512), (128, 384)  # as in the recordings of the same engine (sat32)


@dataclass(slots=True)
class Run:
    """One closed-loop run: what was sent, and what came back."""

    name: str
    in_flight: int
    began_ns: int = 0
    ended_ns: int = 0
    output_tokens: int = 0
    failed: int = 0
    records: list[str] = field(default_factory=list)
    first_token_s: list[float] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)  # when each frame arrived
    full_from_ns: int = 0  # every place in flight has its first token
    full_until_ns: int = 0  # the first place has nothing more to send

    @property
    def tokens_per_s(self) -> float:
        """Output tokens over the whole run, its ramp and its drain included."""
        return self.output_tokens / seconds(self.ended_ns - self.began_ns)


def schedule(in_flight: int, rounds: int, seed: int) -> list[dict[str, Any]]:
    """The bodies to send, the same for every run of one concurrency."""
    draw = random.Random(seed)
    return [{"prompt": [draw.randrange(300, 4000) for _ in range(draw.randrange(*PROMPT_TOKENS))],
             "max_tokens": draw.randrange(*OUTPUT_TOKENS), "ignore_eos": True, "temperature": 1.0,
             "stream": True, "stream_options": {"include_usage": True}} for _ in range(in_flight * rounds)]


async def drive(url: str, model: str, bodies: Sequence[dict[str, Any]], run: Run) -> Run:
    """Keep `run.in_flight` requests running until all have been answered."""
    waiting = list(reversed(bodies))

    async def one(session: aiohttp.ClientSession, body: dict[str, Any]) -> None:
        sent_ns, tail = time.monotonic_ns(), b""
        data, fields = orjson.dumps({**body, "model": model}), {"Content-Type": "application/json"}
        async with session.post(f"{url}/v1/completions", data=data, headers=fields) as answer:
            async for piece in answer.content.iter_any():
                now_ns = time.monotonic_ns()
                if not tail:
                    run.first_token_s.append(seconds(now_ns - sent_ns))
                    if len(run.first_token_s) == run.in_flight:
                        run.full_from_ns = now_ns
                run.frames.extend([now_ns] * piece.count(b"data: {"))
                tail = (tail + piece)[-4096:]
            if "X-Energy-Record" in answer.headers:
                run.records.append(answer.headers["X-Energy-Record"])
        at = tail.rfind(b'"usage"')
        usage = [line for line in tail[tail.rfind(b"\n\n", 0, at) if at > 0 else 0:].split(b"\n") if line.startswith(b"data: {")]
        if at < 0 or not usage:
            run.failed += 1
        else:
            run.output_tokens += orjson.loads(usage[0][6:])["usage"]["completion_tokens"]

    async def worker(session: aiohttp.ClientSession) -> None:
        while waiting:
            await one(session, waiting.pop())
        run.full_until_ns = run.full_until_ns or time.monotonic_ns()

    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None), read_bufsize=1 << 20) as session:
        run.began_ns = time.monotonic_ns()
        await asyncio.gather(*(worker(session) for _ in range(run.in_flight)))
        run.ended_ns = time.monotonic_ns()
    return run


def summary(run: Run) -> dict[str, Any]:
    """What is kept of a run."""
    first = sorted(run.first_token_s)
    kept = {key: value for key, value in asdict(run).items() if key in ("in_flight", "output_tokens", "failed")}
    return kept | {"seconds": seconds(run.ended_ns - run.began_ns), "tokens_per_s": run.tokens_per_s,
                   "first_token_p50_s": first[len(first) // 2], "first_token_p99_s": first[int(len(first) * 0.99)]}
