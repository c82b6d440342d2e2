"""What must hold of any text that an operator writes or a client sends in a header: it is read, or refused with the error it has."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from perjoule.sidecar.access.keys import KeysError, read_keys
from perjoule.sidecar.http.addresses import Unix, read_address, read_origin
from perjoule.sidecar.http.paths import origin_form, path_of
from perjoule.sidecar.metering.pools import Stage, read_pools
from perjoule.sidecar.relay.trace_context import TraceContext, parse_traceparent
from perjoule.sidecar.settings.config import ConfigError
from perjoule.sidecar.settings.sources import load

T = TypeVar("T")


def traceparent_is_read(header: bytes) -> None:
    """A context is what W3C Trace Context section 3.2 allows, and what is told on is that again."""
    context = parse_traceparent(header)
    parts = header.split(b"-")
    digits = [re.fullmatch(b"[0-9a-f]+", part) is not None for part in parts[:4]]
    is_valid = (len(parts) >= 4 and all(digits) and [len(part) for part in parts[:4]] == [2, 32, 16, 2] and parts[0] != b"ff"
                and int(parts[1], 16) > 0 and int(parts[2], 16) > 0 and (parts[0] != b"00" or len(parts) == 4))
    assert (context is not None) == is_valid
    assert context == parse_traceparent(header.decode("latin-1"))
    if context is not None:
        assert (context.trace_id.encode(), str(context.parent_id).encode(), context.flags) == (parts[1], parts[2], int(parts[3], 16))
        assert parse_traceparent(context.child("00f067aa0ba902b7")) == TraceContext(context.trace_id, "00f067aa0ba902b7", context.flags & 3)


def _read(read: Callable[[str], T], text: str) -> T | None:
    """What `read` reads in `text`; None where it refuses, as it may, with a ValueError that says what was expected."""
    try:
        return read(text)
    except ValueError as error:
        refusal = str(error)
    assert "expected" in refusal
    return None


def pools_are_read(text: str) -> None:
    """Every board is in one pool, every pool has one; of several, each has a name of its own kind."""
    found = _read(read_pools, text)
    pools = found.pools if found is not None else ()
    boards = [board for pool in pools for board in pool.boards]
    assert len(set(boards)) == len(boards)
    if len(pools) > 1:
        assert all(pool.boards for pool in pools)
        names = [pool.rank if pool.stage is None else pool.stage for pool in pools]
        assert len(set(names)) == len(pools)
        assert names == list(Stage) or all(isinstance(name, int) for name in names)


def address_is_read(text: str) -> None:
    """An address, written as the sidecar writes it, is read as the same."""
    address = _read(read_address, text)
    assert address is None or read_address(str(address)) == address


def origin_is_read(text: str) -> None:
    """An engine's URL leads to an address that can be written down and read again."""
    origin = _read(read_origin, text)
    if origin is not None:
        scheme = "https://" if origin.tls else "" if isinstance(origin.address, Unix) else "http://"
        assert read_origin(f"{scheme}{origin.address}{origin.prefix}") == origin


def path_is_plain(target: str) -> None:
    """A path that decisions are made by has nothing left in it that two servers could read in two ways."""
    path = path_of(origin_form(target))
    assert path is None or path == "" or re.fullmatch(r"(/[A-Za-z0-9._~:@+,=-]+)+", path)
    assert path is None or not {"", ".", ".."} & set(path.split("/")[1:])


def settings_are_read(toml: bytes, environ: Mapping[str, str], file: Path) -> None:
    """Whatever stands in the file and the environment: a Config, or a ConfigError."""
    file.write_bytes(toml)
    with suppress(ConfigError):
        load({"config": str(file)}, environ)


def keys_are_read(text: str) -> None:
    """Whatever stands in the keys file: keys, or a KeysError."""
    with suppress(KeysError):
        assert read_keys(text, "FILE").names
