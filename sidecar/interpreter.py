"""The interpreter's own settings in a process that relays: what its collector looks at, and how soon threads make way for the relay."""

import gc
import sys

# Objects between two looks of the garbage collector, then looks at the young between two at the middle-aged and at the old ones.
# Nearly nothing that a request leaves behind is a cycle; with Python's 700 the looking took 8 % of the relay's time.
LOOK_AFTER = (20_000, 20, 20)
MAKE_WAY_S = 0.0005  # a thread that computes (spans, ledger rows) gives way to the event loop after so long; Python's 5 ms were its p99


def settle() -> None:
    """Everything has started: what is alive now stays, and need not be looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*LOOK_AFTER)
    sys.setswitchinterval(MAKE_WAY_S)
