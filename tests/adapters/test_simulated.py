"""The power model adds up as stated, and the engine's counter survives whatever the engine answers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from perjoule.adapters.simulated import EngineCounter, SimulatedCounter, modelled_mw
from perjoule.sidecar.ports import CounterError, UnavailableError
from perjoule.sidecar.record import Status

MS = 1_000_000


def test_the_model_is_the_stated_one() -> None:
    """127 W idle, 305 W with one, 7.6 W each further one, never above 690 W."""
    assert [modelled_mw(n) for n in (-1, 0, 1, 2, 32, 1_000)] == [127_000, 127_000, 305_000, 312_600, 540_600, 690_000]


def test_energy_is_the_integral_of_power_shown_every_100_ms() -> None:
    """Between ticks nothing new shows; at a tick all that was drawn until that read."""
    t_ns, in_flight = 0, 0
    counter = SimulatedCounter(lambda: in_flight, lambda: t_ns)
    shown = []
    for t_ms, in_flight in ((50, 0), (99, 0), (100, 0), (150, 1), (199, 1), (250, 1)):  # noqa: B007
        t_ns = t_ms * MS
        shown.append(counter.read()[0].energy_uj)
    assert shown == [0, 0, 12_700_000, 12_700_000, 12_700_000, 12_700_000 + 305 * 150_000]
    assert counter.read()[0].power_mw == 305_000
    assert counter.status is Status.SIMULATED


class Engine(BaseHTTPRequestHandler):
    """Answers what the test put in `answers`, the last one for ever; counts connections."""

    protocol_version = "HTTP/1.1"
    answers: list[tuple[int, bytes]]
    connections = 0

    def setup(self) -> None:
        type(self).connections += 1
        super().setup()

    def do_GET(self) -> None:
        status, body = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if status == 0 or self.path != "/base/simulated/counter":
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silent."""


GOOD = (200, json.dumps({"t_ns": 1, "energy_uj": 42, "power_mw": 200_000, "uuid": "sim-0", "name": "toy"}).encode())


@pytest.fixture
def engine() -> Iterator[tuple[str, type[Engine]]]:
    handler = type("ThisEngine", (Engine,), {"answers": [GOOD]})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/base/", handler
        server.shutdown()


def test_the_engines_counter_over_one_connection(engine: tuple[str, type[Engine]]) -> None:
    """Device, microjoules and milliwatts as the engine says them, all over one connection kept open."""
    url, handler = engine
    counter = EngineCounter(url)
    assert (counter.devices[0].uuid, counter.devices[0].name) == ("sim-0", "toy")
    for _ in range(5):
        (reading,) = counter.read()
        assert (reading.energy_uj, reading.power_mw) == (42, 200_000)
    counter.close()
    assert handler.connections == 1


BAD = [(500, b"no"), (200, b"no JSON"), (200, b"[]"), (200, b'{"energy_uj": null}'), (0, b"")]


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_answer_is_an_error_and_the_next_read_works(
        engine: tuple[str, type[Engine]], bad: tuple[int, bytes]) -> None:
    """An error status, no JSON, another shape, a lost connection: CounterError, and then on as before."""
    url, handler = engine
    counter = EngineCounter(url)
    handler.answers[:] = [bad, GOOD]
    with pytest.raises(CounterError, match="simulated: http"):
        counter.read()
    assert counter.read()[0].energy_uj == 42
    counter.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://127.0.0.1", "nonsense", "http://127.0.0.1:99999"])
def test_no_engine_is_unavailable(url: str) -> None:
    """Nobody there, or no URL of an engine: unavailable, with the URL."""
    with pytest.raises(UnavailableError, match=url):
        EngineCounter(url)
