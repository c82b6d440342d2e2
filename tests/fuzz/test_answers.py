"""Answers of every shape through the connection to the engine and on to a client, against RFC 9112 read slowly."""

from itertools import accumulate, pairwise

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


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.sampled_from((b"%x", b"%X", b"0%x", b"%x;a=b"))), max_size=12), st.data())
def test_chunks_cut_between_them_and_elsewhere(chunks, data):
    """Whole chunks that come in reads of their own are passed by the parser: whatever else is cut, it misses none."""
    pieces = [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
              *(b"%b\r\n%b\r\n" % (size % len(body), body) for body, size in chunks), b"0\r\n\r\n"]
    raw = b"".join(pieces)
    between = data.draw(st.sets(st.sampled_from(list(accumulate(map(len, pieces))))))
    cuts = sorted(between | data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=4)) | {0, len(raw)})
    answers.answer_is_read(raw, [end - begin for begin, end in pairwise(cuts)], is_head=False, reset=False)
