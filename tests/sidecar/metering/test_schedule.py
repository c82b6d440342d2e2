"""What an engine did, from what was seen of it: steps shared by those in them, prompts by arrival, hidden tokens by their neighbours'."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.metering.schedule import Schedule
from perjoule.sidecar.metering.work import Work

MS = 1_000_000


class Engine:
    """Streams that get a token each 10 ms, from a schedule's point of view."""

    def __init__(self):
        self.schedule = Schedule()

    def begin(self, ms, *, prompt=10, visible=True, choices=1):
        work = Work(ms * MS, visible=visible, prompt_tokens=float(prompt), choices=choices)
        self.schedule.begin(work)
        return work

    def steps(self, works, first_ms, last_ms):
        for ms in range(first_ms, last_ms + 1, 10):
            for work in works:
                self.schedule.show(work, ms * MS, work.choices)

    def look(self, t0_ms, t1_ms):
        look = self.schedule.look(t0_ms * MS, t1_ms * MS, t1_ms * MS)
        self.schedule.commit(look, t0_ms * MS, t1_ms * MS)
        return dict(zip(look.works, look.amounts, strict=True)), look


def test_a_step_is_shared_equally_by_those_in_it():
    """Ten steps alone, then ten together with three others: 10 + 10/4 for the first, 10/4 for each of the others."""
    engine = Engine()
    first = engine.begin(0)
    engine.steps([first], 10, 100)
    others = [engine.begin(95) for _ in range(3)]
    engine.steps([first, *others], 110, 210)
    parts, _ = engine.look(0, 210)
    assert parts[first].steps == pytest.approx(10 + 10 / 4, abs=1.1)
    for other in others:
        assert parts[other].steps == pytest.approx(10 / 4, abs=0.1)
    assert sum(terms.steps for terms in parts.values()) == pytest.approx(20, abs=1)


def test_choices_are_sequences():
    """A request for three choices has three of the four sequences in each step."""
    engine = Engine()
    three, one = engine.begin(0, choices=3), engine.begin(0)
    engine.steps([three, one], 10, 210)
    parts, _ = engine.look(100, 200)
    assert parts[three].steps == pytest.approx(7.5, rel=0.02)
    assert parts[one].steps == pytest.approx(2.5, rel=0.02)
    assert parts[three].decode == pytest.approx(3 * parts[one].decode)


def test_a_token_looks_at_all_before_it():
    """Its context is the prompt, cached tokens too, and what was answered so far."""
    engine = Engine()
    work = engine.begin(0, prompt=1000)
    work.know_prompt(1000, 400)
    engine.steps([work], 10, 300)
    engine.look(0, 100)
    parts, _ = engine.look(100, 200)
    assert parts[work].decode == pytest.approx(10)
    assert parts[work].context == pytest.approx(10 * (1000 + 10 + 5), rel=0.01)


def test_who_hides_his_tokens_gets_as_many_as_his_neighbours():
    """Beside a stream, a request that shows nothing has a token in each step, once its prompt is done."""
    engine = Engine()
    seen = engine.begin(0)
    engine.steps([seen], 10, 100)
    hidden = engine.begin(100, prompt=10, visible=False)
    engine.steps([seen], 110, 400)
    engine.look(0, 200)
    parts, _ = engine.look(200, 400)
    assert parts[hidden].decode == pytest.approx(parts[seen].decode, rel=0.05)
    assert parts[hidden].steps == pytest.approx(parts[seen].steps, rel=0.05)


def test_hidden_tokens_are_what_the_engine_says_in_the_end():
    """Thirty tokens in all, whatever was guessed while it ran."""
    engine = Engine()
    hidden = engine.begin(0, visible=False)
    total, edge = 0.0, 0
    for edge in (100, 200):
        parts, _ = engine.look(edge - 100, edge)
        total += parts[hidden].decode
    engine.schedule.end(hidden, 350 * MS, 30, failed=False)
    for edge in (300, 400):
        parts, _ = engine.look(edge - 100, edge)
        total += parts[hidden].decode
    assert total == pytest.approx(30)


