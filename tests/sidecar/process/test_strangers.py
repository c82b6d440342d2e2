"""Requests in the engine that did not come through here: none is ever made up, and those that stay are found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.meter import Meter
from perjoule.sidecar.ports import Device, Load
from perjoule.sidecar.process.strangers import InFlight, Strangers
from perjoule.sidecar.record import Outcome, RequestFacts

EVENTS = st.lists(st.tuples(st.sampled_from(["begin", "end"]), st.integers(1, 4), st.booleans()), max_size=30)


def facts(record_id):
    return RequestFacts(record_id, record_id, 0, 1, Outcome.COMPLETED, "completions", "vllm", False)


class Traffic:
    """Requests through a meter, and what an engine has of them at each moment: sequences, and requests."""

    def __init__(self):
        self.meter, self.running, self.t_ns = Meter([Device("GPU-0", "a board")]), {}, 0

    def happen(self, events):
        moments = [self.now()]
        for kind, choices, decodes in events:
            self.t_ns += 1
            if kind == "begin":
                record_id = f"r{self.meter.begun}"
                self.meter.begin(record_id, self.t_ns, choices=choices, decodes=decodes)
                self.running[record_id] = choices
            elif self.running:
                record_id, _ = self.running.popitem()
                self.meter.end(record_id, self.t_ns, facts(record_id))
            moments.append(self.now())
        return moments

    def now(self):
        return sum(self.running.values()), len(self.running)


@given(EVENTS, EVENTS, st.integers(1, 4), st.integers(0, 30), st.data())
def test_nobody_is_a_stranger_who_came_through_here(before, meanwhile, choices, waiting, data):
    """Whatever moment of the time looked at an engine's count stems from, it is explained by ours; those that nobody saw are taken to be
    like the others."""
    traffic = Traffic()
    before, meanwhile = ([(kind, choices, decodes) for kind, _, decodes in events] for events in (before, meanwhile))
    traffic.happen(before)
    noted = InFlight(traffic.meter)
    sequences, requests = data.draw(st.sampled_from(traffic.happen(meanwhile)))
    ours = noted.since(traffic.meter)
    for load in (Load(sequences - min(waiting, sequences), min(waiting, sequences)), Load(requests, 0, whole=True)):
        assert (ours.strangers(load) or 0) <= 0


@given(EVENTS, st.integers(1, 9))
def test_strangers_are_found_while_ours_stand_still(before, strangers):
    """Exactly, but among texts to embed, of which nobody knows how many a request has."""
    traffic = Traffic()
    sequences, requests = traffic.happen([(kind, choices, True) for kind, choices, _ in before])[-1]
    ours = InFlight(traffic.meter).since(traffic.meter)
    assert ours.strangers(Load(sequences + strangers, 0)) == strangers
    assert ours.strangers(Load(requests, strangers, whole=True)) == strangers
    traffic.meter.begin("embeds", 99, decodes=False)
    ours = InFlight(traffic.meter).since(traffic.meter)
    assert ours.strangers(Load(sequences + strangers, 0)) is None
    assert ours.strangers(Load(requests + 1, strangers, whole=True)) == strangers


@pytest.mark.parametrize(("looks", "seen"), [([3], None), ([3, 5], 3), ([3, -2], 0), ([-1, -2], 0), ([3, None, 4], None), ([0, 2, 2], 2)])
def test_two_looks_must_agree(looks, seen):
    """What comes and goes is nobody to warn of; what was not found out is not 0."""
    strangers = Strangers()
    for look in looks:
        strangers.look(look)
    assert strangers.seen == seen
