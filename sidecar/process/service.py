"""Starts everything, keeps it in step, reloads it, drains it and stops it: the one place where threads, timers and signals meet."""

import asyncio
import logging
import os
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from perjoule.sidecar.access.limits import Limits
from perjoule.sidecar.admin.port import Port, RecordQueries
from perjoule.sidecar.http.front import Front
from perjoule.sidecar.http.sockets import Listener, listening_socket, url_of
from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.ports import EnergyCounter, Engine, Reading, RecordSink
from perjoule.sidecar.process import interpreter
from perjoule.sidecar.process.accounts import Accounts
from perjoule.sidecar.process.crew import Crew
from perjoule.sidecar.process.desk import Desk
from perjoule.sidecar.process.engine_steps import EngineSteps
from perjoule.sidecar.process.gauges import gauges
from perjoule.sidecar.process.inquiry import Inquiry
from perjoule.sidecar.process.learned import Calibrations, Learned
from perjoule.sidecar.process.live import Live
from perjoule.sidecar.process.lookout import Lookout, Questions
from perjoule.sidecar.process.presence import Presence
from perjoule.sidecar.process.setting import boards_of, setting_of
from perjoule.sidecar.process.shared_desk import SharedDesk
from perjoule.sidecar.process.source import Host, Open, Source
from perjoule.sidecar.process.standing import balance_of, in_flight_of
from perjoule.sidecar.process.traffic import LAST_ANSWERS_S, Traffic
from perjoule.sidecar.record import EnergyRecord
from perjoule.sidecar.records.archive import Archive
from perjoule.sidecar.records.archive import Ledger as Keeping
from perjoule.sidecar.records.tally import Shown, Tally
from perjoule.sidecar.settings.config import Config, ConfigError
from perjoule.sidecar.settings.credentials import OPEN, Credentials
from perjoule.sidecar.settings.reload import changes
from perjoule.sidecar.units import NS_PER_MS

TICK_S = 0.05  # settles requests whose windows wait for nothing but time
FIRST_ANSWER_S = 2.0  # the engine's, which is waited for before it is said that all is up
METER_RESTS = 2  # times as long as dividing a reading took: with thousands in flight, streams come first (law 5)
OPERATORS = 256  # connections to the operator's port
LAST_RECORDS_S = 2.0  # after the last request, for its windows to close and its record to be stored

logger = logging.getLogger("perjoule")


class Push(Protocol):
    """Sends metrics somewhere from time to time, in a thread of its own; nothing here waits or raises but `close`, which waits."""

    interval_s: float
    sent: int
    failed: int

    def offer(self, shown: Shown, instance_id: str) -> None: ...
    def close(self, timeout_s: float) -> None: ...


class Ledger(Keeping, RecordQueries, Protocol):
    """Where records are kept and can be asked for."""


