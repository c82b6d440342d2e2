"""The contract, and what the sampler relies on, held against the NVIDIA boards of this machine; skipped without one.

Idle boards will do, and busy ones too.
"""

import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest

from perjoule.adapters.energy import open_counter
from perjoule.adapters.nvml import NvmlCounter
from perjoule.adapters.zeus import ZeusCounter
from perjoule.bench.polling import measure
from perjoule.bench.sensor import Answer, changes, judge, study
from perjoule.sidecar.ports import Reading, UnavailableError
from perjoule.sidecar.process.sampler import Sampler
from perjoule.sidecar.units import NS_PER_MS
from tests.fakes.counter import check_contract


@pytest.fixture
def counter() -> Iterator[NvmlCounter]:
    try:
        counter = NvmlCounter()
    except UnavailableError as reason:
        pytest.skip(str(reason))
    yield counter
    counter.close()


def test_the_real_counter_keeps_the_contract(counter: NvmlCounter) -> None:
    """The same promises as every fake, and a counter that moves within a second."""
    rows = check_contract(counter, reads=50, pause_s=0.02)
    for first, last in zip(rows[0], rows[-1], strict=True):
        assert last.energy_uj > first.energy_uj
        assert last.energy_uj % 1_000 == 0  # millijoules


def test_auto_finds_nvml(counter: NvmlCounter) -> None:
    """`--energy auto` needs no flag where there is a board."""
    opened = open_counter("auto", "all", lambda: 0)
    assert opened.counter is not None
    assert (opened.counter.name, opened.tried) == ("nvml", ())
    assert opened.counter.devices == counter.devices
    opened.counter.close()


def test_boards_by_uuid(counter: NvmlCounter) -> None:
    """A whole UUID opens its board; a prefix of one is refused with the UUIDs that are there."""
    uuid = counter.devices[-1].uuid
    named = NvmlCounter(uuid)
    assert [device.uuid for device in named.devices] == [uuid]
    named.close()
    with pytest.raises(UnavailableError, match=uuid):
        NvmlCounter(uuid[:-1])


def test_instant_power_is_a_boards(counter: NvmlCounter) -> None:
    """Field 186 gives watts of a plausible size, or None, never milliwatts taken for watts."""
    for index in range(len(counter.devices)):
        power_mw = counter.instant_mw(index)
        assert power_mw is None or 5_000 < power_mw < 3_000_000


def test_zeus_reads_the_same_boards(counter: NvmlCounter) -> None:
    """Zeus's counter and NVML's are one: the same boards, and joules within a second's draw."""
    pytest.importorskip("zeus", reason="zeus is an extra")
    zeus = ZeusCounter()
    assert zeus.devices == counter.devices
    for ours, theirs in zip(counter.read(), zeus.read(), strict=True):
        assert 0 <= theirs.energy_uj - ours.energy_uj < 1_000_000_000


def test_the_sampler_sees_every_new_value(counter: NvmlCounter) -> None:
    """Polled every 20 ms for 3 s, changes come about as often as the board makes them."""
    heard: list[tuple[Reading, ...]] = []
    enough = threading.Event()

    def deliver(readings: tuple[Reading, ...]) -> None:
        heard.append(readings)
        if readings[0].t_before_ns - heard[0][0].t_before_ns > 3_000 * NS_PER_MS:
            enough.set()

    sampler = Sampler(counter, deliver, 20 * NS_PER_MS)
    sampler.start()
    assert enough.wait(20)
    sampler.stop()
    for index in range(len(counter.devices)):
        seen = changes([(readings[index].t_before_ns, readings[index].energy_uj) for readings in heard])
        gaps_ms = sorted((t1 - t0) / NS_PER_MS for (t0, _), (t1, _) in pairwise(seen))
        assert gaps_ms[len(gaps_ms) // 2] < 2 * counter.period_ns / NS_PER_MS
    assert sampler.errors == 0


@pytest.mark.slow
def test_the_probe_trusts_this_board(counter: NvmlCounter) -> None:
    """Counter and integral of instant power agree within 3 %, as does the counter with itself at other poll rates."""
    for spans in measure(counter, 20):
        found = study(spans)
        answer, reasons = judge(found, counter.status)
        assert answer is not Answer.NO, (reasons, found)
