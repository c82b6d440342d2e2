"""Counters on a Prometheus page: units, boards, how often a new value comes, and everything that such a page can do wrong."""

import logging
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from perjoule.adapters.remote import Access, exporter
from perjoule.adapters.remote.exporter import DcgmCounter, TritonCounter
from perjoule.sidecar.metering.timeline import Timeline
from perjoule.sidecar.ports import CounterError, UnavailableError
from tests.fakes.exporters import UUIDS, dcgm, ticking, triton
from tests.fakes.pages import pages


def moving(joules: list[float]) -> Callable[[], float]:
    """Joules that rise at every look while a counter is opened, so that it opens at once."""
    def shown() -> float:
        joules[0] += 0.001
        return joules[0]
    return shown


def test_dcgm_counts_millijoules_of_the_boards_that_are_named() -> None:
    """15152422938 mJ are 15152422.938 J, and a board that is named is found by its whole UUID."""
    shown = {"/metrics": dcgm(ticking())}
    with pages(shown) as there:
        counter = DcgmCounter(there.url, UUIDS[1])
        shown["/metrics"] = dcgm(lambda: 15_152_422.938)
        counter._next_ns = 0
        (reading,) = counter.read()
        assert reading.energy_uj == 15_152_422_938_000
        assert [(device.uuid, device.name) for device in counter.devices] == [(UUIDS[1], "NVIDIA H200")]
        counter.close()


def test_triton_counts_joules() -> None:
    """205620.582 J."""
    shown = {"/metrics": triton(ticking())}
    with pages(shown) as there:
        counter = TritonCounter(there.url + "/metrics")
        shown["/metrics"] = triton(lambda: 205_620.582)
        counter._next_ns = 0
        assert [reading.energy_uj for reading in counter.read()] == [205_620_582_000] * 2
        assert [device.uuid for device in counter.devices] == list(UUIDS)
        counter.close()


def test_how_often_a_new_value_comes_is_learned_at_the_start() -> None:
    """An exporter told to collect every 200 ms is one with a period of 200 ms."""
    with pages({"/metrics": dcgm(ticking(every_s=0.2))}) as there:
        counter = DcgmCounter(there.url)
        assert counter.period_ns == pytest.approx(200e6, rel=0.4)
        counter.close()


def test_an_exporter_that_seldom_has_a_new_value_is_said_to_be_one(
        monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Its usual 30 s are assumed, and the log says what that means and what changes it."""
    monkeypatch.setattr(exporter, "WATCH_S", 0.1)
    with pages({"/metrics": dcgm(lambda: 5.0)}) as there, caplog.at_level(logging.WARNING):
        counter = DcgmCounter(there.url)
        assert counter.period_ns == 30_000_000_000
        assert "dcgm-exporter --collect-interval 100" in caplog.text
        before = len(there.asked)
        first = counter.read()
        assert counter.read() is first  # which says nothing of a moment at which nobody looked
        assert len(there.asked) - before <= 1
        counter.close()


def test_changes_are_dated_between_the_looks_at_the_page() -> None:
    """Every window of the counter is as long as the exporter takes, and has all that it advanced."""
    with pages({"/metrics": dcgm(ticking(200.0, 0.2), UUIDS[:1])}) as there:
        counter = DcgmCounter(there.url)
        timeline, windows, values = Timeline(counter.period_ns), [], [counter.read()[0].energy_uj]
        while len(windows) < 4:
            (reading,) = counter.read()
            values.append(reading.energy_uj)
            if (window := timeline.add(reading)) is not None:
                windows.append(window)
            time.sleep(0.01)
        counter.close()
    assert all(window.energy_uj % 40_000_000 == 0 and not window.gap for window in windows)  # 200 W for 0.2 s
    assert sum(window.energy_uj for window in windows) == timeline.drawn_uj <= values[-1] - values[0]
    assert all(one.t1_ns == other.t0_ns for one, other in pairwise(windows))


@pytest.mark.parametrize(("page", "reason"), [
    ((503, b"busy"), "answered 503"),
    (b"# nothing here\n", "does not show board"),
    (dcgm(lambda: 1.0, UUIDS[:1]), "is it the exporter of one host"),
    (b'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0"} 5\n', "the label UUID"),
    (b'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{UUID="a" 5\n', "expected a number"),
    (f'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{UUID="{UUIDS[0]}"}} NaN\n'.encode(), "does not show board"),
    (f'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{UUID="{UUIDS[0]}"}} 9223372036854775794\n'.encode(), "does not show board"),
    (dcgm(lambda: 1.0, UUIDS, ',GPU_I_PROFILE="2g.20gb",GPU_I_ID="3"'), "split by MIG"),
    (lambda: dcgm(ticking())()[:-20], "expected whole lines"), ((-1, b"x" * 50), "was cut off after 50 bytes"),
    ((0, b""), "does not answer")])
def test_a_bad_page_is_an_error_and_the_next_look_works(page: object, reason: str) -> None:
    """No number is made of what is none; DCGM's blanks, which are numbers, are none."""
    good = dcgm(ticking())
    shown: dict[str, object] = {"/metrics": good}
    with pages(shown) as there:
        counter = DcgmCounter(there.url)
        shown["/metrics"], counter._next_ns = page, 0
        with pytest.raises(CounterError, match=reason):
            counter.read()
        shown["/metrics"], counter._next_ns = good, 0
        assert len(counter.read()) == 2
        counter.close()


@pytest.mark.parametrize(("url", "gpus", "reason"), [
    ("http://127.0.0.1:1", "all", "does not answer"), ("localhost:9400", "all", "expected http://HOST:PORT"),
    ("", "GPU-x", "no board 'GPU-x'")])
def test_what_is_not_there_is_unavailable(url: str, gpus: str, reason: str) -> None:
    """With what there is."""
    with pages({"/metrics": dcgm(ticking())}) as there, pytest.raises(UnavailableError, match=reason):
        DcgmCounter(url or there.url, gpus)


def test_a_token_goes_along_and_connections_are_kept() -> None:
    """And one that was closed meanwhile is opened again without an error."""
    with pages({"/metrics": dcgm(moving([1.0]))}) as there:
        counter = DcgmCounter(there.url, access=Access("secret"))
        assert there.tokens == {"Bearer secret"}
        assert there.connections == 1
        assert counter._page._connection.sock is not None
        counter._page._connection.sock.shutdown(2)
        counter._next_ns = 0
        counter.read()
        assert there.connections == 2
        counter.close()
