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


class Sampler:
    """Reads a counter every `poll_ns` in a daemon thread, from `start()` to `stop()`.

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
            self._poll()
            now_ns = time.monotonic_ns()
            # An absolute schedule: polls stay on their beat; those missed in a long call are skipped, not made up for.
            due_ns += self._wait_ns * max(1, -(-(now_ns - due_ns) // self._wait_ns))
            self._stop.wait((due_ns - now_ns) / NS_PER_S)

    def _poll(self) -> None:
        began_ns = time.monotonic_ns()
        try:
            readings = self._counter.read()
        except Exception as error:  # CounterError is what a port raises; an adapter's own fault must not end metering
            self._failed(str(error) or repr(error))
            return
        now_ns = time.monotonic_ns()
        self._calls_ns.append(now_ns - began_ns)
        self.reads += 1
        self.failing, self._wait_ns = False, self._poll_ns
        self._deliver(readings)

    def _failed(self, text: str) -> None:
        self.errors += 1
        self._wait_ns = min(2 * self._wait_ns, max(self._poll_ns, LONGEST_WAIT_NS))
        if not self.failing:
            self.failing = True
            self._deliver_error(text)
