"""The meter: requests and readings in, one settled EnergyRecord for each request out; the joules add up at every moment.

A request is running from `begin` to `end`. A window (from change to change of one device's counter) is divided once everything
about it is known or `HOLD_NS` after its end, whichever is first. A request is settled when every device's windows up to its end
have been divided. Methods are events; all times are monotonic nanoseconds, and events come in the order of time.
"""

from collections import deque
from collections.abc import Sequence
from statistics import quantiles

from perjoule.sidecar.account import Account, Balance
from perjoule.sidecar.attribution import apportion
from perjoule.sidecar.pace import Pace
from perjoule.sidecar.ports import Device, Reading
from perjoule.sidecar.record import Charge, EnergyRecord, RequestFacts, Status, TokenSource
from perjoule.sidecar.steady_state import Activity, Phase, SteadyStateDetector
from perjoule.sidecar.timeline import Timeline, Window
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S, energy_uj, power_w
from perjoule.sidecar.weighing import weigh
from perjoule.sidecar.work import MICRO, Curve, Work

HOLD_NS = 100 * NS_PER_MS  # how long a window waits for the next token of those who ran in it
SILENCE_NS = NS_PER_S  # a counter that says nothing for this long after a request's end is not waited for
IDLE_WINDOWS = 40  # idle windows that the loaded idle power is learned from


class Board:
    """One device: its counter, the windows that wait to be divided, and what it draws when nothing runs."""

    def __init__(self, device: Device, period_ns: int, wrap_uj: int | None, max_num_seqs: int) -> None:
        self.device = device
        self.timeline = Timeline(period_ns, wrap_uj)
        self.waiting: deque[Window] = deque()
        self.divided_ns: int | None = None  # windows up to here have been divided
        self.steady = SteadyStateDetector(max_num_seqs)
        self.phase = Phase.IDLE
        self._idle_w: deque[float] = deque(maxlen=IDLE_WINDOWS)

    def saw_idle(self, window: Window) -> None:
        self._idle_w.append(power_w(window.energy_uj, window.t1_ns - window.t0_ns))

    @property
    def idle_w(self) -> float | None:
        """The loaded idle: the lower quartile of idle windows, since the engine's tail after an abort is idle time too."""
        return quantiles(self._idle_w, n=4)[0] if len(self._idle_w) > 1 else self._idle_w[0] if self._idle_w else None


