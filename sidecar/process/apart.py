"""A place for records in a process of its own, so that what it computes does not keep the meter from metering.

The meter's end is a sink like any other, which an outbox gives its batches; each goes over a socket pair, and the answer is waited for: a
record counts as stored once the other process has stored it. If that ends, the outbox tries again, as with a database that is away, and
another process is started. With the socket pair it loses the meter: then it stores what it has been given, and ends.
"""

import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from socket import socket, socketpair
from struct import Struct
from typing import Any

import orjson

from perjoule.sidecar.ports import RecordSink, RefusedError, TryLaterError
from perjoule.sidecar.process.wire import records_bytes, records_of
from perjoule.sidecar.record import EnergyRecord

LAST_STORED_S = 5.0  # to end in, after the last batch
TAKEN, FAILED, LATER, REFUSED = "taken", "failed", "later", "refused"
_LENGTH = Struct("<I")


class Apart:
    """The meter's end: a RecordSink called `name`. `command`, with the number of an open file behind it, starts the other process, and
    `settings` is what that is told first. Raises OSError if it cannot be started."""

    def __init__(self, name: str, command: Sequence[str], settings: dict[str, Any]) -> None:
        self.name, self._command, self._settings = name, command, orjson.dumps(settings)
        self._process, self._wire = self._started()
        self._is_open = False  # it has said that its own sink is

    def put(self, records: Sequence[EnergyRecord]) -> None:
        """Have these records stored. Raises what the sink there raises: TryLaterError, RefusedError, and OSError for all else."""
        said = records_bytes(records)
        if self._process.poll() is not None:
            self._wire.close()
            self._process, self._wire = self._started()
            self._is_open = False
        try:
            if not self._is_open:
                _heed(_received(self._wire))
                self._is_open = True
            _send(self._wire, said)
            answer = _received(self._wire)
        except EOFError:
            raise OSError(f"the process for it ended ({self._ended()}) before it had stored what it was given") from None
        _heed(answer)

    def close(self) -> None:
        """Everything has been stored: the other process ends."""
        self._wire.close()
        self._ended()

    def _started(self) -> tuple["subprocess.Popen[bytes]", socket]:
        ours, theirs = socketpair()
        with theirs:
            process = subprocess.Popen([*self._command, str(theirs.fileno())], pass_fds=[theirs.fileno()],  # noqa: S603
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        with suppress(EOFError):  # who asks for its answer hears of it
            _send(ours, self._settings)
        return process, ours

    def _ended(self) -> str:
        """How the process ended; one that does not is killed."""
        try:
            code = self._process.wait(LAST_STORED_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


def store(wire: socket, open_sink: Callable[[dict[str, Any]], RecordSink]) -> None:
    """The other end: the settings make a sink, which gets what comes, batch by batch, until the meter's end is closed."""
    with suppress(EOFError):
        try:
            sink = open_sink(orjson.loads(_received(wire)))
        except Exception as error:
            _send(wire, _said(error))
            return
        _send(wire, _said(None))
        try:
            while True:
                records = records_of(_received(wire))
                try:
                    sink.put(records)
                except Exception as error:
                    _send(wire, _said(error))
                else:
                    _send(wire, _said(None))
        finally:
            sink.close()


def _said(error: Exception | None) -> bytes:
    """What became of a batch, in bytes: a word, a text, and what belongs to it."""
    match error:
        case None:
            said: tuple[str, str, float] = TAKEN, "", 0
        case TryLaterError():
            said = LATER, str(error), error.after_s
        case RefusedError():
            said = REFUSED, str(error), error.count
        case _:
            said = FAILED, str(error) or repr(error), 0
    return orjson.dumps(said)


def _heed(answer: bytes) -> None:
    word, text, amount = orjson.loads(answer)
    if word == LATER:
        raise TryLaterError(text, amount)
    if word == REFUSED:
        raise RefusedError(text, amount)
    if word == FAILED:
        raise OSError(text)


def _send(wire: socket, data: bytes) -> None:
    """Raises EOFError if nobody is there any more."""
    try:
        wire.sendall(_LENGTH.pack(len(data)) + data)
    except OSError as error:
        raise EOFError from error


def _received(wire: socket) -> bytes:
    """Raises EOFError if nobody is there any more."""
    return _exactly(wire, _LENGTH.unpack(_exactly(wire, _LENGTH.size))[0])


def _exactly(wire: socket, length: int) -> bytes:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        try:
            count = wire.recv_into(view)
        except OSError as error:
            raise EOFError from error
        if not count:
            raise EOFError
        view = view[count:]
    return bytes(data)
