"""Starts everything, keeps it in step, drains it and stops it: the one place where threads, timers and signals meet."""

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from aiohttp import web

from perjoule.sidecar.admin import RecordQueries, admin_app
from perjoule.sidecar.config import Config
from perjoule.sidecar.desk import Desk
from perjoule.sidecar.front import make_front
from perjoule.sidecar.group import SILENCE_NS
from perjoule.sidecar.learned import Calibrations, Learned
from perjoule.sidecar.lookout import Lookout, Questions
from perjoule.sidecar.meter import Meter
from perjoule.sidecar.outbox import Outbox
from perjoule.sidecar.ports import EnergyCounter, Engine, Reading, RecordSink
from perjoule.sidecar.recent import Recent
from perjoule.sidecar.record import EnergyRecord
from perjoule.sidecar.relay import Relay
from perjoule.sidecar.sampler import Sampler
from perjoule.sidecar.units import NS_PER_MS, joules, seconds
from perjoule.sidecar.upstream import Upstream

TICK_S = 0.05  # settles requests whose windows wait for nothing but time
RECOGNISE_EVERY_S = 2.0  # until the upstream answers
RECOGNISE_AGAIN_S = 60.0  # after that: another model behind the same port is another calibration
BACKLOG = 4096
LAST_ANSWERS_S = 1.0  # after draining, for handlers that still write
LAST_RECORDS_S = 2.0  # after the last request, for its windows to close and its record to be stored

logger = logging.getLogger("perjoule")


class Metrics(Protocol):
    """What counts records for a scraper."""

    def observe(self, record: EnergyRecord) -> None: ...
    def render(self, accept: str) -> tuple[bytes, str]: ...


class Ledger(RecordSink, RecordQueries, Protocol):
    """Where records are kept and can be asked for."""


