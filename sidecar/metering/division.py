"""One pool of boards and what runs on it: its windows divided among its requests, by a schedule and a calibration of its own."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from perjoule.sidecar.metering.account import Account, Balance, Rule
from perjoule.sidecar.metering.attribution import apportion
from perjoule.sidecar.metering.calibration import Calibration
from perjoule.sidecar.metering.group import Group, Split
from perjoule.sidecar.metering.history import Drawn, History
from perjoule.sidecar.metering.pace import Pace
from perjoule.sidecar.metering.pools import Pool, Stage
from perjoule.sidecar.metering.schedule import Look, Schedule
from perjoule.sidecar.metering.steady_state import Activity, Phase
from perjoule.sidecar.metering.terms import Terms
from perjoule.sidecar.metering.timeline import Window
from perjoule.sidecar.metering.weighing import MICRO, PROMPT_TOKENS, costs, prices, weigh
from perjoule.sidecar.metering.work import Work
from perjoule.sidecar.ports import Device
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S, joules, nearest

HOLD_NS = 100 * NS_PER_MS  # how long a window waits for the step that was under way when it ended, while a record waits for the window
PATIENCE_NS = NS_PER_S  # and while none does: a step of 8192 prompt tokens takes 200 ms


@dataclass(slots=True)
class Share:
    """Who shares a window, with how much of each term, for how long each was there, and how long anybody was."""

    works: list[Work]
    amounts: list[Terms]
    ran_ns: list[int]
    busy_ns: int


class Division:
    """Divides the windows of one group of boards. What requests get goes into their accounts, and all of it into the balance."""

    def __init__(self, pool: Pool, group: Group, *, method: str, pace: Pace, calibration: Calibration | None = None,
                 history: History | None = None) -> None:
        self.pool, self.group, self.calibration, self.history = pool, group, calibration or Calibration(), history or History()
        self.schedule = Schedule(pace)
        self.accounts: dict[Work, Account] = {}  # running, and ended but not settled
        self.uuids = tuple(device.uuid for device in group.devices)
        self.balance = Balance()
        self._method = method
        self._ended = 0  # of them
        self._missed_ns = 0  # until when somebody ran of whom a window is missing

    def reads(self, devices: Sequence[Device], t_ns: int, period_ns: int, wrap_uj: int | None) -> None:
        """These boards are its group from now on. What was computed before that is not charged."""
        self.group = Group(devices, period_ns, wrap_uj, self.group.steady.max_num_seqs)
        self.uuids = tuple(device.uuid for device in devices)
        if self.accounts:
            since_ns = min(work.begin_ns for work in self.accounts)
            self.schedule.commit(self.schedule.look(since_ns, t_ns, t_ns), since_ns, t_ns)

    # requests

    def begin(self, work: Work, account: Account) -> None:
        """A request runs here from now on."""
        self.schedule.begin(work)
        self.accounts[work] = account

    def end(self, work: Work, t_ns: int, output_tokens: int | None, *, failed: bool, done: bool) -> None:
        """It has ended."""
        self.schedule.end(work, t_ns, output_tokens, failed=failed, done=done)
        self._ended += 1

    def forget(self, settled: Collection[Work]) -> None:
        """These have been settled."""
        self.schedule.forget(settled)
        for work in settled:
            if self.accounts[work].missed and work.end_ns is not None:
                self._missed_ns = max(self._missed_ns, work.end_ns)
            del self.accounts[work]
        self._ended -= len(settled)

    @property
    def in_flight(self) -> int:
        """Requests that run here now."""
        return len(self.accounts) - self._ended

    # windows

    def advance(self, t_ns: int) -> bool:
        """Divide the windows that are ripe. Answers whether there was one."""
        waiting, before_ns = self.group.waiting, self.group.divided_ns
        hold_ns = HOLD_NS if self._ended else PATIENCE_NS
        while waiting and (t_ns >= waiting[0].t1_ns + hold_ns or self.schedule.is_known_until(waiting[0].t1_ns)):
            self._divide(waiting.popleft(), t_ns)
        return self.group.divided_ns != before_ns

    def past(self, t_ns: int) -> tuple[int, int]:
        """Up to when every window has been divided, and up to when none is waited for any more: where that is later, the counter has
        fallen silent."""
        group = self.group
        divided_ns = -1 if group.divided_ns is None else group.divided_ns  # -1: none has been yet
        is_silent = not group.waiting and t_ns >= group.changed_ns + group.silence_ns
        return divided_ns, max(divided_ns, t_ns - group.silence_ns) if is_silent else divided_ns

    def provisional(self, work: Work, t_ns: int) -> tuple[int, int]:
        """What windows that have not been divided will cost a request, by all that can be told now: energy, and active energy."""
        group = self.group
        drawn = group.undivided(work.begin_ns, t_ns)
        if not drawn.shared_uj:
            return 0, 0
        since_ns = max(group.divided_ns or 0, work.begin_ns)
        terms = self._here(self.schedule.glance(work, since_ns, t_ns))
        if self.pool.stage is not None and terms.is_nothing:
            return 0, 0
        mine = int(terms.dot(self._price) * MICRO) or int(terms.is_nothing)
        # The others weigh what all did in the last window: weighing each of them anew would cost each end of a request
        # time in proportion to those in flight, for a median difference of 0.2 % (on recordings of an H200).
        whole = max(mine, 0 if len(self.accounts) == 1 else nearest(group.weight_per_ns * (t_ns - since_ns))) or 1
        return drawn.shared_uj * mine // whole, drawn.active_uj * mine // whole

    # inside

    @property
    def _price(self) -> Terms:
        """What one of each term weighs here. Of prefill alone, prompts are all there is to weigh, whatever the method."""
        return PROMPT_TOKENS if self.pool.stage is Stage.PREFILL else prices(self._method, self.calibration.coefficients)

    def _here(self, terms: Terms) -> Terms:
        """What of a request is computed here."""
        if self.pool.stage is None:
            return terms
        if self.pool.stage is Stage.PREFILL:
            return Terms(terms.prefill, 0.0, 0.0, 0.0)
        return Terms(0.0, terms.steps, terms.decode, terms.context)

    def _share_of(self, look: Look, t0_ns: int, t1_ns: int) -> Share:
        """Who was here in a window: a request is in the prefill pool until its prompt is done, and in the decode pool from then on."""
        stage = self.pool.stage
        if stage is None:
            return Share(look.works, look.amounts, look.ran_ns, look.busy_ns)
        here: list[tuple[Work, Terms, int, int]] = []
        for work, terms, since_ns in zip(look.works, look.amounts, look.decoding_ns, strict=True):
            until_ns = work.ran_until(t1_ns)
            if stage is Stage.PREFILL:
                since_ns, until_ns = max(work.begin_ns, t0_ns), min(since_ns, until_ns)
            if since_ns < until_ns:
                here.append((work, self._here(terms), since_ns, until_ns))
        busy_ns = _union(sorted((since_ns, until_ns) for _, _, since_ns, until_ns in here), t0_ns, t1_ns)
        return Share([each[0] for each in here], [each[1] for each in here], [each[3] - each[2] for each in here], busy_ns)

    def _divide(self, window: Window, now_ns: int) -> None:
        """Give a window's microjoules to those who ran in it, to idle, or to nobody."""
        t0_ns, t1_ns, group, balance = window.t0_ns, window.t1_ns, self.group, self.balance
        group.divided_ns = t1_ns
        balance.measured_uj += window.energy_uj
        look = self.schedule.look(t0_ns, t1_ns, now_ns)
        share = self._share_of(look, t0_ns, t1_ns)
        # Of two stages, both are as steady as the traffic that goes through them.
        phase = None if window.gap and look.busy_ns else group.steady.feed(_activity(window, look))
        # Those who ran while the counter was silent have been settled without it: what it then shows was not drawn by nobody.
        if not share.busy_ns and not (window.gap and self._missed_ns > t0_ns):
            drawn = Drawn(phase, window.energy_uj, 0, 0.0, {}, {})
            balance.idle_uj += window.energy_uj
            group.weight_per_ns = 0.0
            if not window.gap:
                group.saw_idle(window)
        elif window.gap:
            drawn = Drawn(phase, 0, window.energy_uj, 0.0, {}, {})
            balance.unattributed_uj += window.energy_uj
            for work in share.works:
                self.accounts[work].missed = True
        else:
            drawn = self._give(window, group.split(window, share.busy_ns), share, phase)
        self.history.add(t0_ns, t1_ns, drawn)
        self.schedule.commit(look, t0_ns, t1_ns)

    def _give(self, window: Window, split: Split, share: Share, phase: Phase | None) -> Drawn:
        """Divide a window among those who ran in it."""
        group, span_ns, amounts, is_steady = self.group, window.t1_ns - window.t0_ns, share.amounts, phase is Phase.STEADY
        total = Terms(sum((terms.prefill for terms in amounts), 0.0), sum((terms.steps for terms in amounts), 0.0),
                      sum((terms.decode for terms in amounts), 0.0), sum((terms.context for terms in amounts), 0.0))
        model, price = self.calibration.coefficients, self._price
        weights = weigh(amounts, price, share.works)
        group.weight_per_ns = sum(weights) / span_ns
        given_uj = split.shared_uj
        if is_steady:
            group.steady_uj, group.steady_tokens = group.steady_uj + split.shared_uj, group.steady_tokens + total.decode
        elif self._method == "steady-rate":
            given_uj = group.at_steady_rate(total.decode, split.shared_uj)
        parts = apportion(given_uj, weights)
        active_uj, most_uj = min(split.active_uj, given_uj), max(given_uj, 1)
        active_parts = [part_uj * active_uj // most_uj for part_uj in parts]
        cost = total.dot(model) or 1.0
        rule = Rule(price, model, Terms(*(amount * each / cost for amount, each in zip(total, model, strict=True))))
        model_parts = parts if price is model else [split.shared_uj * each / cost for each in costs(amounts, model)]
        origin_ns, alone = group.origin_ns or 0, len(amounts) == 1
        models: dict[str | None, int] = {}
        tenants: dict[str | None, int] = {}
        told = self.schedule.believes
        for i, work in enumerate(share.works):
            account, part_uj, ran_ns = self.accounts[work], parts[i], share.ran_ns[i]
            account.add(amounts[i], part_uj, active_parts[i], model_parts[i], rule, steady_ns=ran_ns if is_steady else 0, alone=alone,
                        whole=ran_ns == span_ns, told=told)
            models[account.model] = models.get(account.model, 0) + part_uj
            tenants[account.tenant] = tenants.get(account.tenant, 0) + part_uj
            if work.begin_ns < origin_ns:
                account.missed = True
        balance = self.balance
        balance.idle_uj += split.idle_uj
        balance.requests_uj += sum(parts)
        balance.unattributed_uj += split.shared_uj - sum(parts)
        if group.idle_w is not None:
            self.calibration.learn(total, joules(split.active_uj), window.t1_ns, span_ns)
        return Drawn(phase, split.idle_uj, split.shared_uj - sum(parts), total.decode, models, tenants)


def _activity(window: Window, look: Look) -> Activity:
    """A window's traffic, for the steady-state detector."""
    t0_ns, t1_ns = window.t0_ns, window.t1_ns
    joined = decoding = waiting = 0
    for work in look.works:
        joined_ns = work.first_ns if work.visible and work.decodes else work.begin_ns
        is_in = joined_ns is not None and joined_ns <= t1_ns
        joined += is_in and joined_ns is not None and joined_ns > t0_ns
        if work.end_ns is None or work.end_ns > t1_ns:
            decoding += is_in
            waiting += not is_in
    tokens = sum(terms.decode for terms in look.amounts)
    return Activity(t0_ns, t1_ns, sum(look.ran_ns), int(tokens * MICRO), joined, decoding, waiting)


def _union(spans: Iterable[tuple[int, int]], t0_ns: int, t1_ns: int) -> int:
    """Nanoseconds of (t0, t1] that at least one of these spans within it covers; they come in the order of their beginnings."""
    covered_ns, upto_ns = 0, t0_ns
    for begin_ns, end_ns in spans:
        if end_ns > upto_ns:
            covered_ns += end_ns - max(begin_ns, upto_ns)
            upto_ns = end_ns
            if upto_ns == t1_ns:
                break
    return covered_ns
