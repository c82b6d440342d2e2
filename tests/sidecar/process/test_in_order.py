"""Events of several processes: given on in the order of their times, each once, and time never runs back."""

from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.process.in_order import InOrder


@given(st.lists(st.one_of(st.tuples(st.just("put"), st.integers(0, 100)), st.tuples(st.just("due"), st.integers(0, 100)))))
def test_every_event_comes_once_and_time_never_runs_back(history):
    """Whatever comes when: nothing is lost or doubled, nothing is early, and what is due at once is in order."""
    order, put, given_on, latest = InOrder(), [], [], 0
    for what, t_ns in [*history, ("due", 100)]:
        if what == "put":
            order.put(t_ns, print, len(put), t_ns)
            put.append(t_ns)
            continue
        taken = list(order.due(t_ns))
        assert all(of[1] <= t_ns for _, _, of in taken)
        assert [of[1] for _, _, of in taken] == sorted(of[1] for _, _, of in taken)
        for _, at_ns, of in taken:
            assert at_ns == max(latest, of[1])
            latest = at_ns
        given_on += taken
    assert sorted(of[0] for _, _, of in given_on) == list(range(len(put)))
    assert len(order) == 0


def test_events_of_one_time_stay_in_the_order_they_came_in():
    """A worker says one thing after the other within a nanosecond."""
    order = InOrder()
    for place in range(5):
        order.put(7, print, place)
    assert [of[0] for _, _, of in order.due(7)] == [0, 1, 2, 3, 4]
