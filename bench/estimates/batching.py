"""A quick simulation of continuous batching: who shares which step, how long it all takes, and what each request has of it.

Nothing is drawn here, only counted: the four amounts of `sidecar/metering/terms.py` as the meter counts them (a step in which nobody
decodes is none), and seconds. Between two events all steps are alike but for their context, so they are taken in one leap.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import NamedTuple

from perjoule.bench.estimates.asked import Asked
from perjoule.sidecar.metering.terms import Terms

MAX_NUM_SEQS, MAX_NUM_BATCHED_TOKENS = 256, 8192  # vLLM's defaults for a server on a large GPU


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the engine: sequences in a step, prompt and output tokens in a step, and tokens that its memory holds keys and values of.
    `concurrency` is that of a closed loop, None where requests come at their times."""

    sequences: int = MAX_NUM_SEQS
    tokens: int = MAX_NUM_BATCHED_TOKENS
    kv_tokens: float = math.inf
    concurrency: int | None = None


class Share(NamedTuple):
    """One request: its amounts, its part of the time that the engine was busy, and when it came and ended."""

    amounts: Terms
    busy_s: float
    came_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Batched:
    """All of it. `idle_s` is when nothing ran, between the first arrival and the last end."""

    shares: tuple[Share, ...]
    busy_s: float
    idle_s: float
    steps: int

    @property
    def batch(self) -> float:
        """Mean sequences that decode in a step; first tokens come with their prompts."""
        return sum(share.amounts.decode - 1 for share in self.shares) / self.steps if self.steps else 1.0


class _Engine:
    """The state between two events. `steps_each` and `busy_each` rise by what each member gets, so a share is a difference."""

    def __init__(self, asked: Sequence[Asked], prompts: Sequence[float], seconds: Terms, limits: Limits) -> None:
        self.asked, self.prompts, self.seconds, self.limits = asked, prompts, seconds, limits
        self.t_s = self.busy_s = self.idle_s = 0.0
        self.steps = 0
        self.steps_each = self.busy_each = 0.0
        self.context = 0.0  # that the next token of everybody who decodes looks at
        self.kv_tokens = 0.0  # reserved: whoever is let in has room to the end
        self.arrivals: list[tuple[float, int]] = []
        self.waiting: deque[int] = deque()
        self.prefilling: deque[list[float]] = deque()  # place, prompt work left
        self.decoding: list[tuple[int, int]] = []  # step of the last token, place
        self.came: dict[int, tuple[float, float]] = {}  # when, and busy_each when let in
        self.first: dict[int, float] = {}  # steps_each when the first token came
        self.shares: dict[int, Share] = {}
        self.next: dict[int, list[int]] = {}

    def admit(self) -> None:
        while self.arrivals and self.arrivals[0][0] <= self.t_s:
            came_s, i = heappop(self.arrivals)
            self.came[i] = came_s, 0.0
            self.waiting.append(i)
        while self.waiting and len(self.prefilling) + len(self.decoding) < self.limits.sequences:
            i = self.waiting[0]
            needed = self.asked[i].prompt + self.asked[i].output
            if self.kv_tokens + needed > self.limits.kv_tokens and (self.prefilling or self.decoding):
                break
            self.waiting.popleft()
            self.kv_tokens += needed
            self.came[i] = self.came[i][0], self.busy_each
            self.prefilling.append([i, self.prompts[i]])

    def prefill(self) -> None:
        """One step with as much of the prompts, in their order, as fits beside those who decode."""
        running = len(self.decoding)
        room, done = float(max(self.limits.tokens - running, 1)), []
        members, work = running + len(self.prefilling), 0.0
        for one in self.prefilling:
            took = min(one[1], room)
            one[1] -= took
            room, work = room - took, work + took
            if one[1] > 0:
                break
            done.append(int(one[0]))
        for _ in done:
            self.prefilling.popleft()
        looked = sum(self.asked[i].prompt + 0.5 for i in done)
        amounts = Terms(work, float(running > 0), running + len(done), looked + (self.context if running else 0.0))
        self._pass(amounts.dot(self.seconds), members, int(running > 0))
        for i in done:
            self.first[i] = self.steps_each
            if self.asked[i].output > 1:
                heappush(self.decoding, (self.steps + self.asked[i].output - 1, i))
                self.context += self.asked[i].prompt + 1.5
            else:
                self._end(i)

    def decode(self) -> None:
        """All steps until somebody ends or comes."""
        running, left = len(self.decoding), self.decoding[0][0] - self.steps
        _, step, decode, context = self.seconds
        rise = running * context / 2
        each = step + running * decode + self.context * context - rise
        if self.arrivals:
            gap_s = self.arrivals[0][0] - self.t_s
            root = (math.sqrt(each * each + 4 * rise * gap_s) - each) / (2 * rise) if rise > 0 else gap_s / each if each > 0 else left
            left = min(left, max(1, math.ceil(root)))
        self._pass(left * each + rise * left * left, running, left)

    def _pass(self, took_s: float, members: int, steps: int) -> None:
        running = len(self.decoding)
        self.t_s, self.busy_s = self.t_s + took_s, self.busy_s + took_s
        self.busy_each += took_s / members
        if steps:
            self.steps += steps
            self.steps_each += steps / running
            self.context += steps * running
            while self.decoding and self.decoding[0][0] <= self.steps:
                self._end(heappop(self.decoding)[1])

    def _end(self, i: int) -> None:
        one, (came_s, busy_each) = self.asked[i], self.came[i]
        if one.output > 1:
            self.context -= one.prompt + one.output + 0.5
        self.kv_tokens -= one.prompt + one.output
        amounts = Terms(self.prompts[i], self.steps_each - self.first[i], float(one.output), one.output * (one.prompt + one.output / 2))
        self.shares[i] = Share(amounts, self.busy_each - busy_each, came_s, self.t_s)
        for j in self.next.get(i, ()):
            heappush(self.arrivals, (self.t_s + self.asked[j].think_s, j))


def batched(asked: Sequence[Asked], seconds: Terms, limits: Limits = Limits(), prompts: Sequence[float] | None = None) -> Batched:
    """Play requests through an engine whose steps last what `seconds` say of each amount. `prompts` is each prompt's work in prompt
    tokens where that is not its length. In a closed loop times and sessions do not count: the next one comes when one has ended."""
    engine = _Engine(asked, prompts or [float(one.prompt - one.cached) for one in asked], seconds, limits)
    upcoming = iter(range(len(asked)))
    if limits.concurrency is not None:
        engine.arrivals = [(0.0, i) for i in islice(upcoming, limits.concurrency)]
    else:
        engine.arrivals = [(one.at_s or 0.0, i) for i, one in enumerate(asked) if one.follows < 0]
        heapify(engine.arrivals)
        for i, one in enumerate(asked):
            if one.follows >= 0:
                engine.next.setdefault(one.follows, []).append(i)
        upcoming = iter(())
    engine.t_s, ended = engine.arrivals[0][0], 0
    while True:
        for i in islice(upcoming, len(engine.shares) - ended):
            heappush(engine.arrivals, (engine.t_s, i))
        ended = len(engine.shares)
        engine.admit()
        if engine.prefilling:
            engine.prefill()
        elif engine.decoding:
            engine.decode()
        elif engine.arrivals:
            engine.idle_s += engine.arrivals[0][0] - engine.t_s
            engine.t_s = engine.arrivals[0][0]
        else:
            break
    return Batched(tuple(engine.shares[i] for i in range(len(asked))), engine.busy_s, engine.idle_s, engine.steps)
