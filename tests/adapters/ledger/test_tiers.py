"""Any stretch of time is covered once, by sums that are whole, whatever retention has left."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from perjoule.adapters.ledger.tables import DAY_S, HOUR_S, MINUTE_S
from perjoule.adapters.ledger.tiers import RECORDS, pieces

S = 1_000_000_000
NEXT_S = {RECORDS: MINUTE_S, MINUTE_S: HOUR_S, HOUR_S: DAY_S}
times = st.builds(lambda hours, minutes, off: (hours * HOUR_S + minutes * MINUTE_S) * S + off, st.integers(20, 75),
                  st.sampled_from([0, 1, 2, 59]), st.integers(-1, 1))
kept = st.fixed_dictionaries({}, optional=dict.fromkeys(NEXT_S, times)).map(
    lambda since: {span_s: at - at % (NEXT_S[span_s] * S) for span_s, at in since.items()})
intervals = st.sampled_from([None, 1, 60, 90, 3_600, 86_400])


def covering(t, found):
    """The pieces that have what arrived at t, each as its span and where its sum begins."""
    each = [(piece.span_s, t - t % (piece.span_s * S) if piece.span_s else t, piece) for piece in found]
    return [(span_s, begin) for span_s, begin, piece in each if piece.begin <= begin < piece.end]


@given(kept, st.lists(times, max_size=3), intervals, times)
def test_a_record_is_in_exactly_one_of_neighbouring_stretches(since_by_span, bounds, interval_s, t):
    """Law: once, and in sums that have all of what began in them."""
    found = [piece for since, until in pairwise([None, *sorted(bounds), None]) for piece in pieces(since, until, interval_s, since_by_span)]
    [(span_s, begin)] = covering(t, found)
    assert begin >= since_by_span.get(span_s, 0)


@given(kept, times, times, intervals, times)
def test_where_records_are_kept_a_stretch_is_exact(since_by_span, since, until, interval_s, t):
    """Law: what arrived in it is in it once, what did not is not, and no sum reaches over the end of an interval, whichever sums are
    left: from the first whole day of records on."""
    since = max(since, -(-since_by_span.get(RECORDS, 0) // (DAY_S * S)) * DAY_S * S)
    found = covering(t, pieces(since, until, interval_s, since_by_span))
    assert len(found) == (since <= t < until)
    assert all(interval_s is None or span_s == RECORDS or interval_s % span_s == 0 for span_s, _ in found)


def test_a_day_is_one_sum():
    """Whole days are asked as days, their ends as hours, minutes and records."""
    day = DAY_S * S
    assert [tuple(piece) for piece in pieces(day, 3 * day, None, {})] == [(DAY_S, day, 3 * day)]
    assert [piece.span_s for piece in pieces(day - 3_661 * S, day + 1, HOUR_S, {})] == [RECORDS, MINUTE_S, HOUR_S, RECORDS]
