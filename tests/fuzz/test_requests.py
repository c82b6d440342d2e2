"""Request bodies that matter to the meter, in any spelling: read as they are, and changed in one place or not at all."""

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.inputs import texts
from tests.fuzz.inputs.recorded import PATHS, endpoint
from tests.fuzz.properties import requests


@given(texts.request_bodies())
def test_asking(body):
    """Asking for usage adds that and nothing else, or does nothing."""
    requests.usage_is_asked_for(body)


@given(texts.request_bodies(), st.sampled_from(sorted(PATHS.keys() - {"generate"})))
def test_requests(body, dialect):
    """What is known of a request is what its body says."""
    requests.request_is_read(body, endpoint(dialect))
