"""Where to listen and where to connect, as people write it: `HOST:PORT`, `[IPV6]:PORT`, `unix:PATH`, or an engine's URL.

A unix socket is spelled as gRPC and Docker spell it: `unix:PATH`, or `unix:///PATH` for an absolute one.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

LISTEN_FORMS = "HOST:PORT, [IPV6]:PORT, :PORT or unix:PATH"
ORIGIN_FORMS = "http://HOST:PORT, https://HOST:PORT or unix:PATH"
EVERY_IPV4, EVERY_IPV6 = "0.0.0.0", "::"  # noqa: S104
THIS_HOST = {EVERY_IPV4, EVERY_IPV6, "localhost", "127.0.0.1", "::1"}  # names by which a host reaches itself
PATH_LIMIT = 107  # bytes: the kernel's sun_path holds 108, with a zero at the end (unix(7))
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Tcp:
    """A host's name or literal, without brackets, and a port; where it is listened on, port 0 takes a free one."""

    host: str
    port: int

    @property
    def is_literal(self) -> bool:
        """Whether the host is an address already, and nothing has to be looked up."""
        return ":" in self.host or self.host.replace(".", "").isdecimal()

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unix:
    """A unix socket's path, relative to the working directory unless it begins with a slash."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = Tcp | Unix


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an engine is; `prefix` is put before the path of every request."""

    address: Address
    tls: bool = False
    prefix: str = ""


def read_address(text: str) -> Address:
    """Where to listen. Without a host it is every IPv4 interface; `[::]` is every interface. Raises ValueError."""
    try:
        if text[:5].lower() == "unix:":  # no host of that name, or it could not be written down again
            return _read_unix(text)
        parts = urlsplit("//" + text)
        if parts.port is None or parts.netloc != text or "@" in text:
            raise ValueError("no port" if parts.port is None else "more than a host and a port")
        return Tcp(_checked_host(parts.hostname or EVERY_IPV4), parts.port)
    except ValueError as error:
        raise ValueError(f"got {text!r}, expected {LISTEN_FORMS}: {error}") from None


def read_origin(url: str) -> Origin:
    """Where an engine is. Raises ValueError, which repeats no password."""
    try:
        if url.startswith("unix:"):
            return Origin(_read_unix(url))
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise ValueError("no such scheme" if parts.hostname else "no host")
        if "@" in parts.netloc or parts.query or parts.fragment or not _is_path(parts.path):
            raise ValueError("more than a host, a port and a path")
        port = PORTS[parts.scheme] if parts.port is None else parts.port
        if not port:
            raise ValueError("nobody can listen on port 0")
        return Origin(Tcp(_checked_host(parts.hostname), port), parts.scheme == "https", parts.path.rstrip("/"))
    except ValueError as error:
        got = "a URL with a user or a query" if set(url) & set("@?#") else repr(url)  # these may hold a secret
        raise ValueError(f"got {got}, expected {ORIGIN_FORMS}" + (f": {error}" if "@" not in url else "")) from None


def leads_to(there: Address, here: Address) -> bool:
    """Whether a connection to `there` arrives at whoever listens `here`, as far as can be told without looking names up."""
    if isinstance(there, Tcp) and isinstance(here, Tcp):
        return there.port == here.port and (there.host == here.host or {there.host, here.host} <= THIS_HOST)
    return there == here


def _read_unix(text: str) -> Unix:
    path = text[len("unix:"):]
    if path.startswith("//"):
        if not path.startswith("///"):
            raise ValueError("a path behind unix:// begins with a slash")
        path = "/" + path.lstrip("/")
    if not 0 < len(path.encode("utf-8", "surrogateescape")) <= PATH_LIMIT or "\0" in path:
        raise ValueError(f"a unix socket's path has 1 to {PATH_LIMIT} bytes")
    return Unix(path)


def _checked_host(host: str) -> str:
    """The host, if it can be looked up. Raises ValueError."""
    host.encode("idna")  # refuses empty labels, and those that are too long
    if not host.isprintable() or " " in host:
        raise ValueError("no such host")
    return host


def _is_path(path: str) -> bool:
    return path.isascii() and path.isprintable() and " " not in path
