"""Requests that are all prompt, as images are: they show that they are done by ending, and one that waits for its turn costs nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sidecar.metering.test_meter import Bench

IMAGE = {"input_tokens": 40_000, "streamed": False, "decodes": False}


@given(st.lists(st.integers(150, 3000), min_size=1, max_size=5), st.integers(0, 99))
def test_an_engine_that_makes_one_image_at_a_time_charges_each_for_its_own_time(lengths_ms, phase_ms):
    """All come at once; each is charged what was drawn while it was made, within a window at either end, and not while it waited."""
    bench = Bench(phase_ms=phase_ms).run_to(500)
    for number in range(len(lengths_ms)):
        bench.begin(f"image {number}", **IMAGE)
    for number, length_ms in enumerate(lengths_ms):
        bench.run_to(bench.now_ms + length_ms).end(f"image {number}")
    bench.run_to(bench.now_ms + 1500)
    records = [bench.settled[f"image {number}"][1] for number in range(len(lengths_ms))]
    joules = [record.charge.energy_uj / 1e6 for record in records]
    assert sum(joules) == pytest.approx(0.4 * sum(lengths_ms), abs=40)
    for joule, length_ms in zip(joules, lengths_ms, strict=True):
        assert joule == pytest.approx(0.4 * length_ms, abs=81)
    assert all(record.charge.decode_uj == 0 for record in records)
    balance = bench.meter.balance
    assert balance.measured_uj == balance.requests_uj + balance.idle_uj + balance.unattributed_uj


def test_two_kinds_in_one_batch_are_charged_by_their_work():
    """Two that end together, the second of three times the work: a quarter and three quarters, once the engine's rate is known."""
    bench = Bench().run_to(500)
    for number in range(6):
        small, large = f"small {number}", f"large {number}"
        bench.begin(small, **IMAGE | {"input_tokens": 10_000})
        bench.begin(large, **IMAGE | {"input_tokens": 30_000})
        bench.run_to(bench.now_ms + 90)
        bench.end(small)
        bench.end(large)
        bench.run_to(bench.now_ms + 210)
    bench.run_to(bench.now_ms + 1000)
    small, large = (sum(record.charge.energy_uj for name, (_, record) in bench.settled.items() if name.startswith(kind))
                    for kind in ("small", "large"))
    assert large / (small + large) == pytest.approx(0.75, abs=0.1)


def test_who_left_before_it_was_made_is_charged_for_the_time_that_he_was_there():
    """A client that leaves ends as cancelled: what was drawn until then is his, nothing after."""
    bench = Bench().run_to(500)
    bench.begin("gone", **IMAGE)
    bench.run_to(1500)
    bench.leave("gone")
    bench.run_to(4000)
    assert bench.settled["gone"][1].charge.energy_uj / 1e6 == pytest.approx(400, abs=41)
