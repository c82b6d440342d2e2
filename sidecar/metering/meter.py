"""The meter: requests and readings in, one settled EnergyRecord for each request out; the joules add up at every moment.

A request is running from `begin` to `end`. It runs in one pool of boards, or in two that compute its prompt and its output. A window
(from change to change of a pool's counters) is divided once everything about it is known, or a moment after its end if somebody waits
for it. A request is settled when the windows of its pools up to its end have been divided. Methods are events; all times are monotonic
nanoseconds, and events come in the order of time.
"""

from collections import defaultdict
from collections.abc import Sequence

from perjoule.sidecar.metering.account import Account
from perjoule.sidecar.metering.calibration import Calibration
from perjoule.sidecar.metering.division import Division
from perjoule.sidecar.metering.group import Group
from perjoule.sidecar.metering.history import History
from perjoule.sidecar.metering.open_request import Open
from perjoule.sidecar.metering.pace import Pace
from perjoule.sidecar.metering.pooled import Pooled
from perjoule.sidecar.metering.pools import ONE_POOL, Pools
from perjoule.sidecar.metering.work import Work
from perjoule.sidecar.ports import Device, Reading, Step
from perjoule.sidecar.record import Charge, EnergyRecord, Outcome, RequestFacts, Status, TokenSource
from perjoule.sidecar.units import NS_PER_MS, nearest

LOOK_NS = 100 * NS_PER_MS  # how often it is looked whether a counter has fallen silent, for which nobody waits any longer


