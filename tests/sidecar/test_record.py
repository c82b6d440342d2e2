"""A record as JSON: one object, whichever way it is made."""

import json

import orjson
from hypothesis import given

from perjoule.sidecar.record import CHARGES, FACTS
from tests.fakes.records import records


@given(records)
def test_the_text_is_that_of_the_object(record):
    """`as_text` is byte for byte what writing `as_json` gives, and any JSON parser reads it."""
    assert record.as_text() == orjson.dumps(record.as_json())
    assert json.loads(record.as_text()).keys() == record.as_json().keys()


@given(records)
def test_the_object_has_every_field(record):
    """In the order in which facts and charge have them, between what names the record and what follows from the others."""
    derived = ("energy_joules", "duration_seconds", "energy_per_output_token_joules", "energy_per_unit_joules")
    found = record.as_json()
    assert tuple(found) == ("schema_version", "instance_id", "sequence", *FACTS, *CHARGES, *derived)
    assert [found[name] for name in FACTS] == [getattr(record.facts, name) for name in FACTS]
    assert [found[name] for name in CHARGES] == [getattr(record.charge, name) for name in CHARGES]
