"""What one client process is told to do: whom to ask, what, and when."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from perjoule.bench.load.schedule import Row
from perjoule.bench.workloads.workload import Turn

LENGTH_BYTES = 8  # before a pickled job, and before each request that was made


class Prompter(Protocol):
    """Makes the body of a request from a turn. It is pickled into the client processes: its class must be importable."""

    def body(self, turn: Turn, index: int) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class AsGiven:
    """The bodies that the workload has, for one model. Raises ValueError for a turn without a body."""

    model: str | None = None

    def body(self, turn: Turn, index: int) -> Mapping[str, Any]:
        if turn.body is None:
            raise ValueError(f"request {index}: got a turn without a body, expected one")
        return turn.body if self.model is None else {**turn.body, "model": self.model}


class Task(NamedTuple):
    """A row of the schedule, and its turn."""

    row: Row
    turn: Turn


@dataclass(frozen=True, slots=True)
class Job:
    """The part of one client process. `places` are when the places of a closed loop open, in ns of the schedule; () is an open loop.
    `headers` are sent with every request; keys travel here, over a pipe, and never on a command line."""

    url: str
    run_id: str
    client: int
    tasks: list[Task]
    prompter: Prompter
    places: tuple[int, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 600.0
    ca_file: str | None = None  # of who signed an https server's certificate; None: those the machine trusts
    begin_ns: int = 0  # the schedule's time at which it begins
    until_ns: int | None = None  # and at which no place of a closed loop is taken any more
