"""A make-believe inference engine and its GPU in numbers: who is in each step, how long it takes, what it costs whom.

Continuous batching as vLLM does it: a step decodes one token for every running sequence and spends what is left of its
token budget on pieces of waiting prompts (chunked prefill). Everything is integer microjoules over nanoseconds that the
caller passes in, so what each request truly cost is known, which no sensor can say: exactly where the physics are linear, and
else by what runs of other sets of requests would have drawn.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from perjoule.bench.physics import H200, Part, Physics, Roofline
from perjoule.bench.recorded_steps import RECORDED
from perjoule.sidecar.ports import Step
from perjoule.sidecar.units import NS_PER_MS, energy_uj, power_w

PHYSICS: dict[str, Physics] = {"linear": H200, "roofline": Roofline(), "experts": Roofline(experts=0.9), "recorded": RECORDED}


@dataclass(slots=True, eq=False)
class Sequence:
    """One prompt being answered, and what it has cost so far by equal parts of what its steps shared (the truth where the physics
    are linear). Times are None until they come."""

    input_tokens: int
    output_tokens: int  # it will give exactly so many, unless aborted
    queued_ns: int
    scheduled_ns: int | None = None
    first_token_ns: int | None = None
    last_token_ns: int | None = None
    prefilled: int = 0
    generated: int = 0
    prefill_uj: int = 0
    decode_uj: int = 0
    aborted: bool = False

    @property
    def finished(self) -> bool:
        """Whether it takes part in no further step."""
        return self.aborted or (self.prefilled == self.input_tokens and self.generated == self.output_tokens)


class Token(NamedTuple):
    """The `nth` token of a sequence, from 1; 0 says that a sequence which asked for none has had its prefill."""

    sequence: Sequence
    nth: int


class Board:
    """A GPU's energy as NVML shows it: spans of constant power add up, readers see the sum of the last 100 ms tick."""

    def __init__(self, t_ns: int, period_ns: int = 100 * NS_PER_MS) -> None:
        self.total_uj = 0
        self.end_ns = t_ns
        self._origin_ns, self._period_ns = t_ns, period_ns
        self._start_ns, self._span_uj = t_ns, 0
        self._shown = (0, 0)

    def spend(self, end_ns: int, uj: int) -> None:
        """Energy drawn evenly from the end of the last span to `end_ns`, which may lie ahead."""
        self._shown = self.read(self.end_ns)
        self._start_ns, self.end_ns, self._span_uj = self.end_ns, end_ns, uj
        self.total_uj += uj

    def read(self, t_ns: int) -> tuple[int, int]:
        """(counter in microjoules, power in milliwatts) as a reader sees them at `t_ns`, within the last span."""
        tick_ns = t_ns - (t_ns - self._origin_ns) % self._period_ns
        if tick_ns < self._start_ns or self.end_ns == self._start_ns:
            return self._shown
        span_ns, spent_uj = self.end_ns - self._start_ns, self.total_uj - self._span_uj
        return (spent_uj + self._span_uj * (tick_ns - self._start_ns) // span_ns,
                round(power_w(self._span_uj, span_ns) * 1000))