def test_a_prompt_that_failed_was_not_computed():
    """An engine that answers 400 has computed nothing."""
    engine = Engine()
    work = engine.begin(0, prompt=5000)
    engine.schedule.end(work, 20 * MS, None, failed=True)
    parts, look = engine.look(0, 100)
    assert parts[work].prefill == 0
    assert look.busy_ns == 20 * MS


def test_busy_time_is_counted_once():
    """Two requests that overlap, then nobody: from the first's begin to the second's end."""
    engine = Engine()
    a, b = engine.begin(10), engine.begin(20)
    engine.schedule.end(a, 40 * MS, None, failed=False)
    engine.schedule.end(b, 60 * MS, None, failed=False)
    _, look = engine.look(0, 100)
    assert look.busy_ns == 50 * MS


def test_without_windows_nothing_piles_up():
    """Where there is no counter no window is ever divided; what is kept of the past is bounded all the same."""
    engine = Engine()
    for i in range(300):
        work = engine.begin(i * 1000)
        engine.steps([work], i * 1000 + 10, i * 1000 + 900)
        engine.schedule.end(work, (i * 1000 + 900) * MS, 90, failed=False)
        engine.schedule.forget([work])
    assert len(engine.schedule.clock.ends_after(0)) < 5000
    assert not engine.schedule.works


def test_a_glance_is_near_the_look():
    """What a request is told before its window closes is what it will be charged with, to a few percent."""
    engine = Engine()
    works = [engine.begin(0) for _ in range(4)]
    engine.steps(works, 10, 200)
    engine.look(0, 100)
    glance = engine.schedule.glance(works[0], 100 * MS, 200 * MS)
    parts, _ = engine.look(100, 200)
    assert tuple(glance) == pytest.approx(tuple(parts[works[0]]), rel=0.05)


events = st.lists(st.tuples(st.sampled_from(["begin", "hide", "show", "end", "look"]), st.integers(0, 9), st.integers(0, 120),
                            st.one_of(st.none(), st.integers(0, 90))), max_size=60)


@given(events)
def test_no_amount_is_negative_and_none_is_charged_twice(history):
    """Over any history: terms are never below 0, a prompt is charged at most once, tokens as the engine said, steps at most as
    many as there were."""
    schedule, t_ns, edge_ns, open_works, all_works = Schedule(), 0, 0, [], []
    prefill, decode, steps = {}, {}, 0.0

    def look():
        nonlocal edge_ns, steps
        found = schedule.look(edge_ns, t_ns, t_ns)
        schedule.commit(found, edge_ns, t_ns)
        edge_ns = t_ns
        for work, terms in zip(found.works, found.amounts, strict=True):
            assert min(terms) >= 0
            prefill[work] = prefill.get(work, 0.0) + terms.prefill
            decode[work] = decode.get(work, 0.0) + terms.decode
            steps += terms.steps

    for kind, which, wait_ms, told in history:
        t_ns += wait_ms * MS
        if kind in ("begin", "hide"):
            work = Work(t_ns, visible=kind == "begin", prompt_tokens=100.0 * which, choices=1 + which % 2)
            schedule.begin(work)
            open_works.append(work)
            all_works.append(work)
        elif kind == "show" and open_works and open_works[which % len(open_works)].visible:
            schedule.show(open_works[which % len(open_works)], t_ns, 1 + which % 3)
        elif kind == "end" and open_works:
            schedule.end(open_works.pop(which % len(open_works)), t_ns, told, failed=False)
        elif kind == "look" and t_ns > edge_ns:
            look()
    t_ns += 200 * MS
    look()
    for work in all_works:
        assert prefill.get(work, 0.0) <= work.prompt_tokens + 1e-3
        if work.end_ns is not None and work.output_tokens is not None and work.end_ns > work.begin_ns and work in decode:
            assert decode[work] <= max(work.output_tokens, work.shown + work.choices, work.charged_tokens) + 1e-3
    assert steps <= schedule.clock.at(t_ns) + 1e-3
