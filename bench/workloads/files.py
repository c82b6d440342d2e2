"""Files of traces, line by line: numbered for messages, hashed for the result, and a row's turn kept or counted as dropped."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from perjoule.bench.workloads.workload import Turn, Workload, WorkloadError

Window = tuple[float, float]  # seconds of the trace, half-open
ALWAYS: Window = (-math.inf, math.inf)
OUTSIDE = "outside the window"


class Lines:
    """The lines of a text file that are not blank, each with its number. `sha256` is of what has been read, so of the file at its end."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self._hash = hashlib.sha256()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Raises WorkloadError: no such file, not a file, not UTF-8."""
        number = 0
        try:
            with self.path.open("rb") as file:
                for number, raw in enumerate(file, 1):
                    self._hash.update(raw)
                    if line := raw.decode("utf-8-sig" if number == 1 else "utf-8").strip():
                        yield number, line
        except UnicodeDecodeError:
            raise self.error(number, "got bytes that are not UTF-8, expected text") from None
        except OSError as error:
            raise WorkloadError(f"{self.path}: got {error.strerror}, expected a file that can be read") from None

    def error(self, number: int, what: str) -> WorkloadError:
        """What is wrong with a line; its number goes before it."""
        return WorkloadError(f"{self.path}, line {number}: {what}")

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def short(line: str, most: int = 80) -> str:
    """A line for a message, cut where it is long."""
    return repr(line if len(line) <= most else line[:most] + "…")


class Trace:
    """The turns of a trace as its rows come, with what is left out of them, counted. Rows outside of `window` are counted and not kept,
    so that a minute of a week takes the memory of a minute."""

    def __init__(self, kind: str, lines: Lines, window: Window) -> None:
        self._kind, self._lines, (self._begin_s, self._end_s) = kind, lines, window
        self._turns: list[Turn] = []
        self._read = 0
        self._dropped: Counter[str] = Counter()
        self._out_of_order = 0
        self._last_s = 0.0

    def add(self, number: int, turn: Turn, unanswered: str = "no output tokens") -> bool:
        """One row's turn, whose time is from the first row on; True if it is kept."""
        at_s, input_tokens, output_tokens = turn.at_s, turn.input_tokens, turn.output_tokens
        assert at_s is not None
        assert input_tokens is not None
        assert output_tokens is not None
        if not 0 <= at_s < math.inf or input_tokens < 0 or output_tokens < 0:
            raise self._lines.error(number, f"got {at_s:g} s after the first row, {input_tokens} and {output_tokens} tokens, "
                                            "expected no negative numbers, and no row before the first")
        self._read += 1
        self._out_of_order += at_s < self._last_s
        self._last_s = max(at_s, self._last_s)
        if not output_tokens:
            self._dropped[unanswered] += 1
        elif not input_tokens:
            self._dropped["no input tokens"] += 1
        elif not self._begin_s <= at_s < self._end_s:
            self._dropped[OUTSIDE] += 1
        else:
            self._turns.append(turn)
            return True
        return False

    def workload(self, *notes: str) -> Workload:
        """All of them, by time. Raises WorkloadError where there was no row."""
        if not self._read:
            raise WorkloadError(f"{self._lines.path}: got no rows, expected at least one")
        if self._out_of_order:
            self._turns.sort(key=lambda turn: turn.at_s or 0.0)
            notes = (*notes, f"{self._out_of_order} rows were before the one above them in the file, and have been put in time.")
        path = self._lines.path
        return Workload(f"{self._kind}/{path.stem}", f"{self._kind}:{path.name}", tuple(self._turns), self._read, dict(self._dropped),
                        notes, self._lines.sha256)