class Simulator:
    """The engine as a state machine. Invariant: `board.total_uj == idle_uj +` the joules of all sequences, always."""

    def __init__(self, t_ns: int, physics: Physics = H200, *, max_num_seqs: int = 64, step_tokens: int = 2048,
                 period_ns: int = 100 * NS_PER_MS, tell: Callable[[Step], None] | None = None) -> None:
        """`tell` is told of each step when it ends, as an engine's plugin tells a sidecar."""
        if not 0 < max_num_seqs <= step_tokens:
            raise ValueError(f"max_num_seqs: got {max_num_seqs}, expected 1 to {step_tokens}, the tokens of one step")
        self.physics, self.max_num_seqs, self.step_tokens = physics, max_num_seqs, step_tokens
        self.board = Board(t_ns, period_ns)
        self.idle_uj = 0
        self.prompt_tokens = self.generation_tokens = 0
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()
        self._yielding: list[Sequence] = []  # who gets a token when the step under way ends
        self._tell, self._took_ns, self._prefill_tokens = tell, 0, 0  # of that step

    @property
    def next_ns(self) -> int | None:
        """When `advance` will next have something to tell; None while there is nothing to do."""
        if self.running:
            return self.board.end_ns
        return self.waiting[0].queued_ns if self.waiting else None

    def submit(self, t_ns: int, input_tokens: int, output_tokens: int) -> Sequence:
        """Queue a prompt; it runs from the first step that has room. Raises ValueError."""
        if input_tokens < 1 or output_tokens < 0:
            raise ValueError(f"got {input_tokens} input and {output_tokens} output tokens, expected at least 1 and 0")
        self.waiting.append(sequence := Sequence(input_tokens, output_tokens, t_ns))
        return sequence

    def abort(self, sequence: Sequence) -> None:
        """Give no more tokens; a step already under way is paid for, like on a GPU."""
        sequence.aborted = True
        if sequence in self.waiting:
            self.waiting.remove(sequence)

    def advance(self, t_ns: int) -> list[Token]:
        """Run until `t_ns`; the tokens that steps ending by then gave, in order."""
        tokens: list[Token] = []
        while True:
            if self.running:
                if self.board.end_ns > t_ns:
                    return tokens
                self._end_step(tokens)
            if self.running or (self.waiting and self.waiting[0].queued_ns <= t_ns):
                if not self.running:
                    self._idle_until(self.waiting[0].queued_ns)
                self._begin_step()
            else:
                self._idle_until(t_ns)
                return tokens

    def _idle_until(self, t_ns: int) -> None:
        if t_ns > self.board.end_ns:
            uj = energy_uj(self.physics.idle_w, t_ns - self.board.end_ns)
            self.idle_uj += uj
            self.board.spend(t_ns, uj)

    def _schedule(self, start_ns: int) -> list[tuple[Sequence, int]]:
        """Who is in the step that starts now, each with its prompt tokens in it, 0 while it decodes."""
        step, budget = [], self.step_tokens
        for sequence in self.running:
            chunk = min(budget, sequence.input_tokens - sequence.prefilled)
            if chunk or sequence.prefilled == sequence.input_tokens:
                step.append((sequence, chunk))
                budget -= chunk or 1
        while budget and len(self.running) < self.max_num_seqs:
            if not self.waiting or self.waiting[0].queued_ns > start_ns:
                break
            sequence = self.waiting.popleft()
            sequence.scheduled_ns = start_ns
            chunk = min(budget, sequence.input_tokens)
            self.running.append(sequence)
            step.append((sequence, chunk))
            budget -= chunk
        return step

    def _begin_step(self) -> None:
        start_ns = self.board.end_ns
        step = self._schedule(start_ns)
        cost = self.physics.step([Part(chunk, sequence.prefilled + sequence.generated) for sequence, chunk in step])
        equal_uj, left_over_uj = divmod(cost.shared_uj, len(step))
        for place, ((sequence, chunk), own_uj) in enumerate(zip(step, cost.own_uj, strict=True)):
            share_uj = own_uj + equal_uj + (place < left_over_uj)
            if chunk:
                sequence.prefill_uj += share_uj
                sequence.prefilled += chunk
            else:
                sequence.decode_uj += share_uj
        self._yielding = [sequence for sequence, _ in step if sequence.prefilled == sequence.input_tokens]
        self._took_ns, self._prefill_tokens = cost.ns, sum(chunk for _, chunk in step)
        self.board.spend(start_ns + cost.ns, cost.shared_uj + sum(cost.own_uj))

    def _end_step(self, tokens: list[Token]) -> None:
        first: list[Sequence] = []
        for sequence in self._yielding:
            if sequence.aborted:
                continue
            if sequence.first_token_ns is None:
                first.append(sequence)
                sequence.first_token_ns = self.board.end_ns
                self.prompt_tokens += sequence.input_tokens
            sequence.last_token_ns = self.board.end_ns
            if sequence.output_tokens:
                sequence.generated += 1
                self.generation_tokens += 1
            tokens.append(Token(sequence, sequence.generated))
        self.running = [sequence for sequence in self.running if not sequence.finished]
        if self._tell is not None:
            self._tell(Step(self.board.end_ns, took_ns=self._took_ns, prefill_tokens=self._prefill_tokens,
                            prompts_tokens=sum(sequence.input_tokens for sequence in first),
                            first_arrivals_ns=tuple(sequence.queued_ns for sequence in first)))
