"""Law 1, Conserved: measured == requests + idle + unattributed, with ==, over any history."""

from hypothesis import given
from hypothesis import strategies as st

from tests.laws.histories import deep, events, metered, methods, play


@deep
@given(st.lists(events, max_size=80), metered, methods)
def test_conserved(history, layout, method):
    """Every microjoule that the counters advanced is in a record, in idle or in unattributed, and in one of them only."""
    meter, records, _ = play(history, layout, method=method)
    assert meter.balance.conserved
    assert sum(record.charge.energy_uj or 0 for record in records) == meter.balance.requests_uj
    for rank in (division for division in meter.divisions if division.pool.rank is not None):
        here = [record.charge.energy_uj or 0 for record in records if record.charge.devices == rank.uuids]
        assert sum(here) <= rank.balance.requests_uj  # the others did not say on which they ran


@deep
@given(st.lists(events, max_size=80), metered, methods)
def test_parts_of_a_charge_agree(history, layout, method):
    """Prefill and decode sum to the energy; the active and the steady part are never more than the whole."""
    _, records, _ = play(history, layout, method=method)
    for charge in (record.charge for record in records):
        if charge.energy_uj is not None:
            assert charge.prefill_uj + charge.decode_uj == charge.energy_uj
            assert charge.prefill_uj >= 0
            assert charge.decode_uj >= 0
            assert 0 <= charge.steady_uj <= charge.energy_uj
            assert charge.active_uj is None or 0 <= charge.active_uj <= charge.energy_uj
