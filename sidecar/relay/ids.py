"""Ids that nobody can guess: random hex from the kernel, drawn by the page, since a call for each would cost a request 1 % of its time."""

import os
import time
from collections.abc import Callable

PAGE_BYTES = 2400
TAIL_BYTES = 10  # of a UUID, behind its time
VERSION_7 = bytes(0x70 | byte & 0x0F for byte in range(256))  # what a byte becomes where a UUID says its version (RFC 9562, 4.2)
VARIANT = bytes(0x80 | byte & 0x0F for byte in range(256))  # and where it says its variant (4.1)


class _Digits:
    """Random hex digits, each given out once."""

    def __init__(self, draw: Callable[[int], bytes] = os.urandom) -> None:
        self._draw = draw
        self._page, self._at = "", 0

    def take(self, count: int) -> str:
        at, end = self._at, self._at + count
        if end > len(self._page):
            self._page, at, end = self._draw(PAGE_BYTES).hex(), 0, count
        self._at = end
        return self._page[at:end]


def _tails(count: int) -> bytes:
    """Random bytes in which every ten are what may follow the time in a UUID."""
    page = bytearray(os.urandom(count))
    page[::TAIL_BYTES] = page[::TAIL_BYTES].translate(VERSION_7)
    page[2::TAIL_BYTES] = page[2::TAIL_BYTES].translate(VARIANT)
    return bytes(page)


_DIGITS, _TAILS = _Digits(), _Digits(_tails)


def record_id() -> str:
    """A UUID of version 7 (RFC 9562) in hex: ids rise with time, so that the ledger's indexes grow at one end only."""
    return (time.time_ns() // 1_000_000).to_bytes(6).hex() + _TAILS.take(2 * TAIL_BYTES)


def trace_id() -> str:
    """32 hex digits (W3C Trace Context)."""
    return _DIGITS.take(32)


def span_id() -> str:
    """16 hex digits."""
    return _DIGITS.take(16)
