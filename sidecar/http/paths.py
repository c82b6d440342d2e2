"""Which path a request target names, where every server would read it alike; the bytes that go to the engine stay as they came.

Servers differ in what they do with `//`, `/../`, `;x`, `%2e`, `\\` and `%25`. Whoever decides by a path must not be talked into another
one than the engine reads, so a target that could be read in two ways has no path here at all.
"""

import re
from urllib.parse import unquote

from perjoule.sidecar.http.remembered import remember

MOST_REMEMBERED = 1024
REMEMBERED_CHARS = 256  # of a target: clients choose them, and a thousand long ones would fill the memory
# Segments of the characters that no server gives a meaning of its own, none of them of dots alone.
PLAIN = re.compile(r"(?:/(?!\.+(?:/|$))[A-Za-z0-9._~:@+,=-]+)+/?|/")
AUTHORITY_END = re.compile(r"[/?#]|$")


def origin_form(target: str) -> str:
    """The target as an origin server expects it: an absolute form (RFC 9112 3.2.2) loses its scheme and authority."""
    if target.startswith("/") or "://" not in target:
        return target
    rest = target.split("://", 1)[1]
    end = AUTHORITY_END.search(rest)
    assert end is not None
    found = rest[end.start():]
    return found if found.startswith("/") else "/" + found


def path_of(target: str) -> str | None:
    """The path of a target in origin form, percent-decoded, without query and without a trailing slash (`/` is the empty path).
    None where servers may differ in what it names."""
    if target in _REMEMBERED:
        return _REMEMBERED[target]
    path = _path_of(target)
    remember(_REMEMBERED, target, path, most=MOST_REMEMBERED, longest=REMEMBERED_CHARS)
    return path


_REMEMBERED: dict[str, str | None] = {}


def _path_of(target: str) -> str | None:
    path = target.partition("?")[0]
    if "%" in path:
        path = unquote(path, errors="surrogateescape")  # what is encoded twice keeps a `%`, which is not plain
    return path.removesuffix("/") if PLAIN.fullmatch(path) else None
