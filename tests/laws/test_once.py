"""Law 4, Once: each request has exactly one record with exactly one outcome."""

from hypothesis import given
from hypothesis import strategies as st

from tests.laws.histories import deep, events, layouts, methods, play


@deep
@given(st.lists(events, max_size=80), layouts, methods)
def test_once(history, layout, method):
    """Each request has exactly one record, and it comes settled."""
    _, records, begun = play(history, layout, method=method)
    assert sorted(record.facts.record_id for record in records) == sorted(f"r{i}" for i in range(begun))
    assert all(record.charge.settled for record in records)
