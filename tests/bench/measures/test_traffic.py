"""Sums over requests at any moment, beside what counting each of them gives."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.load.sample import Sample
from perjoule.bench.measures.served import gaps, one
from perjoule.bench.measures.traffic import Traffic
from perjoule.bench.steady_state import Request, activities
from perjoule.bench.steady_state import Traffic as Stream
from perjoule.sidecar.metering.timeline import Window


@st.composite
def samples(draw):
    """Requests that completed, with any chunks, or that never had a token."""
    found = []
    for index in range(draw(st.integers(1, 8))):
        sent_ns = draw(st.integers(0, 500))
        chunks = sorted(draw(st.lists(st.integers(sent_ns + 1, 1000), max_size=8)))
        end_ns = draw(st.integers(chunks[-1] if chunks else sent_ns, 1100))
        found.append(Sample(index, sent_ns, sent_ns, first_token_ns=chunks[0] if chunks else None,
                            last_token_ns=chunks[-1] if chunks else None, end_ns=end_ns, chunk_ns=chunks,
                            output_tokens=draw(st.sampled_from([len(chunks), 2 * len(chunks)])),
                            input_tokens=draw(st.integers(0, 9)), outcome="completed" if chunks else "errored"))
    return found


EDGES = st.lists(st.integers(-10, 1200), min_size=2, max_size=12, unique=True).map(sorted)


@given(samples(), EDGES)
def test_tokens_are_counted_where_their_chunks_came(requests, edges):
    """In (a, b], each its part of the request's tokens."""
    found = Traffic([one(sample, None) for sample in requests]).tokens(edges)
    for (a, b), tokens in zip(pairwise(edges), found, strict=True):
        assert tokens == pytest.approx(sum(s.output_tokens / len(s.chunk_ns) for s in requests for t in s.chunk_ns if a < t <= b))


@given(samples(), EDGES)
def test_running_time_is_the_sum_of_overlaps(requests, edges):
    """From the send to the end."""
    traffic = Traffic([one(sample, None) for sample in requests])
    for a, b in pairwise(edges):
        assert traffic.running_ns(a, b) == sum(max(0, min(s.end_ns, b) - max(s.sent_ns, a)) for s in requests)
        assert traffic.prompt_tokens(a, b) == sum(s.input_tokens for s in requests if s.chunk_ns and a < s.chunk_ns[0] <= b)


@given(samples(), EDGES)
def test_the_detector_sees_what_the_bench_of_steady_states_shows_it(requests, edges):
    """Requests with tokens: the same activities as `bench/steady_state.py` makes of recordings."""
    requests = [sample for sample in requests if sample.chunk_ns and sample.output_tokens == len(sample.chunk_ns)]
    stream = Stream("", [], [Request(s.sent_ns, s.end_ns, [(t, 1) for t in s.chunk_ns]) for s in requests])
    traffic = Traffic([one(sample, None) for sample in requests])
    found = traffic.activities(edges, traffic.tokens(edges))
    expected = list(activities(stream, [Window(a, b, 0) for a, b in pairwise(edges)]))
    assert [(a.t0_ns, a.t1_ns, a.running_ns, a.tokens // 1_000_000, a.joined, a.decoding, a.waiting) for a in found] == [
        (a.t0_ns, a.t1_ns, a.running_ns, a.tokens, a.joined, a.decoding, a.waiting) for a in expected]


def test_an_answer_without_chunks_comes_at_its_end():
    """A request that was not streamed joins when it is sent, and its tokens come at once."""
    traffic = Traffic([one(Sample(0, 0, 100, end_ns=900, output_tokens=7, outcome="completed"), None)])
    assert traffic.tokens([0, 899, 900, 1000]) == [0, 7, 0]
    assert [each.decoding for each in traffic.activities([0, 50, 500, 1000], [0, 0, 0])] == [0, 1, 0]


def test_gaps_are_pooled_and_a_bundle_is_shared_by_its_tokens():
    """By hand: two gaps of 6 ms and one of 2 ms; the second request has three tokens in each chunk."""
    ms = 1_000_000
    first = one(Sample(0, 0, 0, chunk_ns=[ms, 7 * ms, 9 * ms], output_tokens=3, outcome="completed"), None)
    second = one(Sample(1, 0, 0, chunk_ns=[ms, 7 * ms], output_tokens=6, outcome="completed"), None)
    icl, itl = gaps([first, second])
    assert icl == {6.0: 2, 2.0: 1}
    assert itl == {6.0: 1, 2.0: 1 + 3}
