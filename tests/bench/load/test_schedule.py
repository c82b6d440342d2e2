"""A schedule is fixed before the start: sorted, the same for the same seed, at the rate asked for, and as varied as its process is."""

from dataclasses import replace
from itertools import pairwise
from math import inf, sqrt
from statistics import mean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.bench.load.schedule import Plan, Row, Schedule, read, schedule, share
from perjoule.bench.workloads.workload import Turn, Workload

S = 1_000_000_000


def work(*turns):
    return Workload("hand", "hand", turns or (Turn(input_tokens=1),), len(turns))


def opened(arrivals="poisson", rate=10.0, **more):
    return Plan("open", arrivals=arrivals, request_rate=rate, **more)


def times(plan, *turns):
    return [row.intended_ns for row in schedule(work(*turns), plan).rows]


plans = st.builds(
    lambda arrivals, rate, ends, shape, seed, cancels: opened(
        arrivals, rate, seed=seed, requests=60, burstiness=shape if arrivals == "gamma" else None,
        request_rate_end=ends, ramp_s=3.0 if ends else 0.0, cancel_share=cancels),
    st.sampled_from(["constant", "poisson", "gamma"]), st.floats(0.01, 5000), st.none() | st.floats(0.01, 5000), st.floats(0.1, 50),
    st.integers(0, 2**63 - 1), st.floats(0, 1))


@given(plans)
def test_times_are_sorted_and_the_same_seed_gives_the_same_bytes(plan):
    """Law of every open loop."""
    one, again = schedule(work(), plan), schedule(work(), plan)
    at = [row.intended_ns for row in one.rows]
    assert at == sorted(at)
    assert at[0] >= 0
    assert b"".join(one.lines()) == b"".join(again.lines())
    assert one.sha256 == again.sha256


@given(plans)
def test_a_schedule_is_read_as_it_was_written(tmp_path_factory, plan):
    """And has the same digest."""
    path = tmp_path_factory.mktemp("s") / "schedule.jsonl"
    one = schedule(work(), plan)
    one.write(path)
    assert read(path) == one
    assert read(path).sha256 == one.sha256


def test_another_seed_gives_another_schedule():
    """It is drawn, but for a constant rate."""
    assert times(opened(seed=1, requests=5)) != times(opened(seed=2, requests=5))
    assert times(opened("constant", seed=1, requests=5)) == times(opened("constant", seed=2, requests=5))


