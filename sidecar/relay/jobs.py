"""The jobs that are being computed after their requests were answered: each is kept until something says that it is over, and then its
record ends, once.

What says so is an answer of the engine, to a client or to the sidecar itself (`process/inquiry`); that the engine cannot be asked any more
or knows no such job; or one of the limits below. Pure: times are monotonic nanoseconds and come as arguments.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from perjoule.sidecar.dialects.jobs import Kind, Opened, Seen, State
from perjoule.sidecar.record import EnergyRecord, Outcome, RequestFacts, TokenSource
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S

MOST_OPEN = 10_000  # some 10 MB; beyond it the oldest is given up
MOST_ENDED = 10_000  # whose record can be asked for by the job's id
SOON_NS, LATER_NS = 500 * NS_PER_MS, 5 * NS_PER_S  # how often a job that may be running is asked after, and one that waits
NEXT_UP = 4  # of those that wait, how many may be running by now: engines take jobs in the order of arrival, one at a time or a few
AT_ONCE = 16  # questions at a time
REFUSED_NS, SILENT_NS = 5 * NS_PER_S, 60 * NS_PER_S  # after which an engine that takes no connection, or gives no answer, is lost
# Times in a row that the engine must not know a job. Several servers may share an address; of ComfyUI's, the queue and the history say it.
SURE = {Kind.VIDEOS: 2, Kind.RESPONSES: 2, Kind.COMFYUI: 1}

_OUTCOMES = {State.COMPLETED: Outcome.COMPLETED, State.FAILED: Outcome.ERRORED, State.CANCELLED: Outcome.CANCELLED}
Key = tuple[Kind, str]


@dataclass(slots=True, eq=False)
class Job:
    """One that is not over. `facts` are those of the request that created it, as of `since_ns`; at `heard_ns` it was not over yet."""

    facts: RequestFacts
    opened: Opened
    since_ns: int
    heard_ns: int
    asked_ns: int
    state: State = State.QUEUED
    removed: bool = False  # a client has asked to take it out of the queue
    unknown: int = 0  # times in a row that the engine did not know it
    failing_ns: int | None = None  # since when nobody has answered

    def end_ns(self, t_ns: int) -> int:
        """That moment as records have it: since the arrival of the request."""
        return self.facts.end_ns + t_ns - self.since_ns

    def known(self, *, is_over: bool) -> "Known":
        """What is told of it."""
        return Known(self.facts.record_id, self.facts.tenant, self.since_ns - self.facts.end_ns, is_over)


@dataclass(frozen=True, slots=True)
class Known:
    """Whose a job is, since when it is there, and whether its record has ended."""

    record_id: str
    tenant: str | None
    since_ns: int
    is_over: bool


class Jobs:
    """`end` is told the facts of each job once it is over, `runs` the record of one that the engine names as the one that it computes;
    `power_w` is what is drawn at that time."""

    def __init__(self, end: Callable[[RequestFacts, int], None], runs: Callable[[str, int], None], power_w: Callable[[int], float | None],
                 longest_ns: int = 24 * 3600 * NS_PER_S) -> None:
        """`longest_ns` is for how long a job is kept."""
        self._end, self._runs, self._power_w, self.longest_ns = end, runs, power_w, longest_ns
        self._open: dict[Key, Job] = {}  # in the order of arrival
        self._ended: OrderedDict[Key, Known] = OrderedDict()
        self._records: set[str] = set()  # of those that are open
        self._late: dict[str, tuple[float, float]] = {}  # by record: how much too late its end was seen, and what was drawn then

    def __len__(self) -> int:
        return len(self._open)

    # what happens

    def open(self, facts: RequestFacts, opened: Opened, t_ns: int) -> None:
        """A request has been answered with the name of a job. A name that comes again is of another job: the earlier can no longer be
        asked after."""
        key = opened.kind, opened.id
        if key in self._open:
            self._over(self._open[key], t_ns, Outcome.ERRORED, "job_id_reused")
        while len(self._open) >= MOST_OPEN:
            self._over(next(iter(self._open.values())), t_ns, Outcome.ERRORED, "too_many_jobs")
        self._ended.pop(key, None)
        self._records.add(facts.record_id)
        self._open[key] = Job(replace(facts, job_id=opened.id), opened, t_ns, t_ns, t_ns)

    def saw(self, kind: Kind, job_id: str, seen: Seen, t_ns: int, *, asked_by_us: bool = False) -> None:
        """An answer has said something of a job. What is said after it was over, or of another's, changes nothing; and that the engine
        does not know it is only believed where it was asked with the credential of who created it."""
        job = self._open.get((kind, job_id))
        if job is None:
            return
        if seen.state is State.GONE:
            if asked_by_us:
                self._unknown(job, t_ns)
            return
        job.unknown, job.failing_ns = 0, None
        outcome = _OUTCOMES.get(seen.state)
        if outcome is None:
            if seen.state is State.RUNNING is not job.state and kind is Kind.COMFYUI:  # others say so of jobs that wait further inside
                self._runs(job.facts.record_id, t_ns)
            job.state, job.heard_ns = seen.state, max(job.heard_ns, t_ns)
        else:
            self._over(job, t_ns, outcome, seen.error, seen)

    def waits(self, job: Job, t_ns: int) -> None:
        """The engine was asked, and the job is not over; more was not said, not even that it knows it."""
        job.heard_ns, job.failing_ns = max(job.heard_ns, t_ns), None

    def removed(self, kind: Kind, job_ids: Iterable[str], t_ns: int) -> None:
        """A client has asked to take these out of the queue, all if none is named. If the engine then does not know them, that is why."""
        named = set(job_ids)
        for job in self._open.values():
            if job.opened.kind is kind and (not named or job.opened.id in named):
                job.removed, job.asked_ns = True, min(job.asked_ns, t_ns - LATER_NS)

    def unanswered(self, job: Job, t_ns: int, *, refused: bool) -> None:
        """The engine was asked and gave no answer; `refused`: it took no connection."""
        if job.failing_ns is None:
            job.failing_ns = t_ns
        elif t_ns - job.failing_ns >= (REFUSED_NS if refused else SILENT_NS) and self.has(job):
            self._over(job, t_ns, Outcome.ERRORED, "upstream_lost")

    def tick(self, t_ns: int) -> None:
        """Time has passed: who was kept for too long is given up."""
        while self._open and t_ns - (oldest := next(iter(self._open.values()))).since_ns >= self.longest_ns:
            self._over(oldest, t_ns, Outcome.ERRORED, "job_timeout")

    def close(self, t_ns: int) -> None:
        """The sidecar stops: all end with what they have cost by now."""
        for job in list(self._open.values()):
            self._over(job, t_ns, Outcome.ERRORED, "shutdown")

    # questions

    def due(self, t_ns: int) -> list[Job]:
        """Whom to ask after now; they count as asked. Who was heard of by a client's own question is left alone."""
        first: list[Job] = []
        others: list[Job] = []
        for place, job in enumerate(self._open.values()):
            every_ns = SOON_NS if place < NEXT_UP or job.state is State.RUNNING else LATER_NS
            if t_ns - max(job.asked_ns, job.heard_ns if not job.removed else 0) >= every_ns:
                (first if place < NEXT_UP else others).append(job)
        others.sort(key=lambda job: job.asked_ns)
        due = (first + others)[:AT_ONCE]
        for job in due:
            job.asked_ns = t_ns
        return due

    def has(self, job: Job) -> bool:
        """Whether it is still open."""
        return self._open.get((job.opened.kind, job.opened.id)) is job

    def known(self, kind: Kind, job_id: str) -> Known | None:
        """Whose job that is, None for one that is not ours."""
        job = self._open.get((kind, job_id))
        return job.known(is_over=False) if job is not None else self._ended.get((kind, job_id))

    def record_of(self, job_id: str) -> str | None:
        """The record of a job that is over, by its id alone."""
        found = (self._ended.get((kind, job_id)) for kind in Kind)
        return next((known.record_id for known in found if known is not None), None)

    def is_open(self, record_id: str) -> bool:
        """Whether a record is of a job that is not over."""
        return record_id in self._records

    def widen(self, record: EnergyRecord) -> None:
        """Add to the uncertainty of a settled record what it was charged with after its job's end, until that was seen."""
        if not self._late:
            return
        (late_ns, power_w), charge, facts = self._late.pop(record.facts.record_id, (0, 0.0)), record.charge, record.facts
        ran_ns = facts.end_ns - (facts.queue_ns or 0)
        if late_ns and ran_ns > 0 and charge.energy_uj is not None and charge.uncertainty_uj is not None:
            uj_per_ns = max(charge.energy_uj / (ran_ns + late_ns), power_w / 1000)  # it may have waited for most of that, or run no more
            record.charge = replace(charge, uncertainty_uj=round(math.hypot(charge.uncertainty_uj, late_ns * uj_per_ns)))

    # inside

    def _unknown(self, job: Job, t_ns: int) -> None:
        job.unknown += 1
        if job.removed:
            self._over(job, t_ns, Outcome.CANCELLED, None)
        elif job.unknown >= SURE[job.opened.kind]:
            self._over(job, t_ns, Outcome.ERRORED, "job_lost")

    def _over(self, job: Job, t_ns: int, outcome: Outcome, error_type: str | None, seen: Seen | None = None) -> None:
        key, facts = (job.opened.kind, job.opened.id), job.facts
        del self._open[key]
        self._records.discard(facts.record_id)
        self._ended[key] = job.known(is_over=True)
        while len(self._ended) > MOST_ENDED:
            self._ended.popitem(last=False)
        end_ns = seen_ns = job.end_ns(t_ns)
        if seen is not None:
            since_ns, end_ns = _between(job, seen, seen_ns)
            most, least = seen_ns - since_ns, seen_ns - end_ns
            late_ns = math.sqrt((most * most + most * least + least * least) / 3)  # root mean square of anything between
            self._late[facts.record_id] = late_ns, self._power_w(t_ns) or 0.0
            facts = _with_told(facts, seen, end_ns)
        if outcome is not Outcome.COMPLETED:
            facts = replace(facts, units=None, units_source=None)
        self._end(replace(facts, end_ns=end_ns, outcome=outcome, error_type=error_type), t_ns)


