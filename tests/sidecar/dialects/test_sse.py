"""Events cut out of a byte stream, whatever its chunks and line ends."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.dialects.sse import EventCutter, data_of

STREAMS = {
    "LF": b"data: a\n\n: keep-alive\n\nevent: x\ndata: b\n\ndata: [DONE]\n\n",
    "CRLF": b"data: a\r\n\r\n: keep-alive\r\n\r\nevent: x\r\ndata: b\r\n\r\ndata: [DONE]\r\n\r\n",
    "CR": b"data: a\r\r: keep-alive\r\revent: x\rdata: b\r\rdata: [DONE]\r\rx",
}


def cut(stream, sizes=(), limit=1 << 20):
    """All events, the stream fed in pieces of these sizes and then the rest."""
    cutter, events, at = EventCutter(limit), [], 0
    for size in sizes:
        events += cutter.feed(stream[at:at + size])
        at += size
    return [*events, *cutter.feed(stream[at:])], cutter.rest()


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_events_are_cut_whole_and_byte_by_byte(stream):
    """The same four events come out with any line end, at once and byte by byte."""
    events, rest = cut(stream)
    assert [data_of(event) for event in events] == [b"a", b"", b"b", b"[DONE]"]
    assert cut(stream, [1] * len(stream)) == (events, rest)


@given(st.lists(st.sampled_from([b"data: a", b"\n", b"\r", b"\r\n", b"\n\n", b":c", b"d", "é".encode()])).map(b"".join),
       st.lists(st.integers(0, 9)))
def test_chunking_is_invisible_and_no_byte_is_lost(stream, sizes):
    """Any chunking of any bytes gives the same events, and together with the rest they are the stream."""
    events, rest = cut(stream, sizes)
    assert (events, rest) == cut(stream)
    assert b"".join(events) + rest == stream


def test_a_blank_line_ends_an_event_and_nothing_else_does():
    """One line end goes on, a second one ends; what follows the last blank line is the rest."""
    assert cut(b"data: a\ndata: b\n\ndata: c\n") == ([b"data: a\ndata: b\n\n"], b"data: c\n")


def test_an_engine_s_piece_is_not_copied():
    """One event that came as one piece is that very object."""
    piece = b"event: x\ndata: {}\n\n"
    assert EventCutter().feed(piece)[0] is piece


def test_an_endless_event_is_bounded_and_passes_in_pieces():
    """Beyond the limit the cutter says so, cuts nothing more, and loses nothing."""
    cutter = EventCutter(limit=10)
    assert cutter.feed(b"data: 1234") == []
    assert not cutter.overflowed
    assert cutter.feed(b"5") == []
    assert cutter.overflowed
    assert cutter.rest() == b"data: 12345"
    assert cutter.feed(b"6\n\n:\n\n") == cutter.feed(b":\n\n") == []
    assert cutter.rest() == b"6\n\n:\n\n:\n\n"


def test_an_event_is_too_long_in_one_piece_as_in_many():
    """What a network did to an event does not decide whether it is cut."""
    long = b"data: 123456\n\n"
    for sizes in ((), (5,), [1] * 14):
        assert cut(b":\n\n" + long + b":\n\n", sizes, limit=10) == ([b":\n\n"], long + b":\n\n")
        assert cut(long, sizes, limit=len(long)) == ([long], b"")


def test_cutting_is_linear():
    """Sixteen times the bytes of an unfinished event, byte by byte, take far less than the 256 times of a rescan."""
    def seconds(size):
        cutter, start = EventCutter(limit=1 << 20), time.process_time()
        for _ in range(size):
            cutter.feed(b"x")
        return time.process_time() - start
    assert min(seconds(160_000) for _ in range(3)) < 100 * min(seconds(10_000) for _ in range(3))


@pytest.mark.parametrize(("event", "data"), [
    (b"data: a\n\n", b"a"), (b"data:a\n\n", b"a"), (b"data::a\n\n", b":a"), (b"data:  a\n\n", b" a"), (b"data\n\n", b""),
    (b"data: a\ndata: b\n\n", b"a\nb"), (b"id: 1\r\ndata: a\r\n\r\n", b"a"), (b": data: a\n\n", b""),
    (b"database: a\n\n", b""), (b"data: \xe2\x80\xa8\n\n", b"\xe2\x80\xa8"),
])
def test_data_is_read_as_the_standard_says(event, data):
    """One space after the colon is syntax, lines are joined with LF, comments and other fields are not data."""
    assert data_of(event) == data