class Meter:
    """The state machine. Without devices it still answers a record for each request, with energy `unavailable`."""

    def __init__(self, devices: Sequence[Device] = (), *, source: str = "none", status: Status = Status.UNAVAILABLE, boundary: str = "",
                 period_ns: int = 100 * NS_PER_MS, wrap_uj: int | None = None, method: str = "token-share", max_num_seqs: int = 0) -> None:
        self.boards = [Board(device, period_ns, wrap_uj, max_num_seqs) for device in devices]
        self.balance = Balance()
        self.pace = Pace()
        self._source, self._status, self._boundary, self._method = source, status, boundary, method
        self._uuids = tuple(device.uuid for device in devices)
        self._open: dict[str, Account] = {}  # running, and ended but not settled, in the order of arrival
        self._running = 0
        self._busy = Curve(0)  # nanoseconds during which something ran
        self._busy_since_ns = 0
        self._integral = 0  # of running requests over time
        self._integral_ns = 0

    # events

    def begin(self, record_id: str, t_ns: int, *, model: str | None = None, streamed: bool = True, input_tokens: int | None = None,
              input_bytes: int = 0, choices: int = 1) -> None:
        """A request has arrived. `streamed` says that its tokens will be seen as they come."""
        tokens = input_tokens if input_tokens is not None else input_bytes / self.pace.bytes_per_token.value
        self._count(t_ns)
        if self._running == 0:
            self._busy_since_ns = t_ns
        self._running += 1
        work = Work(t_ns, visible=streamed, prompt_tokens=tokens, choices=choices)
        self._open[record_id] = Account(record_id, work, model, t_ns, 0 if input_tokens is not None else input_bytes, self._integral)

    def prompt(self, record_id: str, tokens: int, cached: int) -> None:
        """The engine has said how long the prompt is, and how much of it was cached and cost no prefill."""
        account = self._open[record_id]
        if account.input_bytes:
            self.pace.bytes_per_token.learn(account.input_bytes, tokens)
        account.work.know_prompt(max(0, tokens - cached))

    def tokens(self, record_id: str, t_ns: int, count: int) -> None:
        """`count` frames with output have become visible."""
        work = self._open[record_id].work
        start_ns = work.begin_ns
        if work.first_ns is None:
            start_ns = self.pace.prefill_start(work.begin_ns, t_ns)
            self.pace.learn_prefill(work.prompt / MICRO, t_ns - start_ns)
        work.show(t_ns, count * self.pace.tokens_per_frame.value, start_ns)

    def end(self, record_id: str, t_ns: int, facts: RequestFacts) -> list[EnergyRecord]:
        """A request has ended, and this is what is known of it. Answers the records that are settled by now."""
        account = self._open[record_id]
        self._count(t_ns)
        self._running -= 1
        if self._running == 0:
            self._busy.grow(self._busy_since_ns, t_ns, t_ns - self._busy_since_ns)
        account.facts = facts
        account.concurrency_mean = (self._integral - account.running_integral) / max(t_ns - account.begin_ns, 1)
        failed = facts.http_status is not None and facts.http_status >= 400
        counted = facts.output_tokens if facts.output_source is TokenSource.USAGE else None
        account.work.finish(t_ns, counted, prefill_per_s=self.pace.prefill_per_s.value, decode_per_s=self.pace.decode_per_s.value,
                            failed=failed)
        self._learn(account, facts)
        return self._advance(t_ns)

    def sample(self, readings: Sequence[Reading]) -> list[EnergyRecord]:
        """The counters have been read, one reading for each device in order. Answers the records that are settled by now."""
        for board, reading in zip(self.boards, readings, strict=True):
            window = board.timeline.add(reading)
            if board.divided_ns is None and board.timeline.origin_ns is not None:
                board.divided_ns = board.timeline.origin_ns
            if window is not None:
                board.waiting.append(window)
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
    def power_w(self) -> float | None:
        """What the boards draw now, None if that is not known."""
        powers = [board.timeline.power_w for board in self.boards]
        return sum(p for p in powers if p is not None) if any(p is not None for p in powers) else None

    @property
    def running(self) -> list[Account]:
        """The accounts of the requests running now."""
        return [account for account in self._open.values() if account.facts is None]

    @property
    def unsettled(self) -> int:
        """Requests that run or have ended and wait for their last window."""
        return len(self._open)

    def expected_prompt(self, record_id: str) -> int | None:
        """How many tokens the prompt is thought to have, from its bytes; None where there was no text."""
        account = self._open[record_id]
        return round(account.input_bytes / self.pace.bytes_per_token.value) or None

    def charge(self, record_id: str, t_ns: int) -> Charge:
        """What an open request has cost up to now: provisional, since the last windows are not divided yet."""
        if not self.boards:
            return Charge(Status.UNAVAILABLE, self._method, self._source, settled=True)
        account = self._open[record_id]
        open_uj = open_active_uj = 0
        for board in self.boards:
            since_ns = max(board.divided_ns or t_ns, account.begin_ns)
            if since_ns >= t_ns:
                continue
            drawn_uj = sum(w.energy_uj for w in board.waiting) + board.timeline.energy_since_change(t_ns)
            span_ns = t_ns - (board.divided_ns or t_ns)
            drawn_uj = drawn_uj * (t_ns - since_ns) // span_ns
            weights = weigh([a.work for a in self._open.values()], since_ns, t_ns, self.pace)
            mine = next(w.total for w in weights if w.work is account.work)
            whole = sum(w.total for w in weights)
            share_uj = drawn_uj * mine // whole if whole else 0
            open_uj += share_uj
            idle_uj = energy_uj(board.idle_w or 0.0, t_ns - since_ns)
            open_active_uj += max(0, drawn_uj - idle_uj) * mine // whole if whole else 0
        alive = all((board.timeline.changed_ns or -SILENCE_NS) > t_ns - SILENCE_NS for board in self.boards)
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
        if work.first_ns is not None:
            self.pace.tokens_per_frame.learn(facts.output_tokens, work.seen / MICRO / self.pace.tokens_per_frame.value)
            self.pace.learn_decode(facts.output_tokens / work.choices, work.end_ns - work.first_ns)
        elif not work.visible:
            self.pace.learn_decode(facts.output_tokens / work.choices, work.end_ns - work.begin_ns)

    def _advance(self, t_ns: int) -> list[EnergyRecord]:
        """Divide the windows that are ripe, settle the requests that wait for no window any more."""
        for board in self.boards:
            while board.waiting and self._is_ripe(board.waiting[0], t_ns):
                self._divide(board, board.waiting.popleft())
        settled = [account for account in self._open.values() if self._is_settled(account, t_ns)]
        for account in settled:
            del self._open[account.record_id]
        return [EnergyRecord(account.facts, self._charge(account, settled=True)) for account in settled if account.facts is not None]

    def _is_ripe(self, window: Window, t_ns: int) -> bool:
        if t_ns >= window.t1_ns + HOLD_NS:
            return True
        return all(account.work.is_known_until(window.t1_ns) for account in self._open.values() if account.begin_ns < window.t1_ns)

    def _divide(self, board: Board, window: Window) -> None:
        """Give a window's microjoules to those who ran in it, to idle, or to nobody."""
        t0_ns, t1_ns, drawn_uj = window.t0_ns, window.t1_ns, window.energy_uj
        board.divided_ns = t1_ns
        accounts = [a for a in self._open.values() if a.begin_ns < t1_ns and (a.work.end_ns is None or a.work.end_ns > t0_ns)]
        self.balance.measured_uj += drawn_uj
        busy_ns = self._busy_between(t0_ns, t1_ns)
        if window.gap and busy_ns:
            for account in accounts:
                account.missed = True
            self.balance.unattributed_uj += drawn_uj
            return
        if not busy_ns:
            self.balance.idle_uj += drawn_uj
            board.phase = board.steady.feed(Activity(t0_ns, t1_ns, 0, 0))
            if not window.gap:
                board.saw_idle(window)
            return
        span_ns = t1_ns - t0_ns
        idle_w = board.idle_w
        idle_uj = min(drawn_uj, energy_uj(idle_w, span_ns - busy_ns)) if idle_w is not None else 0
        shared_uj = drawn_uj - idle_uj
        active_uj = max(0, shared_uj - energy_uj(idle_w, busy_ns)) if idle_w is not None else 0
        weights = weigh([a.work for a in accounts], t0_ns, t1_ns, self.pace)
        totals = [weight.total for weight in weights]
        running_ns = sum(min(a.work.end_ns or t1_ns, t1_ns) - max(a.begin_ns, t0_ns) for a in accounts)
        board.phase = board.steady.feed(Activity(t0_ns, t1_ns, running_ns, sum(weight.decode for weight in weights)))
        steady_ns = span_ns if board.phase is Phase.STEADY else 0
        parts, active_parts = apportion(shared_uj, totals), apportion(active_uj, totals)
        for account, weight, part_uj, active_part_uj in zip(accounts, weights, parts, active_parts, strict=True):
            # At its first and last window a request pays for the part it ran in, which is known to a tenth of a window or so.
            inside_ns = min(account.work.end_ns or t1_ns, t1_ns) - max(account.begin_ns, t0_ns)
            edge_uj = drawn_uj // 10 * weight.total // (sum(totals) or 1) if inside_ns < span_ns else 0
            account.add(weight, part_uj, active_part_uj, steady_ns=min(steady_ns, inside_ns), alone=len(accounts) == 1, edge_uj=edge_uj)
            account.missed |= board.timeline.origin_ns is not None and account.begin_ns < board.timeline.origin_ns
            account.work.freeze(t0_ns, t1_ns, weight.guessed_prefill, weight.guessed_decode)
        self.balance.idle_uj += idle_uj
        self.balance.requests_uj += sum(parts)
        self.balance.unattributed_uj += shared_uj - sum(parts)

    def _busy_between(self, t0_ns: int, t1_ns: int) -> int:
        """Nanoseconds of (t0, t1] during which something ran."""
        past_ns = self._busy.between(t0_ns, t1_ns)
        self._busy.forget(t0_ns)
        return past_ns + (max(0, t1_ns - max(t0_ns, self._busy_since_ns)) if self._running else 0)

    def _is_settled(self, account: Account, t_ns: int) -> bool:
        end_ns = account.work.end_ns
        if end_ns is None:
            return False
        for board in self.boards:
            if board.divided_ns is not None and board.divided_ns >= end_ns:
                continue
            seen_ns = board.timeline.changed_ns
            if t_ns < max(end_ns, seen_ns or 0) + SILENCE_NS or board.waiting:
                return False
            account.missed = True
        return True

    def _charge(self, account: Account, *, settled: bool, alive: bool = False, open_uj: int = 0, open_active_uj: int = 0) -> Charge:
        return account.charge(self._status if self.boards else Status.UNAVAILABLE, method=self._method, source=self._source,
                              boundary=self._boundary, devices=self._uuids, settled=settled, alive=alive, open_uj=open_uj,
                              open_active_uj=open_active_uj, idle_known=all(board.idle_w is not None for board in self.boards))
