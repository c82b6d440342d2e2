"""Every energy counter keeps the promises of the port."""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from perjoule.adapters.nvml import NvmlCounter
from perjoule.adapters.rapl import RaplCounter
from perjoule.adapters.remote.exporter import DcgmCounter, TritonCounter
from perjoule.adapters.remote.trtllm import TrtllmCounter
from perjoule.adapters.remote.zeusd import ZeusdCounter
from perjoule.adapters.replay import ReplayCounter
from perjoule.adapters.simulated import EngineCounter, SimulatedCounter
from perjoule.adapters.zeus import ZeusCounter
from perjoule.sidecar.ports import EnergyCounter
from tests.fakes.counter import check_contract
from tests.fakes.exporters import dcgm, ticking, triton, trtllm, zeusd
from tests.fakes.nvml import FakeBoard, FakeNvml
from tests.fakes.pages import pages
from tests.fakes.powercap import Powercap
from tests.fakes.zeus import FakeCpu, FakeGpu, FakeSoc, FakeZeus


class Engine(BaseHTTPRequestHandler):
    """The counter of an embedded engine that draws 200 W."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        t_ns = time.monotonic_ns()
        shown = {"t_ns": t_ns, "energy_uj": t_ns // 5_000, "power_mw": 200_000, "uuid": "e", "name": "engine"}
        body = json.dumps(shown)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def engine() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "board.json.gz"
    rows = [[k * 20_000_000, k * 20_000_000 + 3_000_000, 5_000 + 2 * k] for k in range(6)]
    path.write_bytes(gzip.compress(json.dumps({"gpu": "H200", "counter": rows, "power": [[0, 100_000]]}).encode()))
    return path


MAKERS: dict[str, Callable[[str, Path], EnergyCounter]] = {
    "replay": lambda engine, recording: ReplayCounter(recording),
    "simulated": lambda engine, recording: SimulatedCounter(lambda: 1),
    "engine": lambda engine, recording: EngineCounter(engine),
    "nvml": lambda engine, recording: NvmlCounter("all", FakeNvml(FakeBoard("GPU-a"), FakeBoard("GPU-b"))),
    "zeus-gpu": lambda engine, recording: ZeusCounter("all", FakeZeus(gpus=[FakeGpu(0), FakeGpu(1, instant=False)])),
    "zeus-soc": lambda engine, recording: ZeusCounter("all", FakeZeus(soc=FakeSoc(gpu_mj=12, cpu_total_mj=3))),
    "zeus-cpu": lambda engine, recording: ZeusCounter("all", FakeZeus(cpus=[FakeCpu(0), FakeCpu(1)])),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_counter_keeps_the_contract(kind: str, engine: str, recording: Path) -> None:
    """Whole microjoules that never fall, one reading a device in their order, times around the call, watts or None."""
    counter = MAKERS[kind](engine, recording)
    try:
        rows = check_contract(counter)
    finally:
        counter.close()
    assert kind == "zeus-soc" or rows[-1][0].energy_uj > rows[0][0].energy_uj


ELSEWHERE: dict[str, tuple[dict[str, Callable[[], bytes]], Callable[[str], EnergyCounter]]] = {
    "dcgm": ({"/metrics": dcgm(ticking())}, DcgmCounter),
    "triton": ({"/metrics": triton(ticking())}, TritonCounter),
    "zeusd": (zeusd(ticking()), ZeusdCounter),
    "zeusd-cpu": (zeusd(ticking(), boards=0, packages=1), ZeusdCounter),
    "trtllm": (trtllm(ticking()), TrtllmCounter),
}


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_every_counter_elsewhere_keeps_the_contract(kind: str) -> None:
    """The same; but an exporter's page is not asked at every read, and what was read before then stands as it was."""
    shown, make = ELSEWHERE[kind]
    with pages(shown) as there:
        counter = make(there.url)
        rows = check_contract(counter, held=kind in ("dcgm", "triton"))
        counter.close()
    assert rows[-1][0].energy_uj > rows[0][0].energy_uj


def test_rapl_keeps_the_contract(tmp_path: Path) -> None:
    """On a powercap tree as Linux makes it."""
    host = Powercap(tmp_path)
    counter = RaplCounter(folder=tmp_path)
    host.put("package-0", 9_000)
    rows = check_contract(counter, reads=3)
    assert [reading.energy_uj for reading in rows[0]] == [9_000, 1_000]
    counter.close()
