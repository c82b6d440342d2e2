"""A counter that a meter tells: its times in ours, its silences, its faults and its return."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from perjoule.adapters.remote import Access, meter
from perjoule.adapters.remote.meter import MeterCounter
from perjoule.sidecar.ports import CounterError, Reading, UnavailableError
from perjoule.sidecar.process import readings as wire
from perjoule.sidecar.process.publisher import boot_id

PATIENCE_S = 20.0
HELLO = {"perjoule_meter": 1, "boot_id": "another", "name": "nvml", "status": "measured", "boundary": "gpu-board", "period_ns": 100_000_000,
         "devices": [{"uuid": "GPU-a", "name": "H200", "power_limit_w": 700}, {"uuid": "GPU-b", "name": "H200", "power_limit_w": None}]}


class ScriptedMeter:
    """A meter whose clock is `ahead_ns` of ours, and that says what the test has it say; several sidecars may be connected."""

    def __init__(self, hello: dict[str, object], ahead_ns: int = 0) -> None:
        self.hello, self.ahead_ns, self.uj, self.tells, self.asked = hello, ahead_ns, 1_000, True, list[dict[str, object]]()
        self.more = b""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.where = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.there: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                one = self._listening.accept()[0]
                self.there.append(one)
                threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one: socket.socket) -> None:
        with suppress(OSError, ValueError), one.makefile("rb") as lines:
            self.asked.append(json.loads(lines.readline()))
            one.sendall(wire.line(self.hello))
            threading.Thread(target=self._tell, args=(one,), daemon=True).start()
            for line in lines:
                one.sendall(wire.line({"pong": json.loads(line)["ping"], "t": time.monotonic_ns() + self.ahead_ns}))

    def _tell(self, one: socket.socket) -> None:
        with suppress(OSError):
            while one.fileno() >= 0:
                if self.tells:
                    t_ns = time.monotonic_ns() + self.ahead_ns
                    rows = [Reading(t_ns, t_ns + 100_000, self.uj + n, 300_000) for n in range(2)]
                    one.sendall(self.more or wire.rows(rows))
                time.sleep(0.01)

    def hang_up(self) -> None:
        for one in self.there:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self.there.clear()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.hang_up()


@contextmanager
def scripted(ahead_ns: int = 0, **hello: object) -> Iterator[ScriptedMeter]:
    made = ScriptedMeter(HELLO | hello, ahead_ns)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def opened(where: str, gpus: str = "all", access: Access | None = None) -> Iterator[MeterCounter]:
    counter = MeterCounter(where, gpus, access or Access())
    try:
        yield counter
    finally:
        counter.close()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def fault(counter: MeterCounter) -> str:
    """Why it cannot be read, empty if it can."""
    try:
        counter.read()
    except CounterError as error:
        return str(error)
    return ""


def test_it_is_the_counter_that_the_meter_reads() -> None:
    """Name, status, boundary, period and devices are those of the real one; boards can be chosen, in any order."""
    with scripted() as there, opened(there.where, "GPU-b,GPU-a", Access("secret")) as counter:
        assert (counter.name, counter.status, counter.boundary, counter.period_ns) == ("nvml", "measured", "gpu-board", 100_000_000)
        assert [(device.uuid, device.power_limit_w) for device in counter.devices] == [("GPU-b", None), ("GPU-a", 700)]
        assert [reading.energy_uj for reading in counter.read()] == [1_001, 1_000]
        assert counter.read()[0].power_mw == 300_000
        assert there.asked[0] == {"perjoule_meter": 1, "token": "secret"}


@pytest.mark.parametrize("ahead_s", [-3600.0, 0.5, 86400.0])
def test_the_times_of_another_host_come_in_ours(ahead_s: float) -> None:
    """To within what is said, however far its clock is from ours, and never later than when we heard of them."""
    with scripted(round(ahead_s * 1e9)) as there, opened(there.where) as counter:
        opened_ns = time.monotonic_ns()
        assert counter.clock_uncertainty_ns is not None
        assert 0 < counter.clock_uncertainty_ns < 1_000_000_000
        until(lambda: counter.read()[0].t_before_ns > opened_ns)
        reading = counter.read()[0]
        assert opened_ns < reading.t_before_ns <= reading.t_after_ns <= time.monotonic_ns()


def test_one_kernels_clock_needs_no_offset() -> None:
    """The same boot id, and no answer against it."""
    with scripted(boot_id=boot_id()) as there, opened(there.where) as counter:
        assert counter.clock_uncertainty_ns == 0
    with scripted(10**12, boot_id=boot_id()) as there, opened(there.where) as counter:  # another time namespace
        assert counter.clock_uncertainty_ns != 0
        assert counter.read()[0].t_after_ns <= time.monotonic_ns()


def test_a_meter_that_falls_silent_is_an_error_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last value is not shown for ever."""
    monkeypatch.setattr(meter, "SILENT_S", 0.2)
    with scripted() as there, opened(there.where) as counter:
        there.tells = False
        until(lambda: "has not looked at its counter for" in fault(counter))
        there.tells, there.uj = True, 5_000
        until(lambda: not fault(counter) and counter.read()[0].energy_uj == 5_000)


