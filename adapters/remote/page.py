"""One page, asked for again and again over a connection that stays open: HTTP, HTTPS, or HTTP over a unix socket."""

import socket
import ssl
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import NamedTuple

from perjoule.adapters.remote import Access
from perjoule.sidecar.http import tls
from perjoule.sidecar.http.addresses import Unix, read_origin
from perjoule.sidecar.ports import CounterError, SilentError, UnavailableError

TIMEOUT_S = 1.0
HOPELESS = (ssl.SSLCertVerificationError, PermissionError)  # waiting does not help
STARTING = (502, 503, 504)  # what a proxy says, or a server, before it is up
LONGEST = 16 << 20  # bytes; a page of eight boards has about 100 kB


def whole_uj(uj: float) -> int:
    """A number of microjoules. Raises ValueError for one that cannot be: what is no number, less than nothing, more than is ever drawn."""
    if not 0 <= uj < 1 << 63:
        raise ValueError(f"{uj} uJ")
    return round(uj)


class Seen(NamedTuple):
    """A page, and when the call began and returned (monotonic)."""

    before_ns: int
    after_ns: int
    body: bytes


class Page:
    """Where counters are read. In one thread at a time."""

    def __init__(self, source: str, url: str, access: Access) -> None:
        """Raises UnavailableError for what is no URL, ValueError for authorities that cannot be read."""
        self._source, self.url = source, url
        try:
            origin = read_origin(url)
        except ValueError as error:
            raise UnavailableError(f"{source}: {error}") from error
        self.prefix = origin.prefix
        self._fields = {"Authorization": f"Bearer {access.token}"} if access.token else {}
        address = origin.address
        self._connection: HTTPConnection
        if isinstance(address, Unix):
            self._connection = _OverUnix(address.path)
        elif origin.tls:
            context = tls.client_context(access.tls_ca, "", "", insecure=False, flag="energy-tls")
            self._connection = HTTPSConnection(address.host, address.port, timeout=TIMEOUT_S, context=context)
        else:
            self._connection = HTTPConnection(address.host, address.port, timeout=TIMEOUT_S)

    def get(self, path: str) -> Seen:
        """The page as it is now. Raises CounterError, which names the page."""
        try:
            try:
                return self._get(path, again=self._connection.sock is not None)
            except _StaleError:  # who listens has hung up meanwhile, which is no fault
                return self._get(path, again=False)
        except (OSError, HTTPException) as error:
            self._connection.close()  # the next request dials again
            kind = CounterError if isinstance(error, HOPELESS) else SilentError
            raise kind(f"{self._source}: {self.url} does not answer: {error!r}") from error

    def _get(self, path: str, *, again: bool) -> Seen:
        before = time.monotonic_ns()
        try:
            self._connection.request("GET", self.prefix + path, headers=self._fields)
            answer = self._connection.getresponse()
        except (ConnectionError, ssl.SSLEOFError) as error:
            self._connection.close()
            if again:
                raise _StaleError from error
            raise
        body = answer.read(LONGEST)
        after = time.monotonic_ns()
        if answer.status != 200:
            self._connection.close()
            kind = SilentError if answer.status in STARTING else CounterError
            raise kind(f"{self._source}: {self.url}{path} answered {answer.status}, expected 200: {body[:120]!r}")
        if answer.length or len(body) == LONGEST:  # half a number is one, too
            self._connection.close()
            raise CounterError(f"{self._source}: {self.url}{path} was cut off after {len(body)} bytes, expected all of at most {LONGEST}")
        return Seen(before, after, body)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class _StaleError(Exception):
    """A connection that had been kept open is not there any more."""


class _OverUnix(HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(TIMEOUT_S)
            self.sock.connect(self._path)
        except OSError:
            self.close()
            raise
