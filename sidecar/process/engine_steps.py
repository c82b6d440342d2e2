"""Where an engine's plugin tells of its steps: datagrams on a unix socket, each checked and given on; what is nonsense is counted.

The format is written down in src/perjoule/vllm/telling.py, which sends it.
"""

import asyncio
import errno
import logging
import socket
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import orjson

from perjoule.sidecar.ports import Step
from perjoule.sidecar.units import NS_PER_S

VERSION = 1
AT_ONCE = 32  # datagrams, before others have their turn on the event loop
LONGEST = 1 << 18  # bytes of one
SOURCES = 64  # processes whose numbers are remembered
MOST_STEPS, MOST_FIRSTS, MOST_TOKENS = 64, 4096, 1 << 20
LATEST_NS, EARLIEST_NS = 60 * NS_PER_S, NS_PER_S  # a step that ended longer ago, or later, is by another clock than ours
GAP = 1000  # steps that nobody told of; more, and the numbers have begun anew

logger = logging.getLogger("perjoule")


class Reader:
    """Datagrams as steps; remembers how far each process has counted."""

    def __init__(self) -> None:
        self._numbers: OrderedDict[tuple[str, int], int] = OrderedDict()

    def read(self, datagram: bytes, now_ns: int) -> Iterator[Step]:
        """The steps of one datagram. Raises ValueError: what was got and what was expected."""
        told = orjson.loads(datagram)
        if not isinstance(told, dict) or told.get("v") != VERSION:
            raise ValueError(f"got {datagram[:40]!r}, expected an object of version {VERSION}")
        source, steps = told.get("from"), told.get("steps")
        if not isinstance(source, str) or len(source) > 64 or not isinstance(steps, list) or len(steps) > MOST_STEPS:
            raise ValueError(f"got {datagram[:40]!r}, expected a name and at most {MOST_STEPS} steps")
        for step in steps:
            yield self._step(source, step, now_ns)

    def _step(self, source: str, told: Any, now_ns: int) -> Step:
        if not isinstance(told, dict):
            raise ValueError(f"got a step of type {type(told).__name__}, expected an object")
        end_ns = _whole(told, "end_ns", now_ns + EARLIEST_NS)
        if end_ns < now_ns - LATEST_NS:
            raise ValueError(f"got a step that ended {(now_ns - end_ns) / NS_PER_S:.0f} s ago, expected one by this host's monotonic clock")
        rank, prompts = _whole(told, "rank", 1 << 20), _maybe(told, "prompts", MOST_TOKENS * MOST_FIRSTS)
        firsts = told.get("firsts")
        if not isinstance(firsts, list) or len(firsts) > MOST_FIRSTS or any(type(each) is not int or each > end_ns for each in firsts):
            raise ValueError(f"got firsts {str(firsts)[:40]}, expected at most {MOST_FIRSTS} times before the step's end")
        took_ns, prefill = _maybe(told, "took_ns", 3600 * NS_PER_S), _maybe(told, "prefill", MOST_TOKENS)
        cached = _maybe(told, "cached", prompts or 0)
        steps = self._since(source, rank, _whole(told, "n", 1 << 62))
        return Step(min(end_ns, now_ns), steps, rank, took_ns, prefill, prompts, cached or 0, tuple(firsts))

    def _since(self, source: str, rank: int, number: int) -> int:
        """How many steps since the one told before."""
        before = self._numbers.pop((source, rank), None)
        self._numbers[source, rank] = number
        if len(self._numbers) > SOURCES:
            self._numbers.popitem(last=False)
        if before is None:
            return min(number, 1)
        return number - before if 0 <= number - before <= GAP else 1


class Desk(Protocol):
    """Where steps go."""

    def step(self, step: Step) -> None: ...
    def failed(self) -> None: ...


class EngineSteps:
    """The socket, if a path is given; each step goes to the desk, on the event loop."""

    def __init__(self, path: str, mode: int, desk: Desk) -> None:
        self._path, self._mode, self._desk = path, mode, desk
        self.told = self.ignored = 0  # steps, datagrams
        self._reader = Reader()
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Listen from now on. Raises OSError, which names the path."""
        if not self._path:
            return
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            _remove_if_nobody_listens(self._path)  # who was killed left it there
            listening.bind(self._path)
            Path(self._path).chmod(self._mode)
        except OSError as error:
            listening.close()
            raise OSError(error.errno, f"--steps: cannot listen on unix:{self._path}: {error.strerror or error}") from error
        self._socket = listening
        asyncio.get_running_loop().add_reader(listening.fileno(), self._readable)

    def close(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            _remove_if_nobody_listens(self._path)

    def _readable(self) -> None:
        assert self._socket is not None
        for _ in range(AT_ONCE):
            try:
                datagram = self._socket.recv(LONGEST)
            except OSError:  # there is no more
                return
            try:
                for step in self._reader.read(datagram, time.monotonic_ns()):
                    self.told += step.steps
                    self._desk.step(step)
            except (ValueError, RecursionError) as error:
                if not self.ignored:
                    logger.warning("--steps: ignored, and so are others like it: %s", error)
                self.ignored += 1
            except Exception:  # law 5: traffic does not need the meter
                self._desk.failed()
                logger.exception("a step could not be metered")


def _whole(told: dict[str, Any], name: str, most: int) -> int:
    value = told.get(name)
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"got {name} {str(value)[:40]}, expected 0 to {most}")
    return value


def _remove_if_nobody_listens(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        if Path(path).is_socket() and probe.connect_ex(path) == errno.ECONNREFUSED:
            Path(path).unlink(missing_ok=True)


def _maybe(told: dict[str, Any], name: str, most: int) -> int | None:
    return None if told.get(name) is None else _whole(told, name, most)
