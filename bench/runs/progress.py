"""How a run goes, for who waits for it: a bar on a terminal, a line now and then elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from perjoule.bench.load.sample import Observation, Sample
from perjoule.bench.load.schedule import Schedule
from perjoule.sidecar.units import NS_PER_S, UJ_PER_J

SAY_EVERY_S = 15.0  # where there is no terminal


class Live:
    """A View (runs/one.py) on a console: phase, requests, rate against plan, power, joules per token so far, time left."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console, self._quiet = console, quiet
        self._bar = Progress(TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
                             TextColumn("{task.fields[how]}"), console=console, transient=True, disable=quiet or not console.is_terminal)
        self._task = self._bar.add_task("", total=None, how="")
        self._name = self._phase = self._how = ""
        self._planned: Schedule | None = None
        self._ended = self._sent = self._tokens = 0
        self._first_uj: int | None = None
        self._said_s = 0.0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._bar.stop()

    def point(self, name: str) -> None:
        """Another run begins, of a sweep or of repeats."""
        self._name = name
        self._said_s = 0.0

    # View

    def phase(self, text: str) -> None:
        self._phase = text
        self._show()

    def planned(self, plan: Schedule, done: int) -> None:
        self._planned, self._ended, self._tokens, self._first_uj, self._how = plan, done, 0, None, ""
        self._show()

    def ended(self, sample: Sample) -> None:
        self._ended += sample.outcome != "unfinished"
        self._tokens += sample.output_tokens or 0
        self._show()

    def looked(self, now_ns: int, observation: Observation) -> None:
        said = [f"{observation.in_flight or 0} in flight"]
        if (left := self._left_s(now_ns)) is not None:
            said.append(left)
        powers = [board.get("power_w") for board in observation.boards]
        if powers and all(isinstance(power, int | float) for power in powers):
            said.append(f"{sum(power for power in powers if isinstance(power, int | float)):.0f} W")
        if observation.balance is not None:
            uj = observation.balance.get("requests_uj")
            if isinstance(uj, int):
                self._first_uj = uj if self._first_uj is None else self._first_uj
                if self._tokens:
                    said.append(f"{(uj - self._first_uj) / UJ_PER_J / self._tokens:#.3g} J/token so far")
        self._how = ", ".join(said)
        self._show()

    # inside

    def _left_s(self, now_ns: int) -> str | None:
        """Rate against plan, and what is left of it."""
        if self._planned is None or now_ns <= 0:
            return None
        rows = self._planned.rows
        times = [row.intended_ns for row in rows if row.intended_ns is not None]
        if not times:
            rate = self._ended / now_ns * NS_PER_S
            return f"{rate:.2f}/s" + (f", {(len(rows) - self._ended) / rate:.0f} s left" if rate else "")
        due = sum(t <= now_ns for t in times)
        return f"{self._ended} of {due} due, {max(0, times[-1] - now_ns) / NS_PER_S:.0f} s left"

    def _show(self) -> None:
        description = ": ".join(filter(None, (self._name, self._phase)))
        total = len(self._planned.rows) if self._planned is not None else None
        self._bar.update(self._task, description=description, completed=self._ended, total=total, how=self._how)
        if not self._quiet and not self._console.is_terminal and time.monotonic() > self._said_s + SAY_EVERY_S:
            self._said_s = time.monotonic()
            self._console.print(f"{description} {self._ended}/{total or '?'} {self._how}".rstrip(), highlight=False)
