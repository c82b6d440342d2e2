"""A real engine, what it sends kept, and the real command in front of it."""

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.engines.diffusers_images import running_diffusers
from tests.engines.process import Engine
from tests.engines.serving import Sidecar, start
from tests.engines.vllm_cpu import API_KEY, Vllm, end_group, running_vllm, tail
from tests.engines.wire import Tap
from tests.fakes.collector import Collector, http_collector


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of each process's log beside the test that failed in front of it."""
    report = yield
    if report.failed:
        for name, process in item.funcargs.items():
            if isinstance(process, Vllm | Engine | Sidecar):
                report.sections.append((f"log of {name}", tail(process.log)))
    return report


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """What gets the engine's own spans."""
    with http_collector() as there:
        yield there


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Vllm]:
    """One vLLM for all tests."""
    python = os.environ.get("PERJOULE_VLLM_PYTHON")
    if not python:
        pytest.skip("PERJOULE_VLLM_PYTHON does not name the Python of an environment with vLLM; tests/run makes one")
    with running_vllm(str(Path(python).absolute()), tmp_path_factory.mktemp("vllm"), collector.url) as engine:
        yield engine


@pytest.fixture(scope="session")
def diffusers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One server over a real diffusers pipeline for all tests."""
    with running_diffusers(tmp_path_factory.mktemp("diffusers")) as engine:
        yield engine


@pytest.fixture(scope="session")
def tap(vllm: Vllm) -> Iterator[Tap]:
    """The same vLLM, with what it sends kept."""
    with Tap(vllm.url) as wire:
        yield wire


@pytest.fixture(scope="session")
def start_sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Sidecar]]:
    """Starts `perjoule serve` in front of an upstream, with flags; each one must end with 0 when it is told to."""
    running: list[Sidecar] = []

    def start_one(upstream: str, *flags: str) -> Sidecar:
        running.append(start(upstream, tmp_path_factory.mktemp("sidecar"), *flags))
        return running[-1]

    yield start_one
    ends = [(end_group(sidecar.process), tail(sidecar.log)) for sidecar in running]
    assert all(code == 0 for code, _ in ends), ends


@pytest.fixture(scope="session")
def sidecar(start_sidecar: Callable[..., Sidecar], tap: Tap) -> Sidecar:
    """A sidecar as an operator starts it, its engine tapped."""
    return start_sidecar(tap.url, "--energy=simulated")


@pytest.fixture(scope="session")
def authorization() -> dict[str, str]:
    """What the engine wants to see in every request."""
    return {"authorization": f"Bearer {API_KEY}"}
