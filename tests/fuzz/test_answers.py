"""Answers of every shape through the connection to the engine and on to a client, against RFC 9112 read slowly."""

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.inputs import http, strategies
from tests.fuzz.properties import answers


@given(http.answers(), strategies.sizes, st.booleans(), st.booleans())
def test_reading(raw, sizes, is_head, reset):
    """Status, fields, body, trailers and the way it ended are the reference's, whatever the reads were."""
    answers.answer_is_read(raw, sizes, is_head=is_head, reset=reset)


@given(http.answers(), strategies.sizes, strategies.additions, st.booleans(), st.booleans())
def test_relaying(raw, sizes, add, http11, is_head):
    """The client's answer, read by the reference, is the engine's with what was asked for."""
    answers.answer_goes_on(raw, sizes, add, http11=http11, is_head=is_head)
