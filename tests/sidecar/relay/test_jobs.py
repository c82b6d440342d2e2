"""What is computed after its request was answered: each job ends once, by what is seen of it or by a limit (law 4, Once)."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perjoule.sidecar.dialects.jobs import Kind, Opened, Seen, State
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status, Unit, UnitSource
from perjoule.sidecar.relay.jobs import AT_ONCE, LATER_NS, MOST_ENDED, MOST_OPEN, NEXT_UP, REFUSED_NS, SILENT_NS, SOON_NS, Jobs

S = 1_000_000_000
UNIX = 1_700_000_000 * S
MS = 1_000_000


def facts(record_id="r", tenant=None):
    """A request that was answered 10 ms after it came."""
    return RequestFacts(record_id=record_id, request_id="q", arrival_unix_ns=UNIX, end_ns=10 * MS, outcome=Outcome.COMPLETED,
                        endpoint="videos", engine="e", streamed=False, http_status=200, tenant=tenant, unit=Unit.VIDEO_SECOND, units=4.0,
                        units_source=UnitSource.ASKED)


class Bench:
    """Jobs, and how they ended."""

    def __init__(self, **more):
        self.ended, self.first, self.power_w = [], [], None
        self.jobs = Jobs(lambda facts, t_ns: self.ended.append((facts, t_ns)), lambda record_id, t_ns: self.first.append(record_id),
                         lambda t_ns: self.power_w, **more)

    def open(self, job_id="j", t_ns=10 * MS, kind=Kind.VIDEOS, record_id=None):
        self.jobs.open(facts(record_id or f"r-{job_id}"), Opened(kind, job_id), t_ns)
        return next(job for job in self.jobs._open.values() if job.opened.id == job_id)

    def saw(self, state, t_ns, job_id="j", kind=Kind.VIDEOS, asked_by_us=False, **more):
        self.jobs.saw(kind, job_id, Seen(state, **more), t_ns, asked_by_us=asked_by_us)

    @property
    def outcomes(self):
        return [(facts.outcome, facts.error_type) for facts, _ in self.ended]


@pytest.mark.parametrize(("state", "error", "outcome"), [
    (State.COMPLETED, None, Outcome.COMPLETED), (State.FAILED, "oom", Outcome.ERRORED), (State.CANCELLED, None, Outcome.CANCELLED)])
def test_a_job_ends_as_the_engine_says(state, error, outcome):
    """And only once: what is said afterwards, and a status that goes back, change nothing."""
    bench = Bench()
    bench.open()
    bench.saw(State.RUNNING, 1 * S)
    bench.saw(state, 2 * S, error=error)
    for later in (State.COMPLETED, State.RUNNING, State.QUEUED, State.FAILED, State.GONE):
        bench.saw(later, 3 * S, asked_by_us=True)
    ((facts_, t_ns),) = bench.ended
    assert (facts_.outcome, facts_.error_type, facts_.job_id, facts_.end_ns, t_ns) == (outcome, error, "j", 2 * S, 2 * S)
    assert (facts_.units is None) == (outcome is not Outcome.COMPLETED)  # what was not made has no joules a second
    assert not bench.jobs
    assert bench.jobs.record_of("j") == "r-j"


EVENTS = st.lists(st.tuples(st.sampled_from(["open", "saw", "waits", "removed", "unanswered", "refused", "tick", "due"]),
                            st.sampled_from("ab"), st.sampled_from(list(Kind)), st.sampled_from(list(State)), st.booleans(),
                            st.integers(0, 90 * S)), max_size=60)


@given(EVENTS)
def test_every_job_ends_exactly_once_whatever_happens(events):
    """Law 4 (Once): over any history, ended by the close of the sidecar at the latest; times never run back."""
    bench, t_ns, opened = Bench(longest_ns=200 * S), 0, 0
    for what, job_id, kind, state, by_us, passed_ns in events:
        t_ns += passed_ns
        job = bench.jobs._open.get((kind, job_id))
        if what == "open":
            bench.jobs.open(facts(f"record {opened}"), Opened(kind, job_id), t_ns)
            opened += 1
        elif what == "saw":
            bench.jobs.saw(kind, job_id, Seen(state, ended_unix_ns=(UNIX + passed_ns, UNIX + passed_ns + S)), t_ns, asked_by_us=by_us)
        elif what == "removed":
            bench.jobs.removed(kind, [job_id] if by_us else [], t_ns)
        elif what == "tick":
            bench.jobs.tick(t_ns)
        elif what == "due":
            bench.jobs.due(t_ns)
        elif job is not None and what == "waits":
            bench.jobs.waits(job, t_ns)
        elif job is not None:
            bench.jobs.unanswered(job, t_ns, refused=what == "refused")
    assert len(bench.ended) + len(bench.jobs) == opened
    bench.jobs.close(t_ns)
    ended = [facts_.record_id for facts_, _ in bench.ended]
    assert sorted(ended) == sorted(f"record {number}" for number in range(opened))
    assert all(facts_.end_ns >= 10 * MS and (facts_.queue_ns or 0) <= facts_.end_ns for facts_, _ in bench.ended)
    assert [t for _, t in bench.ended] == sorted(t for _, t in bench.ended)
    assert not bench.jobs._records


def test_an_engine_that_knows_no_such_job_is_believed_when_we_asked_twice():
    """A client may ask with a key that is shown nothing; one of several servers may not know another's job."""
    bench = Bench()
    bench.open()
    for second in range(1, 9):
        bench.saw(State.GONE, second * S)
    bench.saw(State.GONE, 10 * S, asked_by_us=True)
    bench.saw(State.RUNNING, 11 * S)
    bench.saw(State.GONE, 12 * S, asked_by_us=True)
    assert not bench.ended
    bench.saw(State.GONE, 13 * S, asked_by_us=True)
    assert bench.outcomes == [(Outcome.ERRORED, "job_lost")]