def _between(job: Job, seen: Seen, end_ns: int) -> tuple[int, int]:
    """Between which moments it ended: it was not over when last heard of, and was when that was seen; the engine's own time narrows it
    where it agrees with ours."""
    since_ns, until_ns = job.end_ns(job.heard_ns), end_ns
    if seen.ended_unix_ns is not None:
        first_ns, last_ns = (unix_ns - job.facts.arrival_unix_ns for unix_ns in seen.ended_unix_ns)
        if first_ns <= until_ns and last_ns >= since_ns:
            return max(since_ns, first_ns), min(until_ns, last_ns)
    return since_ns, until_ns


def _with_told(facts: RequestFacts, seen: Seen, end_ns: int) -> RequestFacts:
    """With what the engine has said of its work: for how long it waited, how many tokens it was."""
    if seen.began_unix_ns is not None:
        facts = replace(facts, queue_ns=min(max(seen.began_unix_ns - facts.arrival_unix_ns, 0), end_ns))
    if (usage := seen.usage) is not None:
        if usage.input_tokens is not None:
            facts = replace(facts, input_tokens=usage.input_tokens, input_source=TokenSource.USAGE, cached_tokens=usage.cached_tokens)
        if usage.output_tokens is not None:
            facts = replace(facts, output_tokens=usage.output_tokens, output_source=TokenSource.USAGE,
                            reasoning_tokens=usage.reasoning_tokens)
    return facts
