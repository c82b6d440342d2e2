"""Calls at an instant of the monotonic clock, to some ten microseconds, without spinning: uvloop's own timers count whole milliseconds."""

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable

from perjoule.sidecar.units import NS_PER_S

_CLOCK_MONOTONIC, _TFD_NONBLOCK, _TFD_CLOEXEC, _TFD_TIMER_ABSTIME = 1, 0o4000, 0o2000000, 1  # linux/timerfd.h; os has them from 3.13 on


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class Alarm:
    """Calls `ring` once at the instant it was last set to; an instant that has passed is as good as now.

    On Linux the kernel wakes the loop (timerfd); elsewhere the loop's own timers do, to a millisecond."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._fd = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._rang)

    def set(self, at_ns: int) -> None:
        """Ring at this instant instead of the one before."""
        if self._fd < 0:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(max(0.0, (at_ns - time.monotonic_ns()) / NS_PER_S), self._ring)
            return
        at = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(max(1, at_ns), NS_PER_S)))
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(at), None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        """It does not ring any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _rang(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # it was set anew in the meantime
            return
        self._ring()
