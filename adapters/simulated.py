"""Counters that no sensor stands behind: a power model of the traffic, and the counter of perjoule's own engine.

Both are for trying perjoule on a machine without a GPU; every joule of theirs is called simulated wherever it is shown.
"""

import json
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from perjoule.sidecar.ports import CounterError, Device, Reading, UnavailableError
from perjoule.sidecar.record import Status
from perjoule.sidecar.units import NS_PER_MS

PJ_PER_UJ = 1_000_000  # a milliwatt draws a picojoule in a nanosecond
TIMEOUT_S = 1.0

# An H200 with an 8B model under vLLM: loaded idle, one request, 32 requests, and near the board's limit.
IDLE_MW = 127_000
FIRST_REQUEST_MW = 305_000
FURTHER_REQUEST_MW = 7_600
MOST_MW = 690_000


def modelled_mw(in_flight: int) -> int:
    """What an H200 of the recordings draws on average with so many requests in flight."""
    return min(MOST_MW, FIRST_REQUEST_MW + FURTHER_REQUEST_MW * (in_flight - 1)) if in_flight > 0 else IDLE_MW


class SimulatedCounter:
    """A power model over the requests in flight, integrated at each read and shown every 100 ms, as a board does."""

    name = "simulated"
    status = Status.SIMULATED
    boundary = "gpu-board"
    devices = (Device("simulated", "a power model of an H200"),)
    period_ns = 100 * NS_PER_MS
    wrap_uj = None

    def __init__(self, in_flight: Callable[[], int], now: Callable[[], int] = time.monotonic_ns) -> None:
        """`in_flight` is asked at each read, in the reader's thread."""
        self._in_flight = in_flight
        self._now = now
        self._read_ns = self._start_ns = now()
        self._drawn_pj = self._shown_uj = self._ticks = 0

    def read(self) -> tuple[Reading, ...]:
        """The model's board; the power of this moment counts for the whole time since the last read."""
        now_ns = self._now()
        power_mw = modelled_mw(self._in_flight())
        self._drawn_pj += power_mw * (now_ns - self._read_ns)
        self._read_ns = now_ns
        ticks = (now_ns - self._start_ns) // self.period_ns
        if ticks > self._ticks:
            self._ticks, self._shown_uj = ticks, self._drawn_pj // PJ_PER_UJ
        return (Reading(now_ns, self._now(), self._shown_uj, power_mw),)

    def close(self) -> None:
        """Nothing is held open."""


class EngineCounter:
    """The counter of perjoule's embedded engine: `GET /simulated/counter`, over one connection kept open."""

    name = "simulated"
    status = Status.SIMULATED
    boundary = "gpu-board"
    period_ns = 100 * NS_PER_MS
    wrap_uj = None

    def __init__(self, url: str) -> None:
        """`url` is where the engine listens. Raises UnavailableError when it does not answer with a counter."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UnavailableError(f"simulated: got {url!r}, expected http://HOST:PORT: {error}") from error
        if parts.scheme != "http" or not host:
            raise UnavailableError(f"simulated: got {url!r}, expected http://HOST:PORT")
        self._url = url
        self._path = parts.path.rstrip("/") + "/simulated/counter"
        self._connection = HTTPConnection(host, port, timeout=TIMEOUT_S)
        try:
            _, self.devices = self._ask()
        except CounterError as error:
            raise UnavailableError(str(error)) from error

    def read(self) -> tuple[Reading, ...]:
        """The engine's board. Raises CounterError."""
        return (self._ask()[0],)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _ask(self) -> tuple[Reading, tuple[Device]]:
        before = time.monotonic_ns()
        try:
            self._connection.request("GET", self._path)
            answer = self._connection.getresponse()
            body = answer.read()
            after = time.monotonic_ns()
            if answer.status != 200:
                raise CounterError(f"simulated: {self._url}{self._path} answered {answer.status}, expected 200")
            row = json.loads(body)
            return Reading(before, after, int(row["energy_uj"]), row["power_mw"]), (Device(row["uuid"], row["name"]),)
        except (OSError, HTTPException) as error:
            self._connection.close()  # the next request dials again
            raise CounterError(f"simulated: {self._url} does not answer: {error!r}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise CounterError(f"simulated: {self._url}{self._path} answered {body[:80]!r}, expected an object with "
                               "energy_uj, power_mw, uuid and name") from error