class Meter(Pooled):
    """The state machine. Without devices it still answers a record for each request, with energy `unavailable`."""

    def __init__(self, devices: Sequence[Device] = (), *, pools: Pools = ONE_POOL, source: str = "none",
                 status: Status = Status.UNAVAILABLE, boundary: str = "", period_ns: int = 100 * NS_PER_MS, wrap_uj: int | None = None,
                 method: str = "step-model", max_num_seqs: int = 0, calibration: Calibration | None = None) -> None:
        """`pools` says which of the devices serve what. `calibration` is what one pool begins with; several begin with physics."""
        self.pace = Pace()
        self._pools = pools
        self._places: list[list[int]] = [[] for _ in pools.pools]
        self.history = History(len(pools.pools))
        super().__init__([
            Division(pool, Group((), period_ns, wrap_uj, max_num_seqs), method=method, pace=self.pace, history=self.history,
                     calibration=calibration if len(pools.pools) == 1 else None)
            for pool in pools.pools])
        self.begun = 0  # requests so far
        ranked = [division for division in self.divisions if division.pool.rank is not None]
        self._by_rank: dict[int | None, Division] = {division.pool.rank: division for division in ranked}
        self._source, self._status, self._boundary, self._method = source, status, boundary, method
        self._has_source = False
        self._every_uuid: tuple[str, ...] = ()
        self._open: dict[str, Open] = {}  # running, and ended but not settled, in the order of arrival
        self._ended: list[Open] = []  # of them, those that wait for their last window
        self._look_ns = 0  # when they are next asked whether they are settled, if no window is divided before
        self._running = 0
        self._integral = 0  # of running requests over time
        self._integral_ns = 0
        if devices:
            self.reads(devices, 0, source=source, status=status, boundary=boundary, period_ns=period_ns, wrap_uj=wrap_uj)

    # events

    def reads(self, devices: Sequence[Device], t_ns: int, *, source: str, status: Status, boundary: str, period_ns: int,
              wrap_uj: int | None) -> None:
        """From now on there are these boards, of which nothing was known before: what was computed by now, no window of theirs pays for.
        Raises ValueError for pools that they do not have."""
        self._places = self._pools.places(devices)
        self._source, self._status, self._boundary, self._has_source = source, status, boundary, True
        self._every_uuid = tuple(device.uuid for device in devices)
        for division, places in zip(self.divisions, self._places, strict=True):
            division.reads([devices[place] for place in places], t_ns, period_ns, wrap_uj)
        for open_ in self._open.values():
            open_.devices = self._every_uuid if len(self.divisions) > 1 else open_.divisions[-1].uuids

    def begin(self, record_id: str, t_ns: int, *, model: str | None = None, streamed: bool = True, input_tokens: int | None = None,
              input_bytes: int = 0, choices: int = 1, decodes: bool = True, rank: int | None = None, tenant: str | None = None) -> None:
        """A request has arrived. `streamed` says that its tokens will be seen as they come, `decodes` that there will be any: one that
        is all prompt is done when it ends; `rank` where the client sent it."""
        tokens = input_tokens if input_tokens is not None else input_bytes / self.pace.bytes_per_token.value
        self._count(t_ns)
        self.begun += 1
        self._running += 1
        divisions = self._serving(rank)
        work = Work(t_ns, visible=streamed, prompt_tokens=float(tokens), choices=choices, decodes=decodes)
        account = Account(record_id, work, model, 0 if input_tokens is not None else input_bytes, self._integral, tenant)
        last = divisions[-1]
        self._open[record_id] = open_ = Open(account, divisions, [(last, work)], last.schedule, last.uuids)
        if len(self.divisions) > 1 and rank not in self._by_rank:
            open_.devices = self._every_uuid
            account.missed = bool(self._by_rank)  # it was another rank, perhaps
        if len(divisions) > 1:
            open_.twin = Work(t_ns, visible=streamed, prompt_tokens=float(tokens), choices=choices, decodes=decodes)
            open_.runs.append((divisions[0], open_.twin))
        for division, each in open_.runs:
            each.is_measured = input_tokens is not None
            division.begin(each, account)

    def prompt(self, record_id: str, tokens: int, cached: int) -> None:
        """The engine has said how long the prompt is, and how much of it was cached and cost no prefill."""
        for _, work in self._open[record_id].runs:
            work.know_prompt(tokens, cached)  # how many bytes a token had is learned once, at the end

    def goes_first(self, record_id: str) -> None:
        """The engine has said that it computes this one, whoever came before it and is not done."""
        for division, work in self._open[record_id].runs:
            division.schedule.queue.goes_first(work)

    def tokens(self, record_id: str, t_ns: int, count: int) -> None:
        """`count` frames with output have become visible."""
        open_ = self._open[record_id]
        open_.schedule.show(open_.account.work, t_ns, count)  # called for every frame of every stream: no loop over one
        if open_.twin is not None:
            open_.divisions[0].schedule.show(open_.twin, t_ns, count)

    def step(self, step: Step) -> None:
        """The engine itself has told of a step. Of two stages, and of a rank without boards, that is of no use."""
        division = self._by_rank.get(step.rank) if self._by_rank else self.divisions[0] if len(self.divisions) == 1 else None
        if division is not None:
            division.schedule.step(step)

    def end(self, record_id: str, t_ns: int, facts: RequestFacts) -> list[EnergyRecord]:
        """A request has ended, and this is what is known of it. Answers the records that are settled by now."""
        open_ = self._open[record_id]
        account = open_.account
        self._count(t_ns)
        self._running -= 1
        if facts.input_tokens is None and (estimate := nearest(account.input_bytes / self.pace.bytes_per_token.value)):
            facts.input_tokens, facts.input_source = estimate, TokenSource.ESTIMATED
        account.facts = facts
        account.concurrency_mean = (self._integral - account.running_integral) / max(t_ns - account.begin_ns, 1)
        failed = facts.http_status is not None and facts.http_status >= 400
        counted = facts.output_tokens if facts.output_source is TokenSource.USAGE else None
        for division, work in open_.runs:
            division.end(work, t_ns, counted, failed=failed, done=facts.outcome is Outcome.COMPLETED)
        account.teach(self.pace)
        open_.end_ns = t_ns
        self._ended.append(open_)
        return self._advance(t_ns)

    def sample(self, readings: Sequence[Reading]) -> list[EnergyRecord]:
        """The counters have been read, one reading for each device in order. Answers the records that are settled by now."""
        for division, places in zip(self.divisions, self._places, strict=True):
            division.group.add([readings[place] for place in places])
        return self._advance(max(reading.t_after_ns for reading in readings))

    def tick(self, t_ns: int) -> list[EnergyRecord]:
        """Time has passed. Answers the records that are settled by now."""
        return self._advance(t_ns)

    # questions

    @property
    def in_flight(self) -> int:
        """Requests running now."""
        return self._running

    @property
    def running(self) -> list[Account]:
        """The accounts of the requests running now."""
        return [open_.account for open_ in self._open.values() if open_.account.facts is None]

    @property
    def unsettled(self) -> int:
        """Requests that run or have ended and wait for their last window."""
        return len(self._open)

    def settling(self, any_id: str) -> str | None:
        """The record id of a request, named by it or by the client's request id, that has ended and waits for its last window."""
        ended = (open_.account for open_ in reversed(self._ended))
        return next((a.record_id for a in ended if a.facts and any_id in (a.record_id, a.facts.request_id)), None)

    def charge(self, record_id: str, t_ns: int) -> Charge:
        """What an open request has cost up to now: provisional, since the last windows are not divided yet."""
        if not self._has_source:
            return Charge(Status.UNAVAILABLE, self._method, self._source, settled=True)
        open_ = self._open[record_id]
        open_uj = open_active_uj = 0
        alive = True
        for division, work in open_.runs:
            more_uj, more_active_uj = division.provisional(work, t_ns)
            open_uj, open_active_uj = open_uj + more_uj, open_active_uj + more_active_uj
            alive = alive and division.group.is_alive(t_ns)
        return self._charge(open_, settled=False, alive=alive, open_uj=open_uj, open_active_uj=open_active_uj)

    # inside

    def _count(self, t_ns: int) -> None:
        self._integral += self._running * (t_ns - self._integral_ns)
        self._integral_ns = t_ns

    def _serving(self, rank: int | None) -> list[Division]:
        """Where a request runs. Of ranks, on the one that it names; else the engine's own balancer chooses, which looks for the one
        with the fewest, as we do."""
        if not self._by_rank:
            return self.divisions
        return [self._by_rank.get(rank) or min(self.divisions, key=lambda division: division.in_flight)]

    def _advance(self, t_ns: int) -> list[EnergyRecord]:
        """Divide the windows that are ripe, settle the requests that wait for no window any more."""
        has_divided = False
        for division in self.divisions:
            has_divided = division.advance(t_ns) or has_divided
        if not self._ended or (self._has_source and t_ns < self._look_ns and not has_divided):
            return []  # thousands may end between two windows: they are not all asked again at each end
        self._look_ns = t_ns + LOOK_NS
        past = {division: division.past(t_ns) for division in self.divisions}
        upto_ns = max([given_up_ns for _, given_up_ns in past.values()]) if self._has_source else t_ns
        settled = [open_ for open_ in self._ended if open_.end_ns <= upto_ns and self._is_settled(open_, past)]
        if not settled:
            return []
        gone: defaultdict[Division, list[Work]] = defaultdict(list)
        for open_ in settled:
            del self._open[open_.account.record_id]
            for division, work in open_.runs:
                gone[division].append(work)
        for division, works in gone.items():
            division.forget(works)
        self._ended = [open_ for open_ in self._ended if open_.account.record_id in self._open]
        return [EnergyRecord(open_.account.facts, self._charge(open_, settled=True)) for open_ in settled if open_.account.facts]

    def _is_settled(self, open_: Open, past: dict[Division, tuple[int, int]]) -> bool:
        """Whether no window that it ran in is waited for, by what every division says of the `past`."""
        if not self._has_source:
            return True
        for division in open_.divisions:
            divided_ns, given_up_ns = past[division]
            if open_.end_ns > given_up_ns:
                return False
            if open_.end_ns > divided_ns:
                open_.account.missed = True
        return True

    def _charge(self, open_: Open, *, settled: bool, alive: bool = False, open_uj: int = 0, open_active_uj: int = 0) -> Charge:
        calibration = open_.divisions[-1].calibration
        return open_.account.charge(
            self._status if self._has_source else Status.UNAVAILABLE, method=self._method, source=self._source, boundary=self._boundary,
            devices=open_.devices, settled=settled, alive=alive, open_uj=open_uj, open_active_uj=open_active_uj,
            idle_known=all(division.group.idle_w is not None for division in open_.divisions),
            covariance=calibration.relative_covariance, window_error=calibration.window_error,
            calibration_id=calibration.id if self._method == "step-model" else None)
