"""A record as JSON: one object, whichever way it is made."""

import json

import orjson
from hypothesis import given

from tests.fakes.records import records


@given(records)
def test_the_text_is_that_of_the_object(record):
    """`as_text` is byte for byte what writing `as_json` gives, and any JSON parser reads it."""
    assert record.as_text() == orjson.dumps(record.as_json())
    assert json.loads(record.as_text()).keys() == record.as_json().keys()
