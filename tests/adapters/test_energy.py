"""`--energy` opens what it names, auto takes the first sensor that works, and nothing is ever made up."""

import gzip
import json
from pathlib import Path

import pytest

from perjoule.adapters.energy import open_counter
from perjoule.adapters.remote import Access
from perjoule.sidecar.ports import AbsentError, UnavailableError


def none_in_flight() -> int:
    return 0


def test_auto_never_simulates() -> None:
    """Auto opens a sensor, or nothing and says why for each source it tried."""
    opened = open_counter("auto", "all", none_in_flight)
    if opened.counter is None:
        assert [source for source, _ in opened.tried] == ["nvml", "zeus"]
        assert all(reason.startswith(source) for source, reason in opened.tried)
    else:
        assert opened.counter.name in ("nvml", "zeus")
        opened.counter.close()


def test_auto_with_an_unknown_board_opens_nothing() -> None:
    """A board that is not there is not replaced by another one."""
    opened = open_counter("auto", "GPU-that-nobody-has", none_in_flight)
    assert opened.counter is None
    assert len(opened.tried) == 2


def test_simulated_asks_for_the_requests_in_flight() -> None:
    """The model's power follows the callable that it was given."""
    counter = open_counter("simulated", "all", lambda: 1).counter
    assert counter is not None
    assert counter.read()[0].power_mw == 305_000


def test_replay_opens_its_file(tmp_path: Path) -> None:
    """replay:FILE plays that file."""
    path = tmp_path / "r.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"counter": [[0, 1, 5], [9, 10, 6]]}).encode()))
    counter = open_counter(f"replay:{path}", "all", none_in_flight).counter
    assert counter is not None
    assert counter.read()[0].energy_uj == 5_000


@pytest.mark.parametrize("spec", ["replay:/nowhere.json.gz", "simulated:http://127.0.0.1:1"])
def test_a_named_source_that_fails_is_unavailable(spec: str) -> None:
    """What was asked for by name is not replaced by something else."""
    with pytest.raises(UnavailableError, match=spec.partition(":")[2]):
        open_counter(spec, "all", none_in_flight)


@pytest.mark.parametrize("spec", ["dcgm:http://127.0.0.1:1", "triton:http://127.0.0.1:1", "zeusd:unix:/nowhere.sock", "trtllm:http://127.0.0.1:1",
                                  "meter:127.0.0.1:1", "meter:unix:/nowhere.sock"])
def test_a_source_elsewhere_that_does_not_answer_is_unavailable(spec: str) -> None:
    """It says which, and where, and that it may come."""
    source, _, where = spec.partition(":")
    with pytest.raises(AbsentError, match=f"{source}: .*{where.removeprefix('unix:')}"):
        open_counter(spec, "all", none_in_flight)


def test_authorities_that_cannot_be_read_are_refused() -> None:
    """By the flag that named them."""
    for spec in ("dcgm:https://127.0.0.1:1", "meter:tls://127.0.0.1:1"):
        with pytest.raises(ValueError, match="--energy-tls-ca: cannot read /nowhere"):
            open_counter(spec, "all", none_in_flight, Access(tls_ca="/nowhere"))


@pytest.mark.parametrize("spec", ["", "nvml:0", "replay", "replay:", "simulated:", "NVML", "rapl:0", "dcgm", "meter:"])
def test_an_unknown_source_says_what_was_expected(spec: str) -> None:
    """What was got, and every form there is."""
    with pytest.raises(ValueError, match="expected auto, nvml, zeus, rapl, meter:HOST:PORT, dcgm:URL") as caught:
        open_counter(spec, "all", none_in_flight)
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize("gpus", ["0=GPU-a;1=GPU-b", "prefill=simulated;decode=GPU-b"])
def test_pools_need_their_boards(gpus: str) -> None:
    """A simulated source has one board, whatever its name."""
    with pytest.raises(ValueError, match="expected boards that the energy source reads: simulated"):
        open_counter("simulated", gpus, none_in_flight)
    with pytest.raises(ValueError, match="expected all, UUID,UUID or"):
        open_counter("simulated", gpus + ";", none_in_flight)
