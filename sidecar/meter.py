"""The meter: requests and readings in, one settled EnergyRecord for each request out; the joules add up at every moment.

A request is running from `begin` to `end`. A window (from change to change of one device's counter) is divided once everything
about it is known or `HOLD_NS` after its end, whichever is first. A request is settled when every device's windows up to its end
have been divided. Methods are events; all times are monotonic nanoseconds, and events come in the order of time.
"""

from collections.abc import Sequence

from perjoule.sidecar.account import Account, Balance
from perjoule.sidecar.attribution import apportion
from perjoule.sidecar.board import Board, Split
from perjoule.sidecar.pace import Pace
from perjoule.sidecar.ports import Device, Reading
from perjoule.sidecar.record import Charge, EnergyRecord, RequestFacts, Status, TokenSource
from perjoule.sidecar.steady_state import Activity, Phase
from perjoule.sidecar.timeline import Window
from perjoule.sidecar.units import NS_PER_MS, NS_PER_S
from perjoule.sidecar.weighing import weigh
from perjoule.sidecar.work import MICRO, Curve, Work

HOLD_NS = 100 * NS_PER_MS  # how long a window waits for the next token of those who ran in it
SILENCE_NS = NS_PER_S  # a counter that says nothing for this long after a request's end is not waited for


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
        self._ended: list[Account] = []  # of them, those that wait for their last window
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
        self._open[record_id] = Account(record_id, work, model, 0 if input_tokens is not None else input_bytes, self._integral)

    def prompt(self, record_id: str, tokens: int, cached: int) -> None:
        """The engine has said how long the prompt is, and how much of it was cached and cost no prefill."""
        self._open[record_id].work.know_prompt(max(0, tokens - cached))  # how many bytes a token had is learned once, at the end

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
        self._ended.append(account)
        return self._advance(t_ns)

    def sample(self, readings: Sequence[Reading]) -> list[EnergyRecord]:
        """The counters have been read, one reading for each device in order. Answers the records that are settled by now."""
        for board, reading in zip(self.boards, readings, strict=True):
            board.add(reading)
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
        powers = [board.timeline.power_w for board in self.boards if self._is_alive(board, t_ns)]
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
        if not self.boards:
            return Charge(Status.UNAVAILABLE, self._method, self._source, settled=True)
        account = self._open[record_id]
        open_uj = open_active_uj = 0
        for board in self.boards:
            drawn = board.undivided(account.begin_ns, t_ns)
            if not drawn.shared_uj:
                continue
            since_ns = max(board.divided_ns or 0, account.begin_ns)
            mine = weigh([account.work], since_ns, t_ns, self.pace)[0].total
            # The others weigh what all did in the last window: weighing each of them anew would cost each end of a request
            # time in proportion to those in flight, for a median difference of 0.2 % (on recordings of an H200).
            whole = mine if len(self._open) == 1 else max(mine, round(board.weight_per_ns * (t_ns - since_ns)))
            open_uj += drawn.shared_uj * mine // whole
            open_active_uj += drawn.active_uj * mine // whole
        alive = all(self._is_alive(board, t_ns) for board in self.boards)
        return self._charge(account, settled=False, alive=alive, open_uj=open_uj, open_active_uj=open_active_uj)

    # inside

    @staticmethod
    def _is_alive(board: Board, t_ns: int) -> bool:
        """Whether its counter has moved lately."""
        changed_ns = board.timeline.changed_ns
        return changed_ns is not None and changed_ns > t_ns - SILENCE_NS

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
        settled = [account for account in self._ended if self._is_settled(account, t_ns)]
        if settled:
            self._ended = [account for account in self._ended if account not in settled]
        for account in settled:
            del self._open[account.record_id]
        return [EnergyRecord(account.facts, self._charge(account, settled=True)) for account in settled if account.facts is not None]

    def _is_ripe(self, window: Window, t_ns: int) -> bool:
        if t_ns >= window.t1_ns + HOLD_NS:
            return True
        return all(account.work.is_known_until(window.t1_ns) for account in self._open.values() if account.begin_ns < window.t1_ns)

    def _divide(self, board: Board, window: Window) -> None:
        """Give a window's microjoules to those who ran in it, to idle, or to nobody."""
        t0_ns, t1_ns = window.t0_ns, window.t1_ns
        board.divided_ns = t1_ns
        self.balance.measured_uj += window.energy_uj
        accounts = [a for a in self._open.values() if a.begin_ns < t1_ns and (a.work.end_ns is None or a.work.end_ns > t0_ns)]
        busy_ns = self._busy_between(t0_ns, t1_ns)
        if not busy_ns:
            self.balance.idle_uj += window.energy_uj
            board.weight_per_ns = 0.0
            board.steady.feed(Activity(t0_ns, t1_ns, 0, 0))
            if not window.gap:
                board.saw_idle(window)
        elif window.gap:
            self.balance.unattributed_uj += window.energy_uj
            for account in accounts:
                account.missed = True
        else:
            self._share(board, window, board.split(window, busy_ns), accounts)

    def _share(self, board: Board, window: Window, split: Split, accounts: Sequence[Account]) -> None:
        """Divide a window among those who ran in it."""
        t0_ns, t1_ns = window.t0_ns, window.t1_ns
        weights = weigh([a.work for a in accounts], t0_ns, t1_ns, self.pace)
        totals = [weight.total for weight in weights]
        inside_ns = [min(a.work.end_ns or t1_ns, t1_ns) - max(a.begin_ns, t0_ns) for a in accounts]
        is_steady = board.steady.feed(Activity(t0_ns, t1_ns, sum(inside_ns), sum(w.decode for w in weights))) is Phase.STEADY
        board.weight_per_ns = sum(totals) / (t1_ns - t0_ns)
        parts, active_parts = apportion(split.shared_uj, totals), apportion(split.active_uj, totals)
        for account, weight, ran_ns, part_uj, active_uj in zip(accounts, weights, inside_ns, parts, active_parts, strict=True):
            account.add(weight, part_uj, active_uj, steady_ns=ran_ns if is_steady else 0, alone=len(accounts) == 1,
                        whole=ran_ns == t1_ns - t0_ns)
            account.missed |= account.begin_ns < (board.timeline.origin_ns or 0)
            account.work.freeze(t0_ns, t1_ns, weight.guessed_prefill, weight.guessed_decode)
        self.balance.idle_uj += split.idle_uj
        self.balance.requests_uj += sum(parts)
        self.balance.unattributed_uj += split.shared_uj - sum(parts)

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
