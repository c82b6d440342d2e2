"""A thread that reads the energy counter again and again, and hands over what it saw.

Reading blocks for milliseconds and may hang with the driver, so it never happens on the event loop. The thread outlives
whatever an adapter raises: it says so once, and tries again ever more slowly, up to once a second.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

from perjoule.sidecar.ports import EnergyCounter, Reading
from perjoule.sidecar.units import NS_PER_S

LONGEST_WAIT_NS = NS_PER_S
CALLS_KEPT = 1000
OVERDUE = 1.5  # of a period: a change that has not come by then is not waited for closely


class Rhythm:
    """When to look at a counter next. One that keeps a beat of several polls is looked at twice as closely around its next change, and not
    between: a look takes an H200's host 2 ms of a core. On a board made to change as that one does, it takes 3 looks to a change instead of
    5 and dates it to 2.3 ms instead of 4.5 (one standard deviation, `bench/beat.py`). Several boards keep beats of their own: they are
    looked at evenly, and so is a counter whose period is long, since that may not be known well."""

    def __init__(self, period_ns: int, poll_ns: int, devices: int) -> None:
        self._period_ns, self._poll_ns = period_ns, poll_ns
        self._has_beat = devices == 1 and 4 * poll_ns <= period_ns <= LONGEST_WAIT_NS
        self._value_uj: int | None = None
        self._changed_ns: int | None = None

    def due_ns(self, began_ns: int, value_uj: int) -> int | None:
        """When the next look is due, after one that began then and saw this value; None: at the next poll."""
        before, self._value_uj = self._value_uj, value_uj
        if not self._has_beat or before is None:
            return None
        if value_uj != before:
            self._changed_ns = began_ns
            return began_ns + self._period_ns - self._poll_ns
        if self._changed_ns is None or began_ns - self._changed_ns > OVERDUE * self._period_ns:
            return None
        return began_ns + self._poll_ns // 2


class Sampler:
    """Reads a counter every `poll_ns`, or in its `Rhythm`, in a daemon thread, from `start()` to `stop()`.

    `deliver` gets the readings of every poll that worked, changed or not, since a look that saw no change is what dates the
    next one. `deliver_error` gets the reason, once, when reading begins to fail (the next `deliver` says that it works
    again). Both run in the thread.
    `reads` and `errors` count polls that worked and failed. The counter is closed by whoever opened it, after `stop()`.
    """

    def __init__(self, counter: EnergyCounter, deliver: Callable[[tuple[Reading, ...]], None], poll_ns: int,
                 deliver_error: Callable[[str], None] = lambda text: None) -> None:
        self.reads = 0
        self.errors = 0
        self.failing = False
        self._counter = counter
        self._deliver = deliver
        self._deliver_error = deliver_error
        self._poll_ns = poll_ns
        self._wait_ns = poll_ns
        self._rhythm = Rhythm(counter.period_ns, poll_ns, len(counter.devices))
        self._calls_ns: deque[int] = deque(maxlen=CALLS_KEPT)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"perjoule-{counter.name}", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self, timeout_s: float = 2.0) -> bool:
        """End the thread; False if it is still inside a call that does not return."""
        self._stop.set()
        if self._thread.ident is not None:  # it was started
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def call_ns(self, quantile: float) -> int | None:
        """How long a read took (0.5: median, 0.99: 99th percentile) over the last 1000; None before the first."""
        calls = sorted(self._calls_ns)
        return calls[int(quantile * (len(calls) - 1))] if calls else None

    def _run(self) -> None:
        due_ns = time.monotonic_ns()
        while not self._stop.is_set():
            next_ns = self._poll()
            now_ns = time.monotonic_ns()
            if next_ns is None or next_ns <= now_ns:
                # An absolute schedule: polls stay on their beat; those missed in a long call are skipped, not made up for.
                next_ns = due_ns + self._wait_ns * max(1, -(-(now_ns - due_ns) // self._wait_ns))
            due_ns = next_ns
            self._stop.wait((due_ns - now_ns) / NS_PER_S)

    def _poll(self) -> int | None:
        """When to look again, None: at the next poll."""
        began_ns = time.monotonic_ns()
        try:
            readings = self._counter.read()
            next_ns = self._rhythm.due_ns(began_ns, readings[0].energy_uj)
        except Exception as error:  # CounterError is what a port raises; an adapter's own fault must not end metering
            self._failed(str(error) or repr(error))
            return None
        now_ns = time.monotonic_ns()
        self._calls_ns.append(now_ns - began_ns)
        self.reads += 1
        self.failing, self._wait_ns = False, self._poll_ns
        self._deliver(readings)
        return next_ns

    def _failed(self, text: str) -> None:
        self.errors += 1
        self._wait_ns = min(2 * self._wait_ns, max(self._poll_ns, LONGEST_WAIT_NS))
        if not self.failing:
            self.failing = True
            self._deliver_error(text)
