"""Law 3, Never invented: no energy source, no number; a simulated joule says so wherever it is shown."""

from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.record import Status
from tests.laws.histories import deep, events, play


@deep
@given(st.lists(events, max_size=60))
def test_never_invented(history):
    """Without an energy source every amount is null, and the status says why."""
    _, records, _ = play(history, "none")
    for record in records:
        assert record.charge.status is Status.UNAVAILABLE
        assert record.charge.energy_uj is record.charge.active_uj is record.charge.uncertainty_uj is None
