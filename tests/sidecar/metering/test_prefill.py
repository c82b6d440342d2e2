"""Prompts in time: taken in the order of arrival, done at their first tokens, and as evenly as that allows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.prefill import PRIOR_PER_S, PrefillQueue
from perjoule.sidecar.metering.work import Work

MS = 1_000_000


def work(begin_ms, tokens, first_ms=None, *, visible=True):
    made = Work(begin_ms * MS, visible=visible, prompt_tokens=float(tokens), choices=1)
    made.first_ns = None if first_ms is None else first_ms * MS
    return made


def queue(*works):
    made = PrefillQueue()
    for each in works:
        made.begin(each, shows=each.visible)
    return made


def placed(made, t0_ms, t1_ms):
    return {part.work: part.tokens for part in made.place(t0_ms * MS, t1_ms * MS, t1_ms * MS)}


def test_a_prompt_alone_is_spread_from_its_arrival_to_its_first_token():
    """Nothing before it came, nothing after its first token, evenly between."""
    one = work(50, 1000, 150)
    made = queue(one)
    assert placed(made, 0, 100)[one] == pytest.approx(500)
    made.commit(made.place(0, 100 * MS, 100 * MS), 0, 100 * MS)
    assert placed(made, 100, 200)[one] == pytest.approx(500)


def test_prompts_are_computed_one_after_the_other():
    """The second waits for the first, although it came at the same time."""
    a, b = work(0, 3000, 100), work(1, 3000, 200)
    assert placed(queue(a, b), 0, 100) == {a: pytest.approx(3000, rel=0.01)}
    assert placed(queue(a, b), 0, 150)[b] == pytest.approx(1500, rel=0.02)  # its step began when the other's first token came


def test_a_step_computes_the_end_of_one_prompt_and_the_begin_of_the_next():
    """As vLLM's steps of 8192 tokens did on an H200: prompts of 6208, 8192 and 2048 tokens whose first tokens came after
    179, 376 and 379 ms. The steps held 8192, 8192 and 64; the straight path finds the first to 6 %, with no budget given."""
    a, b, c = work(0, 6208, 179), work(0, 8192, 376), work(0, 2048, 379)
    parts = placed(queue(a, b, c), 0, 179)
    assert parts[a] == 6208
    assert sum(parts.values()) == pytest.approx(8192, rel=0.06)


def test_prompts_of_one_step_are_computed_side_by_side():
    """Two whose first tokens come together, in a step that others show to have begun at 100 ms: half of each by its middle."""
    a, b = work(90, 1000, 200), work(91, 1000, 200)
    made = queue(a, b)
    parts = {part.work: part.tokens for part in made.place(0, 150 * MS, 300 * MS, [100 * MS])}
    assert parts[a] == pytest.approx(parts[b], rel=0.25)
    assert sum(parts.values()) == pytest.approx(1000, rel=0.15)


def test_who_shows_a_first_token_was_served_first():
    """A later arrival that overtakes was computed before what still waits."""
    waiting, quick = work(0, 100_000), work(10, 500, 60)
    parts = placed(queue(waiting, quick), 0, 60)
    assert parts[quick] == pytest.approx(500)


def test_a_prompt_whose_first_token_is_not_seen_goes_on_at_the_learned_rate():
    """And before anything was learned, at a prior's."""
    one = work(0, 100_000)
    assert placed(queue(one), 0, 100)[one] == pytest.approx(PRIOR_PER_S / 10)


def test_a_prompt_whose_first_token_is_not_seen_is_not_done():
    """However fast the engine was thought to be: 1000 tokens, and half a second later no first token. A window of the first 100 ms
    gets a fifth of them."""
    one = work(0, 1000)
    made = queue(one)
    made.per_s.learn(10**6, 1)
    (part,) = made.place(0, 100 * MS, 500 * MS)
    assert part.tokens == pytest.approx(200, rel=0.01)
    assert part.done_ns is None