class Service:
    """`perjoule serve`: the traffic port, the operator's port, the sampler, the records' ways out. It is the AdminView."""

    def __init__(self, config: Config, *, counter: EnergyCounter | None, sinks: Sequence[RecordSink], ledger: Ledger | None,
                 calibrations: Calibrations | None, recognise: Callable[[str], Awaitable[Engine | None]], ask: Questions,
                 render: Callable[[Shown, str], tuple[bytes, str]], tracing: bool,
                 push: Push | None = None, awaited: Open | None = None,
                 host_of: Callable[[EnergyCounter], Host | None] = lambda counter: None, credentials: Credentials = OPEN,
                 reread: Callable[[], tuple[Config, Credentials]] | None = None) -> None:
        """`render` makes a scrape of metrics, `push` sends them. `awaited` opens a source that was not there at the start, `host_of`
        what the host beside a counter draws. `reread` reads all settings again, for a reload; it raises ConfigError."""
        self.config, self.ledger, self.credentials = config, ledger, credentials
        self.instance_id, self.settled, self.settled_uj = uuid.uuid4().hex, 0, 0
        self.meter = Meter(pools=config.pools(), method=config.method, max_num_seqs=config.max_num_seqs)
        self.source = Source(self.meter, counter, awaited=awaited, host_of=host_of, deliver=self._readings_in,
                             poll_ns=config.poll_ms * NS_PER_MS)
        self.archive = Archive(sinks, ledger)
        self.accounts = Accounts(self, self.meter, self.archive)
        self.live = Live(self, self.meter, self.archive)
        self.limits = Limits(credentials.doors.keys, time.time_ns() - time.monotonic_ns())
        desk = (SharedDesk if config.workers > 1 else Desk)(self.meter, self.archive.recent, self.deliver, self.archive.find, self.limits)
        self.presence = Presence(config.upstream, config.engine, recognise)
        self.traffic: Traffic | Crew = (
            Crew(config, desk, tracing=tracing, engine=self.presence.name) if isinstance(desk, SharedDesk)
            else Traffic(config, credentials.doors, desk, tracing=tracing, engine=self.presence.name))
        self.desk, self.draining = desk, False
        self.engine_steps = EngineSteps(config.steps_path(), int(config.socket_mode, 8), desk)
        self._reread = reread
        self.upstream_tls = config.upstream_tls()  # for who asks the engine beside the traffic
        self.inquiry = Inquiry(desk.jobs, self)
        self.push, self._render = push, render
        self._tally = Tally(lambda: gauges(self))
        self.learned = Learned(self.meter, calibrations)
        self.lookout = Lookout(self.meter, ask, config.upstream, config.max_num_seqs, config.pools().ranks)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._at_once = asyncio.Event()
        self._rests_until_ns = 0
        self._reloading: asyncio.Task[None] | None = None

    # running

    async def run(self, announce: Callable[[dict[str, Any]], None]) -> None:
        """Serve until SIGTERM or SIGINT, then drain. Raises OSError if a port cannot be had."""
        loop = self._loop = asyncio.get_running_loop()
        port = Port(self, lambda: self.credentials.admin_token)
        admin = Front(port.handle, slow_sender_s=self.config.slow_sender_s, max_connections=OPERATORS)
        operators: Listener | None = None
        helpers: list[asyncio.Task[None]] = []
        try:
            await self.archive.recall(self.limits, time.monotonic_ns())
            listen = await self.traffic.open()
            operators = Listener(listening_socket(self.config.address("admin"), mode=int(self.config.socket_mode, 8)))
            await operators.serve(admin)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._asked_to_stop)
            loop.add_signal_handler(signal.SIGHUP, self._asked_to_reload)
            self.engine_steps.open()
            self.source.start()
            helpers = [loop.create_task(endless) for endless in (
                self._tick(), self._push_metrics(), self.accounts.keep(), self.presence.watch(self._engine_is_news), self.learned.keep(),
                self.lookout.watch_load(), self.lookout.watch_boards(), self.inquiry.watch(), self.source.wait(self._source_is_there))]
            with suppress(TimeoutError):
                await asyncio.wait_for(self.presence.answers.wait(), FIRST_ANSWER_S)
            interpreter.settle()
            announce({"listen": listen, "admin": url_of(operators.listening), "engine": self.presence.name, "pid": os.getpid(),
                      "energy": self.counter.name if self.counter else "unavailable"})
            await self._stop.wait()
            self.draining = True
            logger.info("asked to stop, with %d requests in flight", self.meter.in_flight)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._at_once.wait(), self.config.unready_s)
            await self.inquiry.drain(self.traffic.drain(self._at_once), self._at_once)
        finally:
            await self.traffic.close()
            self.desk.jobs.close(time.monotonic_ns())
            await self._settle_all()
            self.engine_steps.close()
            for helper in helpers:
                helper.cancel()
            if operators is not None:
                operators.close()
            port.close()
            await admin.close(LAST_ANSWERS_S)
            self.source.close()
            self.accounts.close(LAST_RECORDS_S)
            if self.push is not None:  # once more, with all that has been stored
                self.push.offer(self._tally.shown(), self.instance_id)
                self.push.close(LAST_RECORDS_S)
            await self.learned.save()

    async def _settle_all(self) -> None:
        """Every request gets its record: after its last windows, or without them if the counter has fallen silent."""
        deadline = time.monotonic() + LAST_RECORDS_S
        while self.meter.unsettled and time.monotonic() < deadline:
            await asyncio.sleep(TICK_S)
        self._advance(time.monotonic_ns() + 2 * max(division.group.silence_ns for division in self.meter.divisions))

    def _advance(self, t_ns: int) -> None:
        try:
            self.desk.tick(t_ns)
        except Exception:  # law 5: traffic, and an orderly end, do not need the meter
            self.desk.failed()
            logger.exception("the meter failed")

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():  # asked twice
            self._at_once.set()
        self._stop.set()

    def _asked_to_reload(self) -> None:
        if self._reread is None or self._stop.is_set() or (self._reloading is not None and not self._reloading.done()):
            logger.warning("not reloaded: %s", "draining" if self._stop.is_set() else "there is nothing to read again, or it is being read")
            return
        self._reloading = asyncio.ensure_future(self._reload(self._reread))

    async def _reload(self, reread: Callable[[], tuple[Config, Credentials]]) -> None:
        """Read everything again; all of it holds from now on, or, if anything in it cannot be used, nothing."""
        try:
            config, credentials = await asyncio.to_thread(reread)
            changed = changes(self.config, config)
            self.upstream_tls = changed.config.checked().upstream_tls()
        except ConfigError as error:
            logger.error("not reloaded, everything stays as it was: %s", error)
            return
        self.config, self.credentials = changed.config, credentials
        logging.getLogger().setLevel(self.config.log_level.upper())
        self.limits.reload(credentials.doors.keys)
        await self.traffic.reconfigure(self.config, credentials.doors)
        logger.info("reloaded: %s; keys and certificates are read again", ", ".join(changed.now) or "no setting has changed")
        if changed.at_restart:
            logger.warning("these settings hold after a restart only: %s", ", ".join(changed.at_restart))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._in_turn(self._advance, time.monotonic_ns())

    async def _push_metrics(self) -> None:
        while self.push is not None:
            await asyncio.sleep(self.push.interval_s)
            self.push.offer(self._tally.shown(), self.instance_id)

    async def _engine_is_news(self, engine: Engine) -> None:
        self.traffic.know_engine(engine.name)
        await self.learned.is_of(engine)
        await self.lookout.engine_is_news()

    async def _source_is_there(self) -> None:
        counter = self.source.counter
        assert counter is not None
        logger.info("energy from %s (%s), from now on: %s", counter.name, counter.status, ", ".join(d.uuid for d in counter.devices))
        await self.learned.is_of(replace(self.presence.found or Engine("unknown"), name=self.presence.name))

    def deliver(self, records: Sequence[EnergyRecord]) -> None:
        """Settled records, to everyone who wants them. On the event loop; nothing here waits."""
        for record in records:
            self.settled += 1
            self.settled_uj += record.charge.energy_uj or 0
            record.instance_id, record.sequence = self.instance_id, self.settled
        self.archive.keep(*records)  # first: whatever is wrong with a record, it is not lost
        self._tally.add(*records)

    # from the sampler's thread

    def _readings_in(self, readings: tuple[Reading, ...]) -> None:
        self._on_loop(self._sampled, readings)

    def _sampled(self, readings: tuple[Reading, ...]) -> None:
        self._in_turn(self.desk.sample, readings)

    def _in_turn(self, divide: Callable[[Any], None], what: Any) -> None:
        """Let the meter work, unless it has kept the loop busy enough: a reading left out makes a window longer, and loses nothing."""
        began_ns = time.monotonic_ns()
        if began_ns >= self._rests_until_ns:
            divide(what)
            ended_ns = time.monotonic_ns()
            self._rests_until_ns = ended_ns + METER_RESTS * (ended_ns - began_ns)

    def _on_loop(self, call: Callable[..., None], *args: Any) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *args)

    # AdminView

    @property
    def counter(self) -> EnergyCounter | None:
        """What is read, None while there is nothing to read."""
        return self.source.counter

    async def render_metrics(self, accept: str) -> tuple[bytes, str]:
        return await asyncio.to_thread(self._render, self._tally.shown(), accept)

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Ready while the upstream answers and workers take clients, until draining begins."""
        workers = self.traffic.alive
        answers = self.presence.answers.is_set()
        why = {"upstream_answers": answers, "draining": self.draining, "engine": self.presence.name, **workers,
               "energy": self.counter.name if self.counter is not None else "unavailable",
               "energy_failing": self.source.failing, "sinks_failing": self.archive.failing,
               "shared_boards": self.lookout.shared, "load": self.lookout.shown()}
        return answers and not self.draining and workers.get("workers_alive", 1) > 0, why

    def power_w(self) -> float | None:
        """What the boards draw now, None if that is not known."""
        return self.meter.power_w(time.monotonic_ns())

    def balance(self) -> dict[str, Any] | None:
        return balance_of(self.meter, self.counter)

    def setting(self) -> dict[str, Any]:
        return setting_of(self.config, replace(self.presence.found or Engine(""), name=self.presence.name), self.meter, self.counter)

    async def boards(self) -> list[dict[str, Any]]:
        return boards_of(self.meter, self.counter, await self.lookout.conditions())

    def in_flight(self) -> list[dict[str, Any]]:
        return in_flight_of(self.meter, self.counter)
