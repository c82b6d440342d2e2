"""The parameters of a question about stored records, read and checked."""

import calendar
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from perjoule.sidecar.units import NS_PER_S

LIMIT = 100
LIMIT_MOST = 10_000
KNOWN = ("by", "interval", "since", "until", "limit", "model", "tenant")


class Query:
    """The parameters of /energy, read. Raises ValueError, which begins with the parameter's name."""

    def __init__(self, given: Mapping[str, str]) -> None:
        for name in given:
            if name not in KNOWN:
                raise ValueError(f"{name}: got an unknown parameter, expected some of {', '.join(KNOWN)}")
        self.by = [name for name in given.get("by", "").split(",") if name]
        self.interval_s = _whole(given, "interval", 366 * 86_400, "seconds")
        self.limit = _whole(given, "limit", LIMIT_MOST, "records") or LIMIT
        self.where: dict[str, Any] = {"model": given.get("model"), "tenant": given.get("tenant"),
                                      "since_unix_ns": _instant(given, "since"),
                                      "until_unix_ns": _instant(given, "until")}


def _whole(given: Mapping[str, str], name: str, most: int, what: str) -> int | None:
    text = given.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > len(str(most)) or not 0 < int(text) <= most:
        raise ValueError(f"{name}: got {text!r}, expected a whole number of {what} from 1 to {most}")
    return int(text)


def _instant(given: Mapping[str, str], name: str) -> int | None:
    """A Unix time in ns that 64 bits hold (1678 to 2261), from Unix seconds or ISO 8601 (UTC where it names no zone)."""
    text = given.get(name)
    if text is None:
        return None
    try:
        instant = (datetime.fromtimestamp(int(text), UTC) if text.isascii() and text.isdigit()
                   else datetime.fromisoformat(text))
        whole_s = calendar.timegm(instant.replace(tzinfo=instant.tzinfo or UTC).utctimetuple())
        unix_ns = whole_s * NS_PER_S + instant.microsecond * 1_000
        if unix_ns.bit_length() > 63:
            raise OverflowError
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{name}: got {text!r}, expected Unix seconds or a time as 2026-07-01T12:00:00Z,"
                         " from 1678 to 2261") from None
    return unix_ns
