"""The interpreter's own settings in a process that relays: its collector of garbage, how soon threads make way, memory that goes back."""

import asyncio
import ctypes
import gc
import sys

# Objects between two looks of the garbage collector, then looks at the young between two at the middle-aged and at the old ones.
# Nothing that a request leaves behind is a cycle (tests/sidecar/process/test_interpreter.py); with Python's 700 the looking took 8 %
# of the time.
LOOK_AFTER = (20_000, 20, 20)
# A thread that computes (spans, ledger rows) gives way to the event loop after so long. Added to one request at a time, 99th percentile on
# an H200's host: 1.8 ms with 0.5 ms, 1.1 with 0.1, 0.96 with 0.05, at the same CPU time; Python's 5 ms were the percentile itself.
MAKE_WAY_S = 0.00005
GIVE_BACK_EVERY_S = 1.0
MUCH_BYTES = 4 << 20  # that lie free in the C library's heap: what bodies of megabytes leave behind


class _Heap(ctypes.Structure):
    """glibc's `struct mallinfo2` (mallinfo(3))."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
                                                     "fordblks", "keepcost")]


def settle() -> None:
    """Everything has started: what is alive now stays, and need not be looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*LOOK_AFTER)
    sys.setswitchinterval(MAKE_WAY_S)


async def give_back() -> None:
    """For ever: free memory goes back to the system, a moment after it was needed. To have the C library do that at once would cost a
    body of a megabyte three times its CPU time, in page faults."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2") or not hasattr(libc, "malloc_trim"):  # another library than glibc 2.33
        return
    libc.mallinfo2.restype = _Heap
    while True:
        await asyncio.sleep(GIVE_BACK_EVERY_S)
        if libc.mallinfo2().fordblks > MUCH_BYTES:
            libc.malloc_trim(ctypes.c_size_t(0))