class Service:
    """`perjoule serve`: the traffic port, the operator's port, the sampler, the records' ways out. It is the AdminView."""

    def __init__(self, config: Config, *, counter: EnergyCounter | None, sinks: Sequence[RecordSink], ledger: Ledger | None,
                 calibrations: Calibrations | None, recognise: Callable[[str], Awaitable[Engine | None]], ask: Questions,
                 metrics: Callable[["Service"], Metrics], tracing: bool) -> None:
        self.config, self.counter, self.ledger = config, counter, ledger
        if counter is None:
            self.meter = Meter(method=config.method)
        else:
            self.meter = Meter(counter.devices, pools=config.pools(), source=counter.name, status=counter.status,
                               boundary=counter.boundary, period_ns=counter.period_ns, wrap_uj=counter.wrap_uj, method=config.method,
                               max_num_seqs=config.max_num_seqs)
        self.recent = Recent(durable=ledger is not None)
        self.outboxes = [Outbox(sink, on_stored=self._stored if sink is ledger else None) for sink in sinks]
        self.sampler = None if counter is None else Sampler(counter, self._readings_in, config.poll_ms * NS_PER_MS, self._sampler_failed)
        self.desk = Desk(self.meter, self.recent, self.deliver, self._find)
        self.relay = Relay(config, Upstream(config.upstream, config.connect_timeout_s), self.desk,
                           tracing=tracing, engine="unknown" if config.engine == "auto" else config.engine)
        self._recognise = recognise
        self._metrics = metrics(self)
        self.learned = Learned(self.meter, calibrations)
        self.lookout = Lookout(self.meter, ask, config.upstream, config.max_num_seqs, config.pools().ranks)
        self._upstream_is: Engine | None = None
        self._answered = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._at_once = False

    # running

    async def run(self, announce: Callable[[dict[str, Any]], None]) -> None:
        """Serve until SIGTERM or SIGINT, then drain. Raises OSError if a port cannot be had."""
        loop = self._loop = asyncio.get_running_loop()
        front = web.ServerRunner(make_front(self.relay.handle), shutdown_timeout=LAST_ANSWERS_S)
        admin = web.AppRunner(admin_app(self), access_log=None, shutdown_timeout=LAST_ANSWERS_S)
        helpers: list[asyncio.Task[None]] = []
        try:
            listen = await self._listen(front, *self.config.address("listen"))
            admin_url = await self._listen(admin, *self.config.address("admin"))
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._asked_to_stop)
            if self.sampler is not None:
                self.sampler.start()
            helpers = [loop.create_task(endless) for endless in (self._tick(), self._watch_engine(), self.learned.keep(),
                                                                 self.lookout.watch_queue(), self.lookout.watch_boards())]
            with suppress(TimeoutError):
                await asyncio.wait_for(self._answered.wait(), RECOGNISE_EVERY_S)
            gc.collect()
            gc.freeze()  # what is alive now stays: the collector need not look at it again under load
            announce({"listen": listen, "admin": admin_url, "energy": self.counter.name if self.counter else "unavailable",
                      "engine": self.relay.engine, "pid": os.getpid()})
            await self._stop.wait()
            await self._drain(front)
        finally:
            await front.cleanup()
            await self._settle_all()
            for helper in helpers:
                helper.cancel()
            await admin.cleanup()
            if self.sampler is not None:
                self.sampler.stop()
            if self.counter is not None:
                self.counter.close()
            self.relay.upstream.close()
            for outbox in self.outboxes:
                outbox.close(LAST_RECORDS_S)
            await self.learned.save()

    async def _listen(self, runner: "web.ServerRunner | web.AppRunner", host: str, port: int) -> str:
        await runner.setup()
        site = web.TCPSite(runner, host, port, backlog=BACKLOG)
        await site.start()
        name = runner.addresses[0]
        return f"http://[{name[0]}]:{name[1]}" if ":" in name[0] else f"http://{name[0]}:{name[1]}"

    async def _drain(self, front: web.ServerRunner) -> None:
        """No new connections, and running requests to their end, for a while."""
        self.relay.draining = True
        for site in list(front.sites):
            await site.stop()
        deadline = time.monotonic() + self.config.drain_s
        while self.relay.active and time.monotonic() < deadline and not self._at_once:
            await asyncio.sleep(TICK_S)

    async def _settle_all(self) -> None:
        """Every request gets its record: after its last windows, or without them if the counter has fallen silent."""
        deadline = time.monotonic() + LAST_RECORDS_S
        while self.meter.unsettled and time.monotonic() < deadline:
            await asyncio.sleep(TICK_S)
        self._advance(time.monotonic_ns() + 2 * SILENCE_NS)

    def _advance(self, t_ns: int) -> None:
        try:
            self.desk.tick(t_ns)
        except Exception:  # law 5: traffic, and an orderly end, do not need the meter
            self.desk.failed()
            logger.exception("the meter failed")

    def _asked_to_stop(self) -> None:
        self._at_once = self._stop.is_set()  # asked twice
        self._stop.set()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._advance(time.monotonic_ns())

    async def _watch_engine(self) -> None:
        """Ask the upstream what it is until it answers, and now and then whether it still is; traffic flows meanwhile."""
        while True:
            found = await self._recognise(self.config.upstream)
            if found is not None and found.is_news(self._upstream_is):
                self._upstream_is = found
                if self.config.engine == "auto":
                    self.relay.engine = found.name
                logger.info("upstream %s answers; engine: %s", self.config.upstream, self.relay.engine)
                await self.learned.is_of(replace(found, name=self.relay.engine))
                self._answered.set()
                await self.lookout.engine_is_news()
            await asyncio.sleep(RECOGNISE_AGAIN_S if self._upstream_is else RECOGNISE_EVERY_S)

    # records on their way

    def deliver(self, record: EnergyRecord) -> None:
        """A settled record, to everyone who wants it. On the event loop; nothing here waits."""
        self._metrics.observe(record)
        for outbox in self.outboxes:
            outbox.put(record)

    def _stored(self, records: Sequence[EnergyRecord]) -> None:
        """The ledger has them (told from its outbox's thread)."""
        self._on_loop(self.recent.stored, tuple(records))

    async def _find(self, any_id: str) -> dict[str, Any] | None:
        return await asyncio.to_thread(self.ledger.get, any_id) if self.ledger is not None else None

    # from the sampler's thread

    def _readings_in(self, readings: tuple[Reading, ...]) -> None:
        self._on_loop(self._sampled, readings)

    def _sampled(self, readings: tuple[Reading, ...]) -> None:
        self.desk.sample(readings)

    def _sampler_failed(self, text: str) -> None:
        logger.warning("the energy counter cannot be read (requests are served, energy will be missing): %s", text)

    def _on_loop(self, call: Callable[..., None], *args: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *args)

    # AdminView

    def render_metrics(self, accept: str) -> tuple[bytes, str]:
        return self._metrics.render(accept)

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Ready once the upstream has answered, until draining begins."""
        failing = {outbox.name: outbox.failing for outbox in self.outboxes if outbox.failing}
        why = {"upstream_answered": self._answered.is_set(), "draining": self.relay.draining, "engine": self.relay.engine,
               "energy": self.counter.name if self.counter is not None else "unavailable",
               "energy_failing": bool(self.sampler is not None and self.sampler.failing), "sinks_failing": failing,
               "shared_boards": self.lookout.shared}
        return self._answered.is_set() and not self.relay.draining, why

    def power_w(self) -> float | None:
        """What the boards draw now, None if that is not known."""
        return self.meter.power_w(time.monotonic_ns())

    def balance(self) -> dict[str, Any] | None:
        if self.counter is None:
            return None
        return {**self.meter.balance.as_json(), "source": self.counter.name, "status": self.counter.status}

    def in_flight(self) -> list[dict[str, Any]]:
        now_ns = time.monotonic_ns()
        return [{"record_id": a.record_id, "model": a.model, "age_seconds": seconds(now_ns - a.begin_ns), "output_frames": a.work.shown,
                 "energy_joules_so_far": None if self.counter is None else joules(a.energy_uj),
                 "status": "unavailable" if self.counter is None else self.counter.status} for a in self.meter.running]