def test_what_a_client_took_out_of_the_queue_is_cancelled():
    bench = Bench()
    bench.open("a", kind=Kind.COMFYUI)
    bench.open("b", kind=Kind.COMFYUI)
    bench.jobs.removed(Kind.COMFYUI, ["a"], 1 * S)
    for job_id in "ab":
        bench.saw(State.GONE, 2 * S, job_id, Kind.COMFYUI, asked_by_us=True)
    assert [(facts_.job_id, facts_.error_type) for facts_, _ in bench.ended] == [("a", None), ("b", "job_lost")]
    assert bench.ended[0][0].outcome is Outcome.CANCELLED


def test_who_comfyui_computes_goes_first():
    """Told once each time that it begins; a video that is `in_progress` may still wait inside its engine."""
    bench = Bench()
    bench.open("a", kind=Kind.COMFYUI)
    bench.open("v")
    for state in (State.QUEUED, State.RUNNING, State.RUNNING):
        bench.saw(state, 1 * S, "a", Kind.COMFYUI)
        bench.saw(state, 1 * S, "v")
    assert bench.first == ["r-a"]


def test_an_engine_that_is_gone_loses_its_jobs():
    """Soon if it takes no connection, later if it is only silent; one answer in between is enough."""
    bench = Bench()
    job = bench.open()
    bench.jobs.unanswered(job, 1 * S, refused=True)
    bench.saw(State.RUNNING, 2 * S)
    bench.jobs.unanswered(job, 3 * S, refused=False)
    bench.jobs.unanswered(job, 3 * S + SILENT_NS - 1, refused=False)
    assert not bench.ended
    bench.jobs.unanswered(job, 3 * S + SILENT_NS, refused=False)
    assert bench.outcomes == [(Outcome.ERRORED, "upstream_lost")]
    bench.jobs.unanswered(job, 4 * S + SILENT_NS, refused=False)  # an answer that was on its way
    other = bench.open("k", 100 * S)
    bench.jobs.unanswered(other, 101 * S, refused=True)
    bench.jobs.unanswered(other, 101 * S + REFUSED_NS, refused=True)
    assert bench.outcomes[1:] == [(Outcome.ERRORED, "upstream_lost")]


def test_a_job_that_never_ends_is_given_up():
    bench = Bench(longest_ns=60 * S)
    bench.open("a", 0)
    bench.open("b", 30 * S)
    bench.jobs.tick(60 * S)
    assert [facts_.error_type for facts_, _ in bench.ended] == ["job_timeout"]
    assert len(bench.jobs) == 1


def test_a_name_that_comes_again_is_of_another_job():
    """Two records, each with an outcome; what is seen from then on is of the second."""
    bench = Bench()
    bench.open(record_id="first")
    bench.open(t_ns=5 * S, record_id="second")
    bench.saw(State.COMPLETED, 6 * S)
    assert [(facts_.record_id, facts_.error_type) for facts_, _ in bench.ended] == [("first", "job_id_reused"), ("second", None)]
    assert bench.jobs.record_of("j") == "second"


