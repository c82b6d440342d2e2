"""Ids: none twice, of the forms that others read, and rising with time where that matters."""

import time
import uuid

from perjoule.sidecar.relay import ids


def test_no_id_is_given_twice():
    """Over many pages of randomness, and never the same digits for two ids."""
    many = [ids.span_id() for _ in range(10_000)] + [ids.trace_id() for _ in range(10_000)] + [ids.record_id() for _ in range(10_000)]
    assert len(set(many)) == len(many)
    assert len({each[-15:] for each in many}) == len(many)


def test_a_record_id_is_a_uuid_of_its_time():
    """Version 7, RFC 9562's variant, the millisecond of now; later ones sort behind."""
    before_ms = time.time_ns() // 1_000_000
    first = uuid.UUID(ids.record_id())
    time.sleep(0.002)
    second = uuid.UUID(ids.record_id())
    assert first.version == 7
    assert first.variant == uuid.RFC_4122
    assert before_ms <= first.int >> 80 <= time.time_ns() // 1_000_000
    assert first.hex < second.hex


def test_trace_ids_have_the_lengths_of_w3c():
    """32 and 16 lower-case hex digits."""
    for made, length in ((ids.trace_id(), 32), (ids.span_id(), 16)):
        assert len(made) == length
        assert set(made) <= set("0123456789abcdef")