def test_a_lost_connection_is_an_error_and_is_made_again() -> None:
    """At once, and the counter goes on where it is by then."""
    with scripted() as there, opened(there.where) as counter:
        there.uj = 2_000
        there.hello = HELLO | {"devices": [{"uuid": "GPU-z", "name": "H200"}, {"uuid": "GPU-b", "name": "H200"}]}
        there.hang_up()
        until(lambda: "reads something else now" in fault(counter))
        assert "GPU-z" in fault(counter)
        there.hello = HELLO | {"devices": [{"uuid": "GPU-a", "name": "H200", "power_limit_w": 500}, {"uuid": "GPU-b", "name": "H200"}]}
        until(lambda: not fault(counter) and counter.read()[0].energy_uj == 2_000)  # another power limit is no other board


def test_a_counter_that_the_meter_cannot_read_is_an_error_here() -> None:
    """With its reason, until it can."""
    with scripted() as there, opened(there.where) as counter:
        there.more = wire.line({"failing": "GPU is lost"})
        until(lambda: "its counter cannot be read: GPU is lost" in fault(counter))
        there.more = b""
        until(lambda: not fault(counter))


@pytest.mark.parametrize("said", [b"no JSON\n", b"[]\n", b'{"r":[[1,2]]}\n', b'{"r":[[1,2,"x",null],[1,2,3,null]]}\n', b'{"r":7}\n',
                                  b'{"r":[[1,2,3.5,null],[1,2,3,4]]}\n', b'{"pong":"x","t":1}\n', b'{"r":[[1,2,-3,null],[1,2,3,4]]}\n',
                                  b'{"r":[[1,2,%d,null],[1,2,3,4]]}\n' % 2**63, b"x" * (wire.LONGEST + 1)])
def test_what_is_not_of_the_protocol_ends_the_connection(said: bytes) -> None:
    """No number is made of it; the next connection works."""
    with scripted() as there, opened(there.where) as counter:
        there.more = said
        until(lambda: fault(counter) != "")
        there.more = b""
        until(lambda: not fault(counter))


@pytest.mark.parametrize(("hello", "reason"), [
    ({"refused": "the token is not the one"}, "it refused: the token is not the one"),
    ({"perjoule_meter": 2}, "it speaks version 2, expected 1"),
    ({"devices": []}, "expected devices"), ({"status": "great"}, "great"), ({"period_ns": 0}, "a period"),
    ({"boot_id": "x", "devices": 7}, "hello")])
def test_a_meter_that_cannot_be_used_is_unavailable(hello: dict[str, object], reason: str) -> None:
    """With the place and the reason."""
    with scripted(**hello) as there, pytest.raises(UnavailableError, match=f"meter: {there.where}: .*{reason}"):
        MeterCounter(there.where)


@pytest.mark.parametrize(("where", "gpus", "reason"), [
    ("127.0.0.1:1", "all", "refused"), ("unix:/nowhere.sock", "all", "No such file"), ("nonsense", "all", "expected HOST:PORT"),
    ("", "GPU-x", "no device 'GPU-x'; there is GPU-a, GPU-b")])
def test_what_is_not_there_is_unavailable(where: str, gpus: str, reason: str) -> None:
    """A named source that does not work stops the start."""
    with scripted() as there, pytest.raises(UnavailableError, match=reason):
        MeterCounter(where or there.where, gpus)
