"""The Zeus daemon and TensorRT-LLM's endpoint, by the forms that they publish."""

import json
from pathlib import Path

import pytest

from perjoule.adapters.remote import Access
from perjoule.adapters.remote.trtllm import TrtllmCounter
from perjoule.adapters.remote.zeusd import ZeusdCounter
from perjoule.sidecar.ports import CounterError, UnavailableError
from tests.fakes.exporters import trtllm, zeusd
from tests.fakes.pages import pages


def test_zeusd_over_a_unix_socket_with_its_token(tmp_path: Path) -> None:
    """Boards by their place on the bus, millijoules, one request for all."""
    with pages(zeusd(lambda: 123.456), unix=tmp_path / "zeusd.sock") as there:
        counter = ZeusdCounter(there.url, access=Access("jwt"))
        assert [device.uuid for device in counter.devices] == ["gpu-0000:01:00.0", "gpu-0000:02:00.0"]
        assert [reading.energy_uj for reading in counter.read()] == [123_456_000] * 2
        assert (counter.boundary, there.tokens) == ("gpu-board", {"Bearer jwt"})
        counter.close()


def test_zeusd_reads_packages_where_there_are_no_boards() -> None:
    """With their memory if each has a counter for it."""
    for memory, boundary, uj in ((True, "cpu-package+dram", 2_000_500), (False, "cpu-package", 2_000_000)):
        with pages(zeusd(lambda: 2.0, boards=0, packages=2, memory=memory)) as there:
            counter = ZeusdCounter(there.url)
            assert (counter.boundary, [reading.energy_uj for reading in counter.read()]) == (boundary, [uj, uj])
            counter.close()


def test_zeusd_without_anything_to_read_is_unavailable() -> None:
    """And so is one with a counter that cannot be trusted, or with others than those named."""
    with pages(zeusd(lambda: 2.0, boards=0)) as there, pytest.raises(UnavailableError, match="reads nothing"):
        ZeusdCounter(there.url)
    untrusted = {"gpus": [{"id": 0, "name": "x", "pci_address": "y", "cumulative_energy_available": False}], "cpus": [],
                 "enabled_api_groups": ["gpu-read"]}
    with pages({"/discover": json.dumps(untrusted).encode()}) as there, pytest.raises(UnavailableError, match="can be trusted"):
        ZeusdCounter(there.url)
    with pages(zeusd(lambda: 2.0)) as there, pytest.raises(UnavailableError, match="no device 'GPU-x'; there is gpu-0000:01"):
        ZeusdCounter(there.url, "GPU-x")


def test_zeusd_that_answers_otherwise_is_an_error() -> None:
    """An error status, no JSON, a null where a number belongs."""
    shown = dict(zeusd(lambda: 2.0, boards=1))
    with pages(shown) as there:
        counter = ZeusdCounter(there.url)
        (path,) = (path for path in shown if path.startswith("/gpu"))
        for bad, reason in (((400, b"{}"), "answered 400"), (b"no", "expected JSON"), (b'{"0":{"energy_mj":null}}', "expected an object"),
                            (b"[]", "expected an object")):
            shown[path] = bad  # type: ignore[assignment]
            with pytest.raises(CounterError, match=reason):
                counter.read()
        counter.close()


def test_trtllm_tells_the_sum_of_its_boards() -> None:
    """In joules, as one device; boards cannot be chosen."""
    with pages(trtllm(lambda: 98.7654)) as there:
        counter = TrtllmCounter(there.url)
        assert [reading.energy_uj for reading in counter.read()] == [98_765_400]
        counter.close()
        with pytest.raises(UnavailableError, match="sum of its boards"):
            TrtllmCounter(there.url, "GPU-a")


@pytest.mark.parametrize("bad", [(503, b'{"error": "Energy monitoring is not available"}'), b"[]",
                                 b'{"total_energy_j": null}', b'{"total_energy_j": 1e99}',
                                 b'{"total_energy_j": NaN}', b'{"total_energy_j": -1}', (404, b"")])
def test_trtllm_without_energy_metrics_says_what_it_needs(bad: object) -> None:
    """An engine that was not told to count."""
    with pages({"/energy_metrics": bad}) as there, pytest.raises(UnavailableError, match="enable_energy_metrics: true"):
        TrtllmCounter(there.url)