def test_there_is_room_for_so_many():
    """Beyond it the oldest are given up, and of those that are over the oldest names are forgotten."""
    bench = Bench()
    for number in range(MOST_OPEN + MOST_ENDED + 3):
        bench.jobs.open(facts(f"r{number}"), Opened(Kind.VIDEOS, f"j{number}"), number)
    assert len(bench.jobs) == MOST_OPEN
    assert [facts_.job_id for facts_, _ in bench.ended] == [f"j{number}" for number in range(MOST_ENDED + 3)]
    assert {facts_.error_type for facts_, _ in bench.ended} == {"too_many_jobs"}
    assert [bench.jobs.record_of(f"j{number}") for number in (2, 3, MOST_ENDED + 2)] == [None, "r3", f"r{MOST_ENDED + 2}"]


def test_who_is_asked_after():
    """The first few and those that run, twice a second; the rest in turn; nobody of whom a client has just asked."""
    bench = Bench()
    for number in range(40):
        bench.open(f"j{number}", 0)
    bench.saw(State.RUNNING, 0, "j30")
    first = [job.opened.id for job in bench.jobs.due(SOON_NS)]
    assert first == [*(f"j{number}" for number in range(NEXT_UP)), "j30"]
    assert not bench.jobs.due(SOON_NS + 1)
    bench.saw(State.QUEUED, SOON_NS + 2, "j0")
    assert "j0" not in [job.opened.id for job in bench.jobs.due(2 * SOON_NS)]
    bench.saw(State.RUNNING, SOON_NS + 3, "j20")
    asked = set()
    for tick in range(40):
        due = bench.jobs.due(LATER_NS + tick * SOON_NS)
        assert len(due) <= AT_ONCE
        assert [job.opened.id for job in due[:NEXT_UP]] == first[:NEXT_UP]  # whatever the crowd behind them
        asked |= {job.opened.id for job in due}
    assert len(asked) == 40  # nobody is left out


@pytest.mark.parametrize(("ended", "end_ns", "late_ns"), [
    (None, 3 * S, 2 * S / 3**0.5),  # between two looks
    ((UNIX + 2 * S, UNIX + 2 * S + MS), 2 * S + MS, S),  # ComfyUI says it to the millisecond
    ((UNIX + 2 * S, UNIX + 3 * S), 3 * S, S / 3**0.5),  # others in whole seconds
    ((UNIX + 60 * S, UNIX + 61 * S), 3 * S, 2 * S / 3**0.5),  # a clock that is not ours
])
def test_what_it_is_charged_with_after_its_end_is_in_its_uncertainty(ended, end_ns, late_ns):
    """400 W from its end until that was seen, root mean square over when it may have been."""
    bench = Bench()
    bench.open()
    bench.saw(State.RUNNING, 1 * S)
    bench.saw(State.COMPLETED, 3 * S, ended_unix_ns=ended)
    ((facts_, _),) = bench.ended
    assert facts_.end_ns == end_ns
    charge = Charge(Status.MEASURED, "m", "s", settled=True, energy_uj=round(0.4 * (end_ns + late_ns)), uncertainty_uj=0)
    record = EnergyRecord(facts_, charge)
    bench.jobs.widen(record)
    assert record.charge.uncertainty_uj == pytest.approx(0.4 * late_ns, rel=0.01)
    again = dataclasses.replace(record.charge)
    bench.jobs.widen(record)
    assert record.charge == again


def test_of_one_that_waited_for_long_the_gap_is_at_the_power_that_is_drawn():
    """Ten seconds in the queue at no cost, one at 400 W: the mean over both would say too little of the half second at the end."""
    bench = Bench()
    bench.power_w = 400.0
    bench.open()
    bench.saw(State.RUNNING, 10 * S + 500 * MS)
    bench.saw(State.COMPLETED, 11 * S)
    record = EnergyRecord(bench.ended[0][0], Charge(Status.MEASURED, "m", "s", settled=True, energy_uj=400_000_000, uncertainty_uj=0))
    bench.jobs.widen(record)
    assert record.charge.uncertainty_uj == pytest.approx(200_000_000 / 3**0.5, rel=0.01)


def test_how_long_it_waited_is_what_the_engine_says():
    bench = Bench()
    for number, (job_id, more) in enumerate({"a": {"began_unix_ns": UNIX + S}, "b": {}, "c": {"began_unix_ns": 5}}.items()):
        bench.open(job_id)
        bench.saw(State.COMPLETED, 3 * S + number, job_id, **more)
    assert [facts_.queue_ns for facts_, _ in bench.ended] == [S, None, 0]
