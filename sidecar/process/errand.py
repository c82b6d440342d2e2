"""Something done again and again in a thread of its own, for which nothing waits: it may fail, and is then said once and tried again."""

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("perjoule")


class Errand:
    """`do` every `every_s` seconds, from `start` on; `failing` is its last error while it fails, else None."""

    def __init__(self, name: str, do: Callable[[], None], every_s: float) -> None:
        self.name, self.failing = name, None
        self._do, self._every_s = do, every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)  # a call that hangs holds up no end

    failing: str | None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """It is not begun again; what is being done is left to itself."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._do()
            except Exception as error:  # whatever it is, the sidecar does not need it
                if self.failing is None:
                    logger.warning("%s: %s; tried again every %g s", self.name, error, self._every_s)
                self.failing = f"{type(error).__name__}: {error}"
            else:
                if self.failing is not None:
                    logger.info("%s: works again", self.name)
                self.failing = None
            self._stopped.wait(self._every_s)
