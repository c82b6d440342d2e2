"""The last minutes in slots: nothing is lost between them, and no traffic makes them grow without bound."""

from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.history import NAME_MOST, NAMES, OTHERS, SLOT_NS, SLOTS, Drawn, History
from perjoule.sidecar.metering.steady_state import Phase

EVERY = (0, 1 << 62)
uses = st.dictionaries(st.none() | st.text(max_size=3), st.integers(0, 10**9), max_size=40)
windows = st.tuples(st.integers(1, 8 * SLOT_NS), st.sampled_from([*Phase, None]), uses, st.integers(0, 10**9))


def idle(uj=0):
    return Drawn(Phase.IDLE, uj, 0, 0.0, {}, {})


@given(st.lists(windows, min_size=1, max_size=20), st.integers(0, 10 * SLOT_NS))
def test_every_microjoule_of_the_windows_is_in_one_slot(windows, t_ns):
    """However windows lie over slots, and whoever is folded into the others, the sums over models and over tenants stay."""
    history = History()
    given_uj = 0
    for span_ns, phase, models, idle_uj in windows:
        tenants = {"t": sum(models.values())}
        history.add(t_ns, t_ns + span_ns, Drawn(phase, idle_uj, 1, 0.0, models, tenants))
        t_ns, given_uj = t_ns + span_ns, given_uj + idle_uj + 1 + sum(models.values())
    slots = list(history._slots.values())
    for names in ("models", "tenants"):
        assert sum(slot.idle_uj + slot.unattributed_uj + sum(getattr(slot, names).values()) for slot in slots) == given_uj


@given(st.integers(1, 3 * SLOT_NS), st.integers(1, 40))
def test_only_slots_that_windows_cover_are_shown(span_ns, many):
    """The first and the last half second, begun in their midst, would look as if less was drawn."""
    history, begin_ns = History(), SLOT_NS // 3
    for number in range(many):
        history.add(begin_ns + number * span_ns, begin_ns + (number + 1) * span_ns, idle(span_ns))
    shown = list(history.whole(*EVERY))
    assert [number for number, _ in shown] == list(range(1, (begin_ns + many * span_ns) // SLOT_NS))
    assert all(slot.idle_uj in (SLOT_NS - 1, SLOT_NS, SLOT_NS + 1) for _, slot in shown)


def test_two_pools_share_a_slot_and_it_is_shown_once_both_are_there():
    """What the slower pool drew comes later."""
    history = History(pools=2)
    history.add(0, 4 * SLOT_NS, idle(400))
    assert list(history.whole(*EVERY)) == []
    history.add(0, 2 * SLOT_NS, Drawn(Phase.STEADY, 0, 0, 10.0, {"m": 100}, {"t": 100}))
    assert [(number, slot.idle_uj, slot.models, slot.tokens) for number, slot in history.whole(*EVERY)] == [
        (0, 100, {"m": 50}, 5.0), (1, 100, {"m": 50}, 5.0)]


def test_it_keeps_five_minutes_and_the_names_that_took_most():
    """A day of windows, a name of its own for each of a hundred requests in every one: slots, names and their lengths are bounded."""
    history = History()
    for number in range(3 * SLOTS):
        names = {f"{number}-{each}" * 40: each for each in range(100)}
        history.add(number * SLOT_NS, (number + 1) * SLOT_NS, Drawn(Phase.RAMP, 0, 0, 1.0, names, names))
    assert len(history._slots) == SLOTS
    *slots, _ = (slot for _, slot in history.whole(*EVERY))
    assert {len(slot.models) for slot in slots} == {NAMES + 1}
    assert all(len(name) <= NAME_MOST for slot in slots for name in slot.models)
    assert slots[0].models[OTHERS] == sum(range(100 - NAMES))
    history.add(3 * SLOTS * SLOT_NS, 10**18, idle())  # a counter that was silent for thirty years
    assert len(history._slots) == SLOTS