@pytest.mark.parametrize(("arrivals", "shape", "cv"), [("constant", None, 0.0), ("poisson", None, 1.0), ("gamma", 4.0, 0.5),
                                                       ("gamma", 0.25, 2.0), ("gamma", 1.0, 1.0)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_intervals_have_the_mean_and_the_variation_of_their_process(arrivals, shape, cv, seed):
    """20,000 intervals: the mean within 5 standard errors, the coefficient of variation within 6 %."""
    at = [ns / S for ns in times(opened(arrivals, 100, burstiness=shape, seed=seed, requests=20_001))]
    gaps = [b - a for a, b in pairwise(at)]
    assert mean(gaps) == pytest.approx(0.01, rel=5 * cv / sqrt(20_000) + 1e-6)
    assert pstdev(gaps) / mean(gaps) == pytest.approx(cv, rel=0.06, abs=1e-6)


def test_counts_of_a_poisson_process_vary_as_they_should():
    """Over 400 seeds the number of arrivals in 10 s at 20/s has mean 200 and variance 200: nothing is scaled to a planned total."""
    counts = [len(times(opened(rate=20.0, seed=seed, duration_s=10.0))) for seed in range(400)]
    assert mean(counts) == pytest.approx(200, abs=5 * sqrt(200 / 400))
    assert pstdev(counts) ** 2 / mean(counts) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(("first", "last"), [(10, 100), (100, 10), (50, 50)])
def test_a_ramp_of_a_constant_process_has_the_rate_of_its_time(first, last):
    """By t seconds of the ramp first·t + (last − first)·t²/20 requests were sent, and then `last` a second."""
    at = [ns / S for ns in times(opened("constant", first, request_rate_end=float(last), ramp_s=10.0, duration_s=20.0))]
    for t in (1, 5, 10):
        assert sum(a < t for a in at) == pytest.approx(first * t + (last - first) * t * t / 20, abs=1.01)
    assert sum(a >= 10 for a in at) == pytest.approx(last * 10, abs=1.01)


def test_a_ramp_of_a_poisson_process_follows_its_rate():
    """Mean counts over 200 seeds in the first and in the last quarter of a ramp from 10 to 90 a second."""
    runs = [times(opened(rate=10.0, request_rate_end=90.0, ramp_s=8.0, duration_s=8.0, seed=seed)) for seed in range(200)]
    first = mean(sum(ns < 2 * S for ns in run) for run in runs)
    last = mean(sum(ns >= 6 * S for ns in run) for run in runs)
    assert first == pytest.approx(2 * 20, rel=0.05)
    assert last == pytest.approx(2 * 80, rel=0.05)


def test_a_trace_is_sent_at_its_own_times():
    """Scaled, where that was asked for."""
    turns = [Turn(at_s=0.0), Turn(at_s=1.5), Turn(at_s=1.5), Turn(at_s=4.0)]
    assert times(Plan("trace"), *turns) == [0, 1.5 * S, 1.5 * S, 4 * S]
    assert times(Plan("trace", time_scale=2.0), *turns) == [0, 0.75 * S, 0.75 * S, 2 * S]


@pytest.mark.parametrize("bad", [None, -1.0, 0.5, inf])
def test_a_trace_without_times_or_with_times_that_go_back_is_none(bad):
    """No time is made up."""
    with pytest.raises(ValueError, match="turn 1: got the time"):
        schedule(work(Turn(at_s=1.0), Turn(at_s=bad)), Plan("trace"))


@pytest.mark.parametrize("plan", [opened("constant", 10), Plan("trace"), Plan("closed", concurrency=3)], ids=lambda plan: plan.mode)
def test_later_turns_of_a_session_wait_for_the_answer(plan):
    """They have a think time and no absolute one, and are of one chain; only what begins is an arrival."""
    turns = [Turn(at_s=0.0, session="a"), Turn(at_s=0.1), Turn(at_s=0.2, session="a", think_s=2.0), Turn(at_s=0.2, session="b")]
    rows = schedule(work(*turns), plan).rows
    assert [row.chain for row in rows] == [0, 1, 0, 2]
    assert rows[2].intended_ns is None
    assert rows[2].think_ns == 2 * S
    heads = [row.intended_ns for row in rows if row.index != 2]
    assert heads == {"open": [0, 0.1 * S, 0.2 * S], "trace": [0, 0.1 * S, 0.2 * S], "closed": [None] * 3}[plan.mode]


def test_turns_begin_anew_when_all_were_taken_and_sessions_with_them():
    """The second time round a session is another one."""
    rows = schedule(work(Turn(session="a"), Turn(session="a")), Plan("closed", concurrency=1, requests=4)).rows
    assert [(row.turn, row.chain) for row in rows] == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_planned_cancellations_are_drawn_apart_from_the_arrivals():
    """About the share, and the arrivals stay the same."""
    plain, some = opened(requests=1000), opened(requests=1000, cancel_share=0.3, cancel_after_s=0.5)
    rows = schedule(work(), some).rows
    assert [row.intended_ns for row in rows] == times(plain)
    assert sum(row.cancel_after_ns == S // 2 for row in rows) == pytest.approx(300, abs=5 * sqrt(210))
    assert {row.cancel_after_ns for row in rows} == {None, S // 2}


@given(plans, st.integers(1, 7))
def test_processes_share_a_schedule_without_loss(plan, parts):
    """Each row is somebody's, chains stay together."""
    one = schedule(work(Turn(), Turn(session="a"), Turn(session="a")), plan)
    shares = [share(one.rows, part, parts) for part in range(parts)]
    assert sorted(row for rows in shares for row in rows) == list(one.rows)
    chains = [{row.chain for row in rows} for rows in shares]
    assert sum(map(len, chains)) == len(set().union(*chains))


@pytest.mark.parametrize(("wrong", "said"), [
    ({"mode": "half-open"}, "mode: got 'half-open', expected one of closed, open, trace"),
    ({"mode": "closed"}, "concurrency: got None, expected 1 or more"),
    ({"mode": "closed", "concurrency": 0}, "concurrency"),
    ({"mode": "closed", "concurrency": 1, "request_rate": 1.0}, "request_rate"),
    ({"mode": "open", "arrivals": "poisson"}, "request_rate: got None"),
    ({"mode": "open", "arrivals": "poisson", "request_rate": 0.0}, "request_rate"),
    ({"mode": "open", "arrivals": "poisson", "request_rate": float("nan")}, "request_rate"),
    ({"mode": "open", "arrivals": "gamma", "request_rate": 1.0}, "burstiness"),
    ({"mode": "open", "arrivals": "poisson", "request_rate": 1.0, "burstiness": 2.0}, "burstiness"),
    ({"mode": "open", "arrivals": "poisson", "request_rate": 1.0, "ramp_s": 3.0}, "ramp_s"),
    ({"mode": "open", "arrivals": "poisson", "request_rate": 1.0, "request_rate_end": 3.0}, "request_rate_end"),
    ({"mode": "trace", "arrivals": "poisson"}, "arrivals"), ({"mode": "trace", "time_scale": 0.0}, "time_scale"),
    ({"mode": "trace", "duration_s": 3.0}, "duration_s"), ({"mode": "trace", "cancel_share": 1.1}, "cancel_share"),
    ({"mode": "trace", "seed": -1}, "seed"),
    ({"mode": "trace", "requests": 0}, "requests"), ({"mode": "trace", "cancel_after_s": 0.0}, "cancel_after_s")])
def test_what_is_no_plan_is_refused(wrong, said):
    """With what was got and what is expected."""
    with pytest.raises(ValueError, match=said):
        Plan(**wrong)


def test_a_workload_that_cannot_be_scheduled_is_refused():
    """Without turns, or with fewer than the trace is to have."""
    with pytest.raises(ValueError, match="no turns"):
        schedule(Workload("empty", "", (), 0), opened())
    with pytest.raises(ValueError, match="requests: got 2, expected at most the 1"):
        schedule(work(Turn(at_s=0.0)), Plan("trace", requests=2))


@pytest.mark.parametrize("spoil", [lambda text: "", lambda text: text.replace('"schema_version":1', '"schema_version":2'),
                                   lambda text: text.rsplit("\n", 2)[0], lambda text: text.replace("chain", "chains"), lambda text: "{}"])
def test_a_file_that_is_no_schedule_is_refused(tmp_path, spoil):
    """And not read in part."""
    path = tmp_path / "schedule.jsonl"
    schedule(work(), opened(requests=3)).write(path)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(ValueError, match="expected a schedule"):
        read(path)


def test_the_digest_is_of_every_row():
    """One nanosecond makes another schedule."""
    one = schedule(work(), opened(requests=3))
    moved = Schedule(one.plan, one.workload, (*one.rows[:2], replace(one.rows[2], intended_ns=one.rows[2].intended_ns + 1)))
    assert moved.sha256 != one.sha256
    assert replace(one, plan=replace(one.plan, seed=9)).sha256 != one.sha256
    assert isinstance(one.rows[0], Row)
