"""Asks the engine after its open jobs, while no client does.

One that may be running is asked after twice a second, the others every five seconds, 16 at a time at most. ComfyUI answers nothing about
a job until it is over; so its queue is read, too (if it is long, every five seconds): who runs, and who is neither there nor over, and so
gone.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Iterable
from typing import Protocol

from perjoule.sidecar.access.doors import AUTHORIZATION
from perjoule.sidecar.dialects.jobs import LONGEST_BODY, Kind, Seen, State, queue_of, queue_path, seen_of, status_path
from perjoule.sidecar.dialects.payload import parsed
from perjoule.sidecar.http.connection import UpstreamError
from perjoule.sidecar.http.fetch import fetch
from perjoule.sidecar.http.upstream import Upstream
from perjoule.sidecar.relay.jobs import AT_ONCE, LATER_NS, SOON_NS, Job, Jobs
from perjoule.sidecar.settings.config import Config
from perjoule.sidecar.settings.credentials import Credentials
from perjoule.sidecar.units import NS_PER_S

SMALL_QUEUE = 64 << 10  # bytes: a prompt's graph has some 10 KB
LOOK_S = 0.1  # how soon it is found that somebody is due
ANSWER_LIMIT_S = 5.0  # an engine that computes may be slow to answer

logger = logging.getLogger("perjoule")


class Settings(Protocol):
    """What holds now; a reload may replace all of it."""

    config: Config
    credentials: Credentials
    upstream_tls: ssl.SSLContext | None


class Inquiry:
    """The way to the engine is made anew where there was nothing to ask for a while: its certificates may have been replaced."""

    def __init__(self, jobs: Jobs, settings: Settings) -> None:
        self._jobs, self._settings = jobs, settings
        jobs.longest_ns = round(settings.config.job_hours * 3600 * NS_PER_S)
        self._upstream: Upstream | None = None
        self._queue_ns, self._queue_every_ns = 0, SOON_NS  # when ComfyUI's queue was read last, and how often it is

    async def watch(self) -> None:
        """For ever."""
        rest_s = LOOK_S
        try:
            while True:
                await asyncio.sleep(rest_s)
                rest_s = LOOK_S
                if not self._jobs:
                    self._let_go()
                elif await self._round() == AT_ONCE:
                    rest_s = SOON_NS / NS_PER_S  # an engine with thousands of jobs has something better to do
        finally:
            self._let_go()

    async def drain(self, traffic: Awaitable[None], at_once: asyncio.Event) -> None:
        """Wait for the traffic to be drained, and for jobs as long as for requests."""
        deadline = time.monotonic() + self._settings.config.drain_s
        await traffic
        while self._jobs and time.monotonic() < deadline and not at_once.is_set():
            await asyncio.sleep(LOOK_S)

    async def _round(self) -> int:
        """Ask after those who are due; answers how many."""
        due = self._jobs.due(time.monotonic_ns())
        try:
            config = self._settings.config
            self._upstream = self._upstream or Upstream(config.upstream, config.connect_timeout_s, self._settings.upstream_tls)
            await asyncio.gather(*map(self._ask_after, due))
            await self._read_queue([job for job in due if job.opened.kind is Kind.COMFYUI])
        except Exception:  # an answer that nobody thought of must not end the asking
            logger.exception("asking the engine after its jobs failed")
        return len(due)

    def _let_go(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.close()

    async def _get(self, job: Job, path: str) -> tuple[int, bytes]:
        assert self._upstream is not None
        return await fetch(self._upstream, path, self._fields(job), timeout_s=ANSWER_LIMIT_S, most_bytes=LONGEST_BODY)

    async def _ask_after(self, job: Job) -> None:
        opened = job.opened
        try:
            status, text = await self._get(job, status_path(opened))
        except (UpstreamError, TimeoutError) as error:
            self._jobs.unanswered(job, time.monotonic_ns(), refused=getattr(error, "kind", "") == "upstream_unreachable")
            return
        seen, t_ns = seen_of(opened.kind, opened.id, status, parsed(text)), time.monotonic_ns()
        if seen is not None:
            self._jobs.saw(opened.kind, opened.id, seen, t_ns, asked_by_us=True)
        elif status == 200 and opened.kind is Kind.COMFYUI:
            self._jobs.waits(job, t_ns)
        else:  # not let in, or in trouble
            self._jobs.unanswered(job, t_ns, refused=False)

    async def _read_queue(self, asked: Iterable[Job]) -> None:
        """Of those that were asked after and are not over: who runs, who waits, and who is gone."""
        left = [job for job in asked if self._jobs.has(job)]
        now_ns = time.monotonic_ns()
        if not left or (now_ns - self._queue_ns < self._queue_every_ns and not any(job.removed for job in left)):
            return
        self._queue_ns = now_ns
        try:
            _, text = await self._get(left[0], queue_path(left[0].opened))
        except (UpstreamError, TimeoutError):
            return
        self._queue_every_ns = SOON_NS if len(text) < SMALL_QUEUE else LATER_NS
        queue = queue_of(parsed(text))
        if queue is None:
            return
        for job in left:
            seen = Seen(queue.get(job.opened.id, State.GONE))
            if seen.state is State.GONE:
                await self._ask_after(job)  # it may have got over in the meantime
            self._jobs.saw(Kind.COMFYUI, job.opened.id, seen, time.monotonic_ns(), asked_by_us=True)

    def _fields(self, job: Job) -> list[tuple[bytes, bytes]]:
        shown = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in job.opened.credential]
        key = self._settings.credentials.doors.upstream_key  # the engine's own, for jobs whose creator showed none
        if key is not None and AUTHORIZATION not in {name.lower() for name, _ in shown}:
            shown.append((b"Authorization", b"Bearer " + key.encode()))
        return shown
