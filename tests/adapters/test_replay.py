"""A recording plays in real time, over and over, and the counter never falls."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.adapters.replay import ReplayCounter
from perjoule.sidecar.ports import UnavailableError
from perjoule.sidecar.record import Status

MS = 1_000_000
ROWS = [[1_000 * MS, 1_003 * MS, 500], [1_100 * MS, 1_103 * MS, 513], [1_200 * MS, 1_209 * MS, 560]]


class Clock:
    """A clock that stands still until it is set."""

    t_ns = 77 * MS

    def __call__(self) -> int:
        return self.t_ns


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Path]:
    def write(content: Any) -> Path:
        path = tmp_path_factory.mktemp("replay") / "board.json.gz"
        path.write_bytes(gzip.compress(json.dumps(content).encode()))
        return path
    return write


def test_plays_from_the_first_read_in_real_time(record: Callable[[Any], Path]) -> None:
    """Time zero is the first read; each row shows from its own time on; the joules are simulated."""
    clock = Clock()
    power = [[1_050 * MS, 300_000], [1_150 * MS, 400_000]]
    counter = ReplayCounter(record({"gpu": "H200", "counter": ROWS, "power": power}), clock)
    seen = []
    for after_ms in (0, 99, 100, 150, 199):
        clock.t_ns = (77 + after_ms) * MS
        (reading,) = counter.read()
        seen.append((reading.energy_uj, reading.power_mw))
    assert seen == [(500_000, 300_000), (500_000, 300_000), (513_000, 300_000), (513_000, 400_000), (513_000, 400_000)]
    assert (counter.status, counter.period_ns) == (Status.SIMULATED, 100 * MS)
    assert counter.devices[0].name == "H200 (replayed)"


def test_goes_round_with_the_counter_carried_on(record: Callable[[Any], Path]) -> None:
    """After the last row it begins again, 60 mJ higher each time."""
    clock = Clock()
    counter = ReplayCounter(record({"counter": ROWS}), clock)
    shown = []
    for after_ms in (0, 200, 300, 400, 2_000_100):
        clock.t_ns = (77 + after_ms) * MS
        shown.append(counter.read()[0].energy_uj)
    assert shown == [500_000, 560_000, 573_000, 620_000, 500_000 + 10_000 * 60_000 + 13_000]
    assert counter.read()[0].power_mw is None


@given(waits_ns=st.lists(st.integers(0, 10**9), max_size=50))
def test_never_falls(record: Callable[[Any], Path], waits_ns: list[int]) -> None:
    """Whenever it is read, it shows at least what it showed before."""
    clock = Clock()
    counter = ReplayCounter(record({"counter": ROWS}), clock)
    last_uj = 0
    for wait_ns in waits_ns:
        clock.t_ns += wait_ns
        shown_uj = counter.read()[0].energy_uj
        assert shown_uj >= last_uj
        last_uj = shown_uj


@pytest.mark.parametrize(("content", "said"), [
    ([], "expected a JSON object"),
    ({}, "KeyError"),
    ({"counter": [[1, 2]]}, "expected rows"),
    ({"counter": [["a", "b", "c"], ["d", "e", "f"]]}, "expected rows"),
    ({"counter": ROWS, "power": [1]}, "expected rows"),
    ({"counter": ROWS[:1]}, "two or more rows"),
    ({"counter": ROWS[::-1]}, "rising"),
    ({"counter": [ROWS[0], ROWS[0]]}, "rising"),
])
def test_what_is_no_recording_is_refused(record: Callable[[Any], Path], content: Any, said: str) -> None:
    """A file of another shape: what was expected."""
    with pytest.raises(UnavailableError, match=said):
        ReplayCounter(record(content))


@pytest.mark.parametrize("content", [None, b"plain", gzip.compress(b"{}", mtime=0)[:-9], gzip.compress(b"no JSON", mtime=0)])
def test_an_unreadable_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """Missing, not gzip, cut short, not JSON: the path and the reason."""
    path = tmp_path / "x.json.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnavailableError, match=r"cannot read .*x\.json\.gz"):
        ReplayCounter(path)
