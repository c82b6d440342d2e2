"""Law 6, Time is an argument: the core reads no clock, so the same history costs the same whenever it happens."""

from hypothesis import example, given
from hypothesis import strategies as st

from tests.laws.histories import deep, events, layouts, methods, play, told

ONE, LOOK = ("begin", 1, False, None, 1, None), ("sample", 1, [1, 0, 0])
AT_ZERO = [ONE, ("step", 1, told(2, 1, 0, None, None, None, [])), ("sample", 1, [0, 0, 0]), LOOK, ONE, LOOK]


@deep
@example(AT_ZERO, "one board", 1, "token-share")
@given(st.lists(events, max_size=80), layouts, st.integers(0, 2**62), methods)
def test_time_is_an_argument(history, layout, origin_ns, method):
    """A history replayed from another origin of the monotonic clock gives the same charges and the same balance."""
    meter, records, _ = play(history, layout, method=method)
    later, shifted, _ = play(history, layout, origin_ns, method)
    assert [record.charge for record in shifted] == [record.charge for record in records]
    assert later.balance == meter.balance
