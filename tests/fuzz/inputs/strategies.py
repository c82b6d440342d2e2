"""Hypothesis strategies: recordings that went wrong in a few ways at once, answers of HTTP, requests, and how a network cuts them."""

from collections.abc import Mapping

from hypothesis import strategies as st

from perjoule.sidecar.relay.answer import Additions
from tests.fuzz.inputs import wrong
from tests.fuzz.inputs.recorded import BODIES, STREAMED

places = st.integers(0, 2**20)
sizes = st.lists(st.sampled_from((1, 1, 2, 3, 5, 8, 40, 400)) | st.integers(0, 600), max_size=40)
"""How many bytes come at a time; after the last of these, all the rest."""

additions = st.sets(st.sampled_from(("headers", "comment", "trailers", "in_usage", "hide_usage"))).map(
    lambda wanted: Additions(**dict.fromkeys(wanted, True)))


@st.composite
def gone_wrong(draw: st.DrawFn, recordings: Mapping[str, bytes], ways: tuple[wrong.Way, ...] = wrong.WAYS) -> tuple[str, bytes]:
    """The name of a recording, and what became of it."""
    name = draw(st.sampled_from(sorted(recordings)))
    data = recordings[name]
    for way, where in draw(st.lists(st.tuples(st.sampled_from(ways), places), max_size=5)):
        data = way(data, where)
    return name, data


streams = gone_wrong(STREAMED)
bodies = gone_wrong(BODIES)
rearranged = gone_wrong(STREAMED, wrong.OF_EVENTS)
