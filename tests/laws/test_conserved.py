"""Law 1, Conserved: measured == requests + idle + unattributed, with ==, over any history."""

from hypothesis import given
from hypothesis import strategies as st

from tests.laws.histories import deep, events, methods, play


@deep
@given(st.lists(events, max_size=80), st.integers(1, 3), methods)
def test_conserved(history, boards, method):
    """Every microjoule that the counters advanced is in a record, in idle or in unattributed, and in one of them only."""
    meter, records, _ = play(history, boards, method=method)
    assert meter.balance.conserved
    assert sum(record.charge.energy_uj or 0 for record in records) == meter.balance.requests_uj


@deep
@given(st.lists(events, max_size=80), st.integers(1, 3), methods)
def test_parts_of_a_charge_agree(history, boards, method):
    """Prefill and decode sum to the energy; the active and the steady part are never more than the whole."""
    _, records, _ = play(history, boards, method=method)
    for charge in (record.charge for record in records):
        if charge.energy_uj is not None:
            assert charge.prefill_uj + charge.decode_uj == charge.energy_uj
            assert charge.prefill_uj >= 0
            assert charge.decode_uj >= 0
            assert 0 <= charge.steady_uj <= charge.energy_uj
            assert charge.active_uj is None or 0 <= charge.active_uj <= charge.energy_uj
