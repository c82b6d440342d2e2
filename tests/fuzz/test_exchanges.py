"""Streams that went wrong, through an exchange, whole events at a time and otherwise."""

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.inputs import strategies
from tests.fuzz.inputs.recorded import dialect_of
from tests.fuzz.properties import exchanges


@given(strategies.streams, strategies.sizes, strategies.additions, st.booleans(), st.booleans())
def test_relaying(named, sizes, add, at_hand, is_clean):
    """The client's bytes, the tokens seen in passing and the facts are those of the whole stream."""
    exchanges.stream_is_relayed(named[1], sizes, dialect_of(named[0]), add, at_hand=at_hand, is_clean=is_clean)
