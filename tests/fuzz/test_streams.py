"""Streams and bodies that went wrong, read and edited by the sidecar and by slow references: both must say the same."""

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.inputs import strategies
from tests.fuzz.inputs.recorded import dialect_of
from tests.fuzz.properties import streams


@given(strategies.streams, strategies.sizes, st.sampled_from((10, 100, 1000, 1 << 20)))
def test_events(named, sizes, limit):
    """However a stream is cut, its events are the standard's."""
    streams.events_are_cut(named[1], sizes, limit)


@given(strategies.streams, strategies.sizes, st.integers(1, 3))
def test_observation(named, sizes, choices):
    """Tokens, usage, errors and ends seen in passing are those of the whole stream."""
    streams.stream_is_observed(named[1], sizes, dialect_of(named[0]), choices)


@given(strategies.rearranged)
def test_ordinary_frames(named):
    """What is only counted had nothing else to tell."""
    streams.ordinary_frames_say_nothing_else(named[1], dialect_of(named[0]), 2)


@given(strategies.bodies, strategies.sizes, st.sampled_from((5, 300, 1 << 18)))
def test_bodies(named, sizes, limit):
    """A body tells the same in any number of pieces."""
    streams.body_is_observed(named[1], sizes, limit)


@given(strategies.bodies)
def test_energy_in_bodies(named):
    """The energy goes into a body's usage or nowhere."""
    streams.body_is_edited(named[1])


@given(strategies.streams, strategies.sizes, st.booleans(), st.booleans(), st.booleans())
def test_editing(named, sizes, hide, comment, energy):
    """What is added and hidden is what editing the whole stream adds and hides."""
    streams.stream_is_edited(named[1], sizes, hide=hide, comment=comment, energy=energy)
