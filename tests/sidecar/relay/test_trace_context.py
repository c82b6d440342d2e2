"""The traceparent header, against the W3C specification."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.relay.trace_context import TraceContext, parse_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def test_the_example_of_the_specification_is_read():
    """The specification's own example gives its trace id, parent id and the sampled flag, from bytes and from text."""
    header = f"00-{TRACE}-{SPAN}-01"
    assert parse_traceparent(header) == parse_traceparent(header.encode()) == TraceContext(TRACE, SPAN, 1)


@pytest.mark.parametrize("header", [
    None, "", b"", "garbage",
    f"ff-{TRACE}-{SPAN}-01",  # version ff is forbidden
    f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",  # zero ids
    f"00-{TRACE.upper()}-{SPAN}-01",  # upper case
    f"00-{TRACE[:-1]}-{SPAN}-01", f"00-{TRACE}0-{SPAN}-01", f"00-{TRACE}-{SPAN}0-01", f"00-{TRACE}-{SPAN}-1",
    f"0-{TRACE}-{SPAN}-01", f"0x-{TRACE}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-01-", f"00-{TRACE}-{SPAN}-01-more",  # version 00 is exactly this long
    f"01-{TRACE}-{SPAN}-01more",  # a later version goes on after a dash only
    f" 00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01\n", f"00_{TRACE}_{SPAN}_01",
    b"\xff\xfe" + f"-{TRACE}-{SPAN}-01".encode(),
])
def test_what_the_specification_forbids_is_ignored(header):
    """An invalid value is as good as none."""
    assert parse_traceparent(header) is None


@pytest.mark.parametrize("rest", ["", "-", "-what-the-future-brings"])
def test_a_later_version_is_read_by_its_known_beginning(rest):
    """Version cc, whatever follows, gives the ids that version 00 would have."""
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-01{rest}") == TraceContext(TRACE, SPAN, 1)


def test_unknown_flags_are_not_passed_on():
    """Flags ff become 03 towards the engine: only sampled and random are known."""
    context = parse_traceparent(f"00-{TRACE}-{SPAN}-ff")
    assert context is not None
    assert context.child("b7ad6b7169203331") == f"00-{TRACE}-b7ad6b7169203331-03"


@given(trace=st.integers(1, 2**128 - 1), ours=st.integers(1, 2**64 - 1), flags=st.integers(0, 3))
def test_what_child_writes_can_be_read(trace, ours, flags):
    """Law: the header for the engine parses to the same trace, our span as the parent, the same flags."""
    header = TraceContext(f"{trace:032x}", None, flags).child(f"{ours:016x}")
    assert parse_traceparent(header) == TraceContext(f"{trace:032x}", f"{ours:016x}", flags)


@given(st.binary(max_size=80) | st.text(max_size=80) | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-.*"))
def test_any_input_gives_a_valid_context_or_none(header):
    """Law: nothing raises, and what is accepted has ids of the right form that are not zero."""
    context = parse_traceparent(header)
    if context is not None:
        assert len(context.trace_id) == 32
        assert int(context.trace_id, 16) > 0
        assert len(context.parent_id) == 16
        assert int(context.parent_id, 16) > 0
        assert 0 <= context.flags <= 255
