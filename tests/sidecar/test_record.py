"""A record as JSON: one object, whichever way it is made."""

import json
import math

import orjson
import pytest
from hypothesis import given

from perjoule.sidecar.record import ALIKE, CHARGES, FACTS, NAMES, Charge, EnergyRecord, Outcome, RequestFacts, Status
from tests.fakes.records import records


def by_hand(record):
    """The same object, field by field."""
    facts, charge = record.facts, record.charge
    joules = None if charge.energy_uj is None else charge.energy_uj / 1_000_000
    return {
        "schema_version": 1, "instance_id": record.instance_id, "sequence": record.sequence,
        **{name: getattr(facts, name) for name in FACTS}, **{name: getattr(charge, name) for name in CHARGES},
        "energy_joules": joules, "duration_seconds": facts.end_ns / 1_000_000_000,
        "energy_per_output_token_joules": joules / facts.output_tokens if joules is not None and facts.output_tokens else None,
        "energy_per_unit_joules": joules / facts.units if joules is not None and facts.units else None}


@given(records)
def test_the_text_is_that_of_the_object(record):
    """`as_text` is byte for byte what writing `as_json` gives, and any JSON parser reads it."""
    assert record.as_text() == orjson.dumps(record.as_json()) == orjson.dumps(by_hand(record))
    assert json.loads(record.as_text()).keys() == record.as_json().keys()


@given(records)
def test_the_object_has_every_field(record):
    """In the order in which facts and charge have them, between what names the record and what follows from the others."""
    derived = ("energy_joules", "duration_seconds", "energy_per_output_token_joules", "energy_per_unit_joules")
    found = record.as_json()
    assert tuple(found) == ("schema_version", "instance_id", "sequence", *FACTS, *CHARGES, *derived)
    assert [found[name] for name in FACTS] == [getattr(record.facts, name) for name in FACTS]
    assert [found[name] for name in CHARGES] == [getattr(record.charge, name) for name in CHARGES]


def one(**changes):
    facts = RequestFacts("r1", "q1", 1_800_000_000_000_000_000, 5, Outcome.COMPLETED, "chat.completions", "vllm", False, model="m")
    record = EnergyRecord(facts, Charge(Status.MEASURED, "step-model", "nvml", True), "run", 1)
    for name, value in changes.items():
        holder = next(each for each in (record, facts, record.charge) if hasattr(each, name))
        setattr(holder, name, value)
    return record


@pytest.mark.parametrize("name", ["instance_id", "record_id", "response_id", "tenant", "engine", "model", "error_type", "method"])
@pytest.mark.parametrize("text", ["%b", '{"a":1}', '"\\\n\0\x7f\u2028é\U0001f600', ""])
def test_any_text_changes_its_own_field_alone(name, text):
    """Whether it is written anew for each record, or once for all that have it alike."""
    before, after = json.loads(one().as_text()), json.loads(one(**{name: text}).as_text())
    assert after == before | {name: text}


@pytest.mark.parametrize(("name", "value"), [("request_id", "\ud800"), ("model", "\ud800"), ("energy_uj", 2**64), ("http_status", 2**64)])
def test_what_json_cannot_say_is_refused(name, value):
    """As the whole object would be, each time."""
    for _ in range(2):
        with pytest.raises(orjson.JSONEncodeError):
            one(**{name: value}).as_text()


def test_no_number_is_null():
    """Where a mean is none."""
    assert json.loads(one(concurrency_mean=math.nan).as_text())["concurrency_mean"] is None


def test_what_is_alike_is_named_in_the_order_of_all():
    """So that the form and what fills it cannot disagree unseen."""
    assert tuple(name for name in NAMES if name in ALIKE) == ALIKE
