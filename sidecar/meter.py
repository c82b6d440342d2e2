"""The meter: requests and readings in, one settled EnergyRecord for each request out; the joules add up at every moment.

A request is running from `begin` to `end`. A window (from change to change of the counters) is divided once everything about it is
known, or `HOLD_NS` after its end if somebody waits for it. A request is settled when the windows up to its end have been divided. Methods
are events; all times are monotonic nanoseconds, and events come in the order of time.
"""

from collections.abc import Sequence

from perjoule.sidecar.account import Account, Balance, Rule
from perjoule.sidecar.attribution import apportion
from perjoule.sidecar.calibration import Calibration
from perjoule.sidecar.group import SILENCE_NS, Group, Split
from perjoule.sidecar.ports import Device, Reading
from perjoule.sidecar.record import Charge, EnergyRecord, RequestFacts, Status, TokenSource
from perjoule.sidecar.schedule import Look, Schedule
from perjoule.sidecar.steady_state import Activity, Phase
from perjoule.sidecar.terms import Terms
from perjoule.sidecar.timeline import Window
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S, joules
from perjoule.sidecar.weighing import MICRO, costs, prices, weigh
from perjoule.sidecar.work import Work

HOLD_NS = 100 * NS_PER_MS  # how long a window waits for the step that was under way when it ended, while a record waits for the window
PATIENCE_NS = NS_PER_S  # and while none does: a step of 8192 prompt tokens takes 200 ms


