"""The keys file: who may come in by which key, and what each may use in an interval; only hashes of keys are in it.

    [[key]]
    name = "tenant-a"
    sha256 = "…"          # 64 hex digits, or a list of them while a key is being changed for another
    interval_s = 3600     # with any of the limits below
    requests = 1000
    tokens = 2_000_000    # input and output
    joules = 36_000

A key is 256 random bits. Nobody can guess one, so its hash need not be slow: a slow hash is for passwords, which people choose.
"""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perjoule.sidecar.units import UJ_PER_J

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:/-]{0,63}")  # fit for a log line, a metric's label and a URL's query
DIGEST = re.compile(r"[0-9a-fA-F]{64}")
TABLE_HEAD = re.compile(r"\s*\[\[\s*key\s*\]\]")
LONGEST_INTERVAL_S = 366 * 86_400
MOST = 2**62  # of requests, tokens or microjoules: what a signed integer of 64 bits holds
LIMITS = ("requests", "tokens", "joules")
FIELDS = ("name", "sha256", "interval_s", *LIMITS)


class KeysError(ValueError):
    """A keys file that cannot be used; the text names the file, the line, what was got and what was expected."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What one key may use in each interval; None is no limit."""

    interval_s: int
    requests: int | None = None
    tokens: int | None = None
    energy_uj: int | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """Names by the SHA-256 of their keys, and budgets by name for those that have one."""

    names: Mapping[bytes, str]
    budgets: Mapping[str, Budget]

    def name_of(self, key: bytes) -> str | None:
        """Whose key it is, None for nobody's. How long the look-up takes tells at most something about the hash of what was
        given, from which nothing can be learned about a key that is in the file."""
        return self.names.get(hashlib.sha256(key).digest())


def read_keys(text: str, source: str) -> Keys:
    """What the keys file `source` says. Raises KeysError for the first thing in it that cannot be used: none of it is."""
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # tomllib lets some of them through as they are
        raise KeysError(f"{source}: not TOML: {error}") from error
    entries = table.pop("key", [])
    if table:
        raise KeysError(f"{source}: got {next(iter(table))!r}, expected [[key]] tables and nothing else")
    if not isinstance(entries, list) or not entries:
        raise KeysError(f"{source}: got no keys, expected at least one [[key]] table")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if TABLE_HEAD.match(line)]
    names: dict[bytes, str] = {}
    budgets: dict[str, Budget] = {}
    for place, entry in enumerate(entries):
        try:
            name, digests, budget = _entry(entry)
            if name in names.values():
                raise ValueError(f"name: got {name!r} a second time, expected names that differ")
            if taken := names.keys() & digests:
                raise ValueError(f"sha256: got {min(taken).hex()[:8]}…, which is {names[min(taken)]!r}'s, expected one name for each key")
        except ValueError as error:
            where = f"line {lines[place]}" if len(lines) == len(entries) else f"key {place + 1}"
            raise KeysError(f"{source}, {where}: {error}") from error
        names.update(dict.fromkeys(digests, name))
        if budget is not None:
            budgets[name] = budget
    return Keys(names, budgets)


def entry_for(name: str, key: str) -> str:
    """The lines of the keys file that let this key in. Raises ValueError for what cannot be a name."""
    return f'[[key]]\nname = "{_name(name)}"\nsha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n'


def _entry(entry: Any) -> tuple[str, set[bytes], Budget | None]:
    """One [[key]] table. Raises ValueError, which begins with the field."""
    if not isinstance(entry, dict):
        raise ValueError(f"key: got {entry!r}, expected a [[key]] table")
    for field in entry:
        if field not in FIELDS:
            raise ValueError(f"{field}: got an unknown field, expected some of {', '.join(FIELDS)}")
    digests = entry.get("sha256")
    return _name(entry.get("name")), {_digest(d) for d in (digests if isinstance(digests, list) and digests else [digests])}, _budget(entry)


def _name(name: Any) -> str:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"name: got {name!r}, expected 1 to 64 letters, digits or any of . _ @ : / -, a letter or digit first")
    return name


def _digest(text: Any) -> bytes:
    if not isinstance(text, str) or not DIGEST.fullmatch(text):  # it is not repeated: it may be a key
        got = f"{len(text)} characters" if isinstance(text, str) else "none" if text is None else f"a {type(text).__name__}"
        raise ValueError(f"sha256: got {got}, expected the 64 hex digits of a key's SHA-256 (`perjoule key NAME` makes both)")
    return bytes.fromhex(text)


def _budget(entry: dict[str, Any]) -> Budget | None:
    limits = {field: entry[field] for field in LIMITS if field in entry}
    if not limits:
        if "interval_s" in entry:
            raise ValueError(f"interval_s: got it alone, expected it with {', '.join(LIMITS)}")
        return None
    interval_s = entry.get("interval_s")
    if type(interval_s) is not int or not 0 < interval_s <= LONGEST_INTERVAL_S:
        raise ValueError(f"interval_s: got {interval_s!r}, expected whole seconds, 1 to {LONGEST_INTERVAL_S}, for {', '.join(limits)}")
    for field, limit in limits.items():
        kinds = (int, float) if field == "joules" else (int,)
        most = MOST // UJ_PER_J if field == "joules" else MOST
        if type(limit) not in kinds or not 0 < limit <= most:  # NaN is not, either
            raise ValueError(f"{field}: got {limit!r}, expected a {'number' if field == 'joules' else 'whole number'} above 0")
    energy_uj = max(1, round(limits["joules"] * UJ_PER_J)) if "joules" in limits else None
    return Budget(interval_s, limits.get("requests"), limits.get("tokens"), energy_uj)
