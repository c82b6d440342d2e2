"""A counter that a `perjoule meter` reads elsewhere (`meter:unix:PATH`, `meter:HOST:PORT`, `meter:tls://HOST:PORT`), as it tells it.

A thread listens, connects again when the connection is lost, and asks the meter's clock once a second. What comes carries the times of the
meter's own looks; `read` hands them over one by one, in our time. While nothing comes, `read` fails, as a counter that hangs does.
"""

import logging
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any

from perjoule.adapters.remote import OPEN, Access, why_not
from perjoule.adapters.remote.clock import Clock
from perjoule.adapters.remote.page import HOPELESS
from perjoule.adapters.remote.told import Told
from perjoule.sidecar.http import tls
from perjoule.sidecar.http.addresses import Unix, read_address
from perjoule.sidecar.metering.pools import each_once
from perjoule.sidecar.ports import AbsentError, CounterError, Device, Reading, SilentError, UnavailableError
from perjoule.sidecar.process import readings as wire
from perjoule.sidecar.process.publisher import boot_id
from perjoule.sidecar.units import NS_PER_S

TIMEOUT_S = 2.0
SILENT_S = 3.0  # a meter whose last look is older cannot read its counter, or is gone
FIRST_PINGS, PING_S = 8, 1.0
AGAIN_FIRST_S, AGAIN_MOST_S = 0.1, 1.0

logger = logging.getLogger("perjoule")


