"""Ids that nobody can guess: random hex from the kernel, drawn by the page, since a call for each would cost a request 1 % of its time."""

import os
import time

PAGE_BYTES = 2048


class _Digits:
    """Random hex digits, each given out once."""

    def __init__(self) -> None:
        self._page, self._at = "", 0

    def take(self, count: int) -> str:
        at, end = self._at, self._at + count
        if end > len(self._page):
            self._page, at, end = os.urandom(PAGE_BYTES).hex(), 0, count
        self._at = end
        return self._page[at:end]


_DIGITS = _Digits()


def record_id() -> str:
    """A UUID of version 7 (RFC 9562) in hex: ids rise with time, so that the ledger's indexes grow at one end only."""
    digits = _DIGITS.take(18)
    return f"{(time.time_ns() // 1_000_000).to_bytes(6).hex()}7{digits[:3]}8{digits[3:]}"


def trace_id() -> str:
    """32 hex digits (W3C Trace Context)."""
    return _DIGITS.take(32)


def span_id() -> str:
    """16 hex digits."""
    return _DIGITS.take(16)