def test_the_rate_is_learned_from_times_that_were_busy_throughout():
    """10,000 tokens in a fifth of a second: no less than 50,000 a second, however many came at once."""
    made = PrefillQueue()
    jobs = [work(0, 5000), work(1, 5000)]
    for job in jobs:
        made.begin(job, shows=job.visible)
    for job in jobs:
        job.first_ns = 200 * MS
        made.seen(job, 200 * MS)
    assert made.per_s.value == pytest.approx(50_000)


def test_a_client_that_left_pays_for_no_more_than_there_was_time():
    """A hundred thousand tokens asked for, and gone after 5 ms."""
    gone = work(0, 100_000)
    made = queue(gone)
    gone.end_ns = 5 * MS
    assert placed(made, 0, 100)[gone] == pytest.approx(PRIOR_PER_S * 0.005)


def test_who_hides_his_tokens_is_done_before_who_came_later():
    """A first token says that all prompts that came before, and show nothing, have been computed, too."""
    hidden, later = work(0, 2000, visible=False), work(10, 2000, 90)
    parts = placed(queue(hidden, later), 0, 100)
    assert parts == {hidden: pytest.approx(2000), later: pytest.approx(2000)}


def test_hidden_prompts_are_done_when_the_rate_says_so():
    """Four at once that show nothing: done after their tokens' time, in the window that it falls into, however late that is divided."""
    works = [work(0, 64, visible=False) for _ in range(4)]
    made = queue(*works)
    parts = made.place(0, 100 * MS, 800 * MS)
    assert [part.tokens for part in parts] == pytest.approx([64] * 4)
    assert all(part.done_ns == pytest.approx(256 / PRIOR_PER_S * 1e9, abs=MS) for part in parts)


def test_evidence_that_comes_late_counts_in_the_next_window():
    """A first token that fell into a window divided before it was known is not lost."""
    one = work(0, 1000)
    made = queue(one)
    first = made.place(0, 50 * MS, 50 * MS)
    made.commit(first, 0, 50 * MS)
    one.first_ns = 40 * MS
    assert sum(p.tokens for p in first) + placed(made, 50, 100)[one] == pytest.approx(1000)


jobs = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 9000), st.one_of(st.none(), st.integers(1, 400)), st.booleans(),
                          st.one_of(st.none(), st.integers(0, 400))), max_size=10)


@given(jobs, st.lists(st.integers(20, 200), min_size=1, max_size=8), st.integers(0, 300))
def test_no_prompt_is_computed_twice_or_before_it_came(given_jobs, spans, ahead):
    """Over any arrivals and any windows: each part is positive, the parts of a prompt are at most the prompt, and all of it once
    its first token has been seen and a later window divided."""
    made, works, sums = PrefillQueue(), [], {}
    for begin, tokens, wait, visible, gone in sorted(given_jobs, key=lambda j: j[0]):
        each = work(begin, tokens, None if wait is None else begin + wait, visible=visible)
        if gone is not None and wait is None:
            each.end_ns = (begin + gone) * MS
        made.begin(each, shows=each.visible)
        works.append(each)
    t0_ms = 0
    for span in spans:
        parts = made.place(t0_ms * MS, (t0_ms + span) * MS, (t0_ms + span + ahead) * MS)
        for part in parts:
            assert part.tokens > 0
            assert part.work.begin_ns < (t0_ms + span) * MS
            sums[part.work] = sums.get(part.work, 0.0) + part.tokens
        made.commit(parts, t0_ms * MS, (t0_ms + span) * MS)
        t0_ms += span
    for each in works:
        assert sums.get(each, 0.0) <= each.prompt_tokens + 1e-3
        if each.first_ns is not None and each.visible and each.first_ns < t0_ms * MS and each.begin_ns < each.first_ns:
            assert sums[each] == pytest.approx(each.prompt_tokens, abs=1.0)
        assert each.begin_ns <= t0_ms * MS or each not in sums
