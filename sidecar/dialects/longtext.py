"""Takes the long texts out of JSON while it passes: an image in base64 is megabytes, and nothing else of such an answer is long.

Only looks for quotes and line ends, most of the time in C, so it keeps up with the relay on bodies of any size.
"""

import re

LONG = 4096  # bytes without a quote or a line end: no key, number or sentence that matters here
_LONG_RUN = re.compile(rb'[^"\n]{%d,}' % LONG)


class LongTexts:
    """Feed pieces, get them without runs of `LONG` bytes that hold neither a quote nor a line end. JSON stays JSON, events stay events."""

    __slots__ = ("_held", "_odd", "_run")

    def __init__(self) -> None:
        self._held = b""  # the run at the end of what was fed, while it may still be a short one
        self._run = 0  # how long it is
        self._odd = False  # whether a run that is left out ends in an odd number of backslashes: they would escape the quote behind it

    def feed(self, data: bytes) -> bytes:
        """What of the next piece, and of what was held back, is short enough."""
        first = _first_stop(data)
        if first < 0:
            self._extend(data)
            return b""
        last = max(data.rfind(b'"'), data.rfind(b"\n")) + 1
        self._extend(data[:first])
        out = self._ended() + _LONG_RUN.sub(_left_out, data[first:last])
        self._extend(data[last:])
        return out

    def finish(self) -> bytes:
        """There is no more: what was held back."""
        return self._ended()

    def _extend(self, data: bytes) -> None:
        if not data:
            return
        self._run += len(data)
        if self._run < LONG:
            self._held += data
            return
        backslashes = len(data) - len(data.rstrip(b"\\"))
        if backslashes == len(data):  # they go on from what came before
            before = len(self._held) - len(self._held.rstrip(b"\\")) + self._odd
            backslashes += before
        self._held, self._odd = b"", backslashes % 2 == 1

    def _ended(self) -> bytes:
        """A quote or a line end comes next."""
        run = self._held if self._run < LONG else b"\\" * self._odd
        self._held, self._run, self._odd = b"", 0, False
        return run


def _first_stop(data: bytes) -> int:
    quote = data.find(b'"')
    line = data.find(b"\n", 0, quote if quote >= 0 else len(data))
    return line if line >= 0 else quote


def _left_out(run: re.Match[bytes]) -> bytes:
    return b"\\" * ((len(run[0]) - len(run[0].rstrip(b"\\"))) % 2)
