"""The traffic port of several processes: workers are started, told what to go by, replaced when they die, and drained.

Each worker has a socket of its own on the same port (SO_REUSEPORT), or shares the one of a unix socket's file. The sockets are
opened here, so that who connects while a worker is being replaced only waits.
"""

import asyncio
import logging
import socket
import sys
import time
from contextlib import suppress
from dataclasses import asdict

from perjoule.sidecar.access.doors import Doors
from perjoule.sidecar.http.addresses import Tcp
from perjoule.sidecar.http.sockets import listening_socket, stop_listening, url_of
from perjoule.sidecar.process.link import Link
from perjoule.sidecar.process.shared_desk import SharedDesk
from perjoule.sidecar.process.wire import Kind
from perjoule.sidecar.settings.config import Config

START_LIMIT_S = 60.0  # modules are loaded anew, on a machine that may be busy
AGAIN_FIRST_S, AGAIN_MOST_S = 0.1, 5.0  # how long to wait before a worker is replaced, longer while they die young
YOUNG_S = 10.0
LAST_ANSWERS_S = 2.0

logger = logging.getLogger("perjoule")


class Seat:
    """A worker's place: its socket stays while the processes on it change."""

    def __init__(self, number: int, listening: socket.socket) -> None:
        self.number, self.listening = number, listening
        self.process: asyncio.subprocess.Process | None = None
        self.link: Link | None = None
        self.works = asyncio.Event()
        self.drained = asyncio.Event()

    def kill(self) -> None:
        """Its process ends now, if there is one."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.kill()


class Crew:
    """Traffic, in several processes."""

    def __init__(self, config: Config, desk: SharedDesk, *, tracing: bool, engine: str) -> None:
        self._config, self._desk, self._tracing, self._engine = config, desk, tracing, engine
        self._seats: list[Seat] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._ending = False
        self._url = ""

    @property
    def alive(self) -> dict[str, int]:
        """How many workers there are, and how many there should be."""
        return {"workers": self._config.workers, "workers_alive": sum(seat.works.is_set() for seat in self._seats)}

    async def open(self) -> str:
        """Take clients; answers the URL. Raises OSError if the port cannot be had or a worker does not start."""
        self._open_sockets()
        self._url = url_of(self._seats[0].listening, tls=bool(self._config.tls_cert))
        self._keepers = [asyncio.ensure_future(self._keep(seat)) for seat in self._seats]
        started = asyncio.gather(*(seat.works.wait() for seat in self._seats))
        try:
            await asyncio.wait_for(started, START_LIMIT_S)
        except TimeoutError:
            raise OSError(f"a worker process did not start within {START_LIMIT_S:g} s") from None
        return self._url

    def know_engine(self, name: str) -> None:
        """The upstream was found to be this."""
        self._engine = name
        self._tell_all()

    async def reconfigure(self, config: Config, _: Doors) -> None:
        """Go by `config` from the next request on; workers read keys and certificates themselves."""
        self._config = config
        self._tell_all()

    async def drain(self, at_once: asyncio.Event) -> None:
        """No new connections, and running requests to their end, for `--drain-s` or until `at_once`."""
        self._ending = True
        for seat in self._seats:
            stop_listening(seat.listening)
            if seat.link is not None:
                seat.link.say(Kind.DRAIN)
        drained = asyncio.ensure_future(self._all_drained())
        hurried = asyncio.ensure_future(at_once.wait())
        await asyncio.wait([drained, hurried], timeout=self._config.drain_s, return_when=asyncio.FIRST_COMPLETED)
        for seat in self._seats:
            if seat.link is not None:
                seat.link.say(Kind.CUT)
        await asyncio.wait([drained], timeout=LAST_ANSWERS_S)
        drained.cancel()
        hurried.cancel()

    async def close(self) -> None:
        """Cut what still runs."""
        self._ending = True
        for seat in self._seats:
            stop_listening(seat.listening)
            if not seat.drained.is_set():
                seat.kill()
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=LAST_ANSWERS_S)
        for seat, keeper in zip(self._seats, self._keepers, strict=False):
            keeper.cancel()
            seat.kill()

    # inside

    async def _all_drained(self) -> None:
        for seat in self._seats:
            await seat.drained.wait()

    def _open_sockets(self) -> None:
        address, mode = self._config.address("listen"), int(self._config.socket_mode, 8)
        first = listening_socket(address, reuse_port=True, mode=mode)
        sockets = [first]
        for _ in range(1, self._config.workers):
            if isinstance(address, Tcp):
                sockets.append(listening_socket(Tcp(address.host, first.getsockname()[1]), reuse_port=True))
            else:
                sockets.append(first.dup())
        self._seats = [Seat(number, listening) for number, listening in enumerate(sockets, 1)]

    async def _keep(self, seat: Seat) -> None:
        """A worker on this seat, and another one when it has died, until the end."""
        again_s = AGAIN_FIRST_S
        while not self._ending:
            begun_s = time.monotonic()
            code = await self._run(seat)
            if self._ending:
                return
            again_s = AGAIN_FIRST_S if time.monotonic() - begun_s > YOUNG_S else min(2 * again_s, AGAIN_MOST_S)
            lost = seat.link.in_flight if seat.link is not None else 0
            logger.error("worker %d ended (%s) with %d requests in flight, recorded as errored; another one takes its place", seat.number,
                         f"signal {-code}" if code < 0 else f"exit code {code}", lost)
            await asyncio.sleep(again_s)

    async def _run(self, seat: Seat) -> int:
        """A process on this seat, from its start to its end; answers the exit code."""
        ours, theirs = socket.socketpair()
        try:
            seat.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "perjoule.sidecar.process.worker", str(theirs.fileno()), str(seat.listening.fileno()),
                pass_fds=(theirs.fileno(), seat.listening.fileno()), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL)
        except OSError:
            ours.close()
            logger.exception("worker %d cannot be started", seat.number)
            return 1
        finally:
            theirs.close()
        _, seat.link = await asyncio.get_running_loop().create_unix_connection(
            lambda: Link(self._desk, lambda kind: self._heard(seat, kind), seat.works.clear), sock=ours)
        self._tell(seat)
        try:
            return await seat.process.wait()
        finally:
            seat.drained.set() if self._ending else seat.works.clear()

    def _tell_all(self) -> None:
        for seat in self._seats:
            self._tell(seat)

    def _tell(self, seat: Seat) -> None:
        if seat.link is not None:
            seat.link.say(Kind.SETTINGS, asdict(self._config), self._tracing, self._engine)

    def _heard(self, seat: Seat, kind: Kind) -> None:
        (seat.works if kind is Kind.LISTENING else seat.drained).set()