class MeterCounter:
    """The meter's devices, or those named; `name`, `status`, `boundary` and `period_ns` are those of the counter that it reads."""

    wrap_uj = None

    def __init__(self, where: str, gpus: str = "all", access: Access = OPEN) -> None:
        """Raises UnavailableError; ValueError for authorities that cannot be read."""
        self._where, self._token = where, access.token
        with_tls = where.startswith("tls://")
        try:
            self._address = read_address(where.removeprefix("tls://"))
        except ValueError as error:
            raise UnavailableError(f"meter: {error}") from error
        self._tls = tls.client_context(access.tls_ca, "", "", insecure=False, flag="energy-tls") if with_tls else None
        self._lock = threading.Lock()
        self._told, self._fault, self._looked_ns = Told(), "", time.monotonic_ns()
        self._closed = threading.Event()
        self._socket: socket.socket | None = None
        try:
            self._greet(None)
            self._choose(tuple(device.uuid for device in self._hello.devices) if gpus == "all" else each_once(gpus))
            self._listen(until_first=True)
        except CounterError as error:
            self.close()
            raise why_not(error) from error
        except (OSError, wire.WireError) as error:
            self.close()
            is_absent = isinstance(error, OSError) and not isinstance(error, HOPELESS)
            raise (AbsentError if is_absent else UnavailableError)(f"meter: {where}: {error}") from error
        self.name, self.status, self.boundary = self._hello.name, self._hello.status, self._hello.boundary
        self.period_ns = self._hello.period_ns
        self._thread = threading.Thread(target=self._keep, name="perjoule-meter", daemon=True)
        self._thread.start()

    @property
    def clock_uncertainty_ns(self) -> int | None:
        """How far off the times of readings may be, because the meter's clock is another one; 0 where it is ours."""
        return self._clock.uncertainty_ns

    def read(self) -> tuple[Reading, ...]:
        """The oldest look of the meter's that was not handed over yet, else its latest. Raises CounterError."""
        with self._lock:
            if self._told:
                looks = self._told.take()
            elif self._fault:
                raise CounterError(f"meter: {self._where}: {self._fault}")
            elif (since_ns := time.monotonic_ns() - self._looked_ns) > SILENT_S * NS_PER_S:
                raise CounterError(f"meter: {self._where} has not looked at its counter for {since_ns / NS_PER_S:.1f} s")
            else:
                looks = self._told.take()
        if looks is None:
            raise CounterError(f"meter: {self._where} has not read its counter yet")
        return looks

    def close(self) -> None:
        """Hang up."""
        self._closed.set()
        if (open_ := self._socket) is not None:  # the thread may let go of it meanwhile
            with suppress(OSError):
                open_.shutdown(socket.SHUT_RDWR)  # wakes the thread
            open_.close()

    # the connection, in the constructor and then in the thread

    def _keep(self) -> None:
        wait_s = AGAIN_FIRST_S
        while not self._closed.is_set():
            try:
                if self._socket is None:
                    self._greet(self._hello)
                    logger.info("the meter %s tells its readings again", self._where)
                wait_s = AGAIN_FIRST_S
                self._listen(until_first=False)
            except Exception as error:  # whatever is wrong with it, it may come back
                with self._lock:
                    self._fault = str(error) or repr(error)
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            self._closed.wait(wait_s)
            wait_s = min(2 * wait_s, AGAIN_MOST_S)

    def _greet(self, known: wire.Hello | None) -> None:
        """Connect, and hear what the meter reads; that must be what it read before."""
        self._socket = self._dial()
        self._buffer = b""
        self._socket.sendall(wire.ask(self._token))
        self._hello = told = wire.read_hello(self._line())
        if known is not None and told.what != known.what:
            self._hello = known
            raise CounterError(f"it reads something else now: got {told.what}, expected {known.what}; restart the sidecar to take it")
        self._clock = Clock(is_shared=bool(told.boot_id) and told.boot_id == boot_id())
        self._pinged_ns = self._received_ns = 0

    def _choose(self, named: tuple[str, ...]) -> None:
        places = {device.uuid: place for place, device in enumerate(self._hello.devices)}
        for uuid in named:
            if uuid not in places:
                raise CounterError(f"meter: {self._where} has no device {uuid!r}; there is {', '.join(places)}")
        self._places = [places[uuid] for uuid in named]
        self.devices: tuple[Device, ...] = tuple(self._hello.devices[place] for place in self._places)

    def _dial(self) -> socket.socket:
        if isinstance(self._address, Unix):
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            plain.settimeout(TIMEOUT_S)
            try:
                plain.connect(self._address.path)
            except OSError:
                plain.close()
                raise
            return plain
        plain = socket.create_connection((self._address.host, self._address.port), TIMEOUT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is None:
            return plain
        try:
            return self._tls.wrap_socket(plain, server_hostname=self._address.host)
        except (OSError, ssl.SSLError):
            plain.close()
            raise

    def _listen(self, *, until_first: bool) -> None:
        """Take what comes, until the connection ends, or until the clock is known and a reading has come. Raises OSError, WireError,
        and CounterError for a meter that cannot read."""
        begun_s = time.monotonic()
        self._ping()
        while not self._closed.is_set():
            row = wire.parse(self._line())
            self._take(row)
            is_next = "pong" in row and self._clock.answers < FIRST_PINGS
            if is_next or time.monotonic_ns() - self._pinged_ns > PING_S * NS_PER_S:
                self._ping()
            if until_first and self._told and self._clock.answers >= FIRST_PINGS:
                return
            if until_first and (self._fault or time.monotonic() - begun_s > 2 * TIMEOUT_S):
                raise SilentError(f"meter: {self._where}: {self._fault or 'it has not read its counter yet'}")

    def _ping(self) -> None:
        assert self._socket is not None
        self._pinged_ns = time.monotonic_ns()
        self._socket.sendall(wire.line({"ping": self._pinged_ns}))

    def _line(self) -> bytes:
        """The next line; raises WireError for an end, OSError for a silence."""
        assert self._socket is not None
        while b"\n" not in self._buffer:
            piece = self._socket.recv(1 << 16)
            self._received_ns = time.monotonic_ns()
            if not piece:
                raise wire.WireError("it has hung up")
            self._buffer += piece
            if len(self._buffer) > wire.LONGEST:
                raise wire.WireError(f"it said a line of more than {wire.LONGEST} bytes")
        text, _, self._buffer = self._buffer.partition(b"\n")
        return text

    def _take(self, row: dict[str, Any]) -> None:
        heard_ns = self._received_ns
        if "pong" in row:
            sent_ns, theirs_ns = row["pong"], row.get("t")
            if type(sent_ns) is not int or type(theirs_ns) is not int:
                raise wire.WireError(f"it said {row!r:.120}, expected two times")
            self._clock.answered(sent_ns, theirs_ns, heard_ns)
        elif "r" in row:
            looks = wire.read_rows(row["r"], len(self._hello.devices))
            if self._clock.uncertainty_ns is not None:  # else nobody knows when that was
                looks = tuple(self._in_our_time(looks[place], heard_ns) for place in self._places)
                with self._lock:
                    self._told.put(looks)
                    self._fault, self._looked_ns = "", heard_ns
        elif "failing" in row:
            with self._lock:
                self._fault = f"its counter cannot be read: {row['failing']}"

    def _in_our_time(self, look: Reading, heard_ns: int) -> Reading:
        """A look cannot have been later than when we heard of it."""
        after_ns = min(self._clock.ours(look.t_after_ns), heard_ns)
        return Reading(min(self._clock.ours(look.t_before_ns), after_ns), after_ns, look.energy_uj, look.power_mw)
