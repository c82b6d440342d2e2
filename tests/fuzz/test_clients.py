"""What clients send, to a client's connection and to RFC 9112 read slowly: both must see the same requests."""

from hypothesis import given

from tests.fuzz.inputs import http, strategies
from tests.fuzz.properties import clients


@given(http.requests(), strategies.sizes)
def test_requests(raw, sizes):
    """Nothing that one of them takes for a body is a request to the other."""
    clients.requests_are_read(raw, sizes)