class Meter:
    """The state machine. Without devices it still answers a record for each request, with energy `unavailable`."""

    def __init__(self, devices: Sequence[Device] = (), *, source: str = "none", status: Status = Status.UNAVAILABLE, boundary: str = "",
                 period_ns: int = 100 * NS_PER_MS, wrap_uj: int | None = None, method: str = "step-model", max_num_seqs: int = 0,
                 calibration: Calibration | None = None) -> None:
        self.groups = [Group(devices, period_ns, wrap_uj, max_num_seqs)] if devices else []
        self.schedule = Schedule()
        self.pace = self.schedule.pace
        self.calibration = calibration or Calibration()
        self.balance = Balance()
        self._source, self._status, self._boundary, self._method = source, status, boundary, method
        self._uuids = tuple(device.uuid for device in devices)
        self._open: dict[str, Account] = {}  # running, and ended but not settled, in the order of arrival
        self._by_work: dict[Work, Account] = {}
        self._ended: list[Account] = []  # of them, those that wait for their last window
        self._running = 0
        self._integral = 0  # of running requests over time
        self._integral_ns = 0

    # events

    def begin(self, record_id: str, t_ns: int, *, model: str | None = None, streamed: bool = True, input_tokens: int | None = None,
              input_bytes: int = 0, choices: int = 1) -> None:
        """A request has arrived. `streamed` says that its tokens will be seen as they come."""
        tokens = input_tokens if input_tokens is not None else input_bytes / self.pace.bytes_per_token.value
        self._count(t_ns)
        self._running += 1
        work = Work(t_ns, visible=streamed, prompt_tokens=float(tokens), choices=choices)
        self.schedule.begin(work)
        account = Account(record_id, work, model, 0 if input_tokens is not None else input_bytes, self._integral)
        self._open[record_id] = self._by_work[work] = account

    def prompt(self, record_id: str, tokens: int, cached: int) -> None:
        """The engine has said how long the prompt is, and how much of it was cached and cost no prefill."""
        self._open[record_id].work.know_prompt(tokens, cached)  # how many bytes a token had is learned once, at the end

    def tokens(self, record_id: str, t_ns: int, count: int) -> None:
        """`count` frames with output have become visible."""
        self.schedule.show(self._open[record_id].work, t_ns, count)

    def end(self, record_id: str, t_ns: int, facts: RequestFacts) -> list[EnergyRecord]:
        """A request has ended, and this is what is known of it. Answers the records that are settled by now."""
        account = self._open[record_id]
        self._count(t_ns)
        self._running -= 1
        account.facts = facts
        account.concurrency_mean = (self._integral - account.running_integral) / max(t_ns - account.begin_ns, 1)
        failed = facts.http_status is not None and facts.http_status >= 400
        counted = facts.output_tokens if facts.output_source is TokenSource.USAGE else None
        self.schedule.end(account.work, t_ns, counted, failed=failed)
        self._learn(account, facts)
        self._ended.append(account)
        return self._advance(t_ns)

    def sample(self, readings: Sequence[Reading]) -> list[EnergyRecord]:
        """The counters have been read, one reading for each device in order. Answers the records that are settled by now."""
        for group in self.groups:
            group.add(readings)
        return self._advance(max(reading.t_after_ns for reading in readings))

    def tick(self, t_ns: int) -> list[EnergyRecord]:
        """Time has passed. Answers the records that are settled by now."""
        return self._advance(t_ns)

    # questions

    @property
    def in_flight(self) -> int:
        """Requests running now."""
        return self._running

    def power_w(self, t_ns: int) -> float | None:
        """What the boards draw now, None if that is not known, or not any more."""
        powers = [group.power_w for group in self.groups if group.is_alive(t_ns)]
        return sum(power for power in powers if power is not None) if powers and None not in powers else None

    @property
    def running(self) -> list[Account]:
        """The accounts of the requests running now."""
        return [account for account in self._open.values() if account.facts is None]

    @property
    def unsettled(self) -> int:
        """Requests that run or have ended and wait for their last window."""
        return len(self._open)

    def settling(self, any_id: str) -> str | None:
        """The record id of a request, named by it or by the client's request id, that has ended and waits for its last window."""
        return next((a.record_id for a in reversed(self._ended) if a.facts and any_id in (a.record_id, a.facts.request_id)), None)

    def expected_prompt(self, record_id: str) -> int | None:
        """How many tokens the prompt is thought to have, from its bytes; None where there was no text."""
        account = self._open[record_id]
        return round(account.input_bytes / self.pace.bytes_per_token.value) or None

    def charge(self, record_id: str, t_ns: int) -> Charge:
        """What an open request has cost up to now: provisional, since the last windows are not divided yet."""
        if not self.groups:
            return Charge(Status.UNAVAILABLE, self._method, self._source, settled=True)
        account = self._open[record_id]
        price = prices(self._method, self.calibration.coefficients)
        open_uj = open_active_uj = 0
        for group in self.groups:
            drawn = group.undivided(account.begin_ns, t_ns)
            if not drawn.shared_uj:
                continue
            since_ns = max(group.divided_ns or 0, account.begin_ns)
            mine = weigh([self.schedule.glance(account.work, since_ns, t_ns)], price)[0]
            # The others weigh what all did in the last window: weighing each of them anew would cost each end of a request
            # time in proportion to those in flight, for a median difference of 0.2 % (on recordings of an H200).
            whole = mine if len(self._open) == 1 else max(mine, round(group.weight_per_ns * (t_ns - since_ns)))
            open_uj += drawn.shared_uj * mine // max(whole, 1)
            open_active_uj += drawn.active_uj * mine // max(whole, 1)
        alive = all(group.is_alive(t_ns) for group in self.groups)
        return self._charge(account, settled=False, alive=alive, open_uj=open_uj, open_active_uj=open_active_uj)

    # inside

    def _count(self, t_ns: int) -> None:
        self._integral += self._running * (t_ns - self._integral_ns)
        self._integral_ns = t_ns

    def _learn(self, account: Account, facts: RequestFacts) -> None:
        """Rates from a request whose true counts are known."""
        work = account.work
        if facts.input_source is TokenSource.USAGE and facts.input_tokens and account.input_bytes:
            self.pace.bytes_per_token.learn(account.input_bytes, facts.input_tokens)
        if facts.output_source is not TokenSource.USAGE or not facts.output_tokens or work.end_ns is None:
            return
        if work.shown and work.first_ns is not None:
            self.pace.tokens_per_frame.learn(facts.output_tokens, work.shown)
            self.pace.learn_decode(facts.output_tokens / work.choices, work.end_ns - work.first_ns)
        elif not work.visible:
            self.pace.learn_decode(facts.output_tokens / work.choices, work.end_ns - work.begin_ns)

    def _advance(self, t_ns: int) -> list[EnergyRecord]:
        """Divide the windows that are ripe, settle the requests that wait for no window any more."""
        for group in self.groups:
            while group.waiting and self._is_ripe(group.waiting[0], t_ns):
                self._divide(group, group.waiting.popleft())
        settled = [account for account in self._ended if self._is_settled(account, t_ns)]
        if settled:
            self._ended = [account for account in self._ended if account not in settled]
        for account in settled:
            del self._open[account.record_id], self._by_work[account.work]
            self.schedule.forget(account.work)
        return [EnergyRecord(account.facts, self._charge(account, settled=True)) for account in settled if account.facts is not None]

    def _is_ripe(self, window: Window, t_ns: int) -> bool:
        hold_ns = HOLD_NS if self._ended else PATIENCE_NS
        return t_ns >= window.t1_ns + hold_ns or self.schedule.is_known_until(window.t1_ns)

    def _divide(self, group: Group, window: Window) -> None:
        """Give a window's microjoules to those who ran in it, to idle, or to nobody."""
        t0_ns, t1_ns = window.t0_ns, window.t1_ns
        group.divided_ns = t1_ns
        self.balance.measured_uj += window.energy_uj
        look = self.schedule.look(t0_ns, t1_ns)
        if not look.busy_ns:
            self.balance.idle_uj += window.energy_uj
            group.weight_per_ns = 0.0
            group.steady.feed(Activity(t0_ns, t1_ns, 0, 0, 0, 0, 0))
            if not window.gap:
                group.saw_idle(window)
        elif window.gap:
            self.balance.unattributed_uj += window.energy_uj
            for work in look.works:
                self._by_work[work].missed = True
        else:
            self._share(group, window, group.split(window, look.busy_ns), look)
        self.schedule.commit(look, t0_ns, t1_ns)

    def _share(self, group: Group, window: Window, split: Split, look: Look) -> None:
        """Divide a window among those who ran in it."""
        span_ns, amounts = window.t1_ns - window.t0_ns, look.amounts
        total = Terms(*map(sum, zip(*amounts, strict=True)))
        is_steady = group.steady.feed(_activity(window, look, total)) is Phase.STEADY
        model = self.calibration.coefficients
        price = prices(self._method, model)
        weights = weigh(amounts, price)
        group.weight_per_ns = sum(weights) / span_ns
        given_uj = split.shared_uj
        if is_steady:
            group.steady_uj, group.steady_tokens = group.steady_uj + split.shared_uj, group.steady_tokens + total.decode
        elif self._method == "steady-rate":
            given_uj = group.at_steady_rate(total.decode, split.shared_uj)
        parts, active_parts = apportion(given_uj, weights), apportion(min(split.active_uj, given_uj), weights)
        cost = total.dot(model) or 1.0
        rule = Rule(price, model, Terms(*(amount * each / cost for amount, each in zip(total, model, strict=True))))
        model_parts = parts if price is model else [split.shared_uj * each / cost for each in costs(amounts, model)]
        origin_ns, alone = group.origin_ns or 0, len(amounts) == 1
        for work, terms, ran_ns, part_uj, active_uj, model_uj in zip(look.works, amounts, look.ran_ns, parts, active_parts, model_parts,
                                                                     strict=True):
            account = self._by_work[work]
            account.add(terms, part_uj, active_uj, model_uj, rule, steady_ns=ran_ns if is_steady else 0, alone=alone,
                        whole=ran_ns == span_ns)
            if work.begin_ns < origin_ns:
                account.missed = True
        self.balance.idle_uj += split.idle_uj
        self.balance.requests_uj += sum(parts)
        self.balance.unattributed_uj += split.shared_uj - sum(parts)
        if group.idle_w is not None:
            self.calibration.learn(total, joules(split.active_uj), window.t1_ns, span_ns)

    def _is_settled(self, account: Account, t_ns: int) -> bool:
        end_ns = account.work.end_ns
        if end_ns is None:
            return False
        for group in self.groups:
            if group.divided_ns is not None and group.divided_ns >= end_ns:
                continue
            if t_ns < max(end_ns, group.changed_ns) + SILENCE_NS or group.waiting:
                return False
            account.missed = True
        return True

    def _charge(self, account: Account, *, settled: bool, alive: bool = False, open_uj: int = 0, open_active_uj: int = 0) -> Charge:
        calibration = self.calibration
        return account.charge(self._status if self.groups else Status.UNAVAILABLE, method=self._method, source=self._source,
                              boundary=self._boundary, devices=self._uuids, settled=settled, alive=alive, open_uj=open_uj,
                              open_active_uj=open_active_uj, idle_known=all(group.idle_w is not None for group in self.groups),
                              covariance=calibration.relative_covariance,
                              calibration_id=calibration.id if self._method == "step-model" else None)


def _activity(window: Window, look: Look, total: Terms) -> Activity:
    """A window's traffic, for the steady-state detector."""
    t0_ns, t1_ns = window.t0_ns, window.t1_ns
    joined = decoding = waiting = 0
    for work in look.works:
        joined_ns = work.first_ns if work.visible else work.begin_ns
        is_in = joined_ns is not None and joined_ns <= t1_ns
        joined += is_in and joined_ns is not None and joined_ns > t0_ns
        if work.end_ns is None or work.end_ns > t1_ns:
            decoding += is_in
            waiting += not is_in
    return Activity(t0_ns, t1_ns, sum(look.ran_ns), int(total.decode * MICRO), joined, decoding, waiting)
