"""Clients of every kind: they read to the end, leave, err, wait for what it cost, and note what they were told."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from random import Random

import aiohttp
import orjson

from perjoule.bench.dialect import CHAT, COMPLETIONS, EMBEDDINGS, MODEL
from perjoule.sidecar.telemetry import Header

KINDS = ("stream",) * 9 + ("settled",) * 5 + ("leaver",) * 3 + ("whole", "error", "embedding")
TENANTS = 6
AFTER_A_FAILURE_S = 0.2
PATIENCE_S = 60.0


@dataclass(slots=True)
class Sent:
    """One request: under which id, when it began and ended, how it went, and the joules that its client was told are settled."""

    request_id: str
    began_s: float
    ended_s: float = 0.0
    went: str = "cut"  # cut, refused (nobody was there), completed, left, rejected
    settled_joules: str | None = None


class Clients:
    """So many people who ask until they are told to stop. `new_key` says who asks next."""

    def __init__(self, url: str, seed: int) -> None:
        self.url, self.sent, self.stopped = url, list[Sent](), False
        self._random, self._numbers, self._name = Random(seed), count(), f"ordeal-{seed}"
        self.new_key: Callable[[], str] = lambda: f"tenant-{self._random.randrange(TENANTS)}"

    async def ask(self, people: int) -> None:
        """Until `stopped`, and then until the last answer has come."""
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(self._one(session) for _ in range(people)))

    async def _one(self, session: aiohttp.ClientSession) -> None:
        while not self.stopped:
            sent = Sent(f"{self._name}-{next(self._numbers)}", time.monotonic())
            self.sent.append(sent)
            try:
                await self._request(session, sent, self._random.choice(KINDS))
            except aiohttp.ClientConnectorError:
                sent.went = "refused"
            except (aiohttp.ClientError, TimeoutError):
                pass  # it was cut
            sent.ended_s = time.monotonic()
            if sent.went in ("cut", "refused"):
                await asyncio.sleep(AFTER_A_FAILURE_S)

    async def _request(self, session: aiohttp.ClientSession, sent: Sent, kind: str) -> None:
        path, fields = self._asked(kind)
        headers = {"Authorization": f"Bearer {self.new_key()}", "X-Request-Id": sent.request_id, "Content-Type": "application/json"}
        if kind == "settled":
            headers[Header.INCLUDE] = "settled"
        async with session.post(self.url + path, data=orjson.dumps(fields), headers=headers) as answer:
            if kind == "leaver":
                async for _ in answer.content.iter_any():
                    if self._random.random() < 0.2:
                        answer.close()
                        sent.went = "left"
                        return
            await answer.read()
            sent.went = "completed" if answer.status == 200 else "rejected"
            if kind == "settled" and answer.status == 200:
                sent.settled_joules = answer.headers.get(Header.JOULES)

    def _asked(self, kind: str) -> tuple[str, dict[str, object]]:
        prompt = "word " * self._random.randint(20, 400)
        if kind == "embedding":
            return EMBEDDINGS, {"model": MODEL, "input": prompt}
        if kind == "whole":
            return COMPLETIONS, {"model": MODEL, "prompt": prompt, "max_tokens": self._random.randint(8, 60)}
        messages = [{"role": "user", "content": prompt}]
        most = -1 if kind == "error" else self._random.randint(8, 120)
        return CHAT, {"model": MODEL, "messages": messages, "max_tokens": most, "stream": kind in ("stream", "leaver")}
