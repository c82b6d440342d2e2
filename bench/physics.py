"""What one step of an inference engine takes and draws: linear or roofline-shaped; bench/recorded_steps.py has it as measured.

A step is a set of sequences, each with prompt tokens to compute or one token to decode. What it costs has a part of each member's own
and a shared one, which the simulator splits equally. That is the Shapley value of a linear step, exactly; of other steps the fair
share is that of whole runs, and bench/sampled_shapley.py has it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from perjoule.sidecar.units import energy_uj


class Part(NamedTuple):
    """What one sequence does in a step."""

    prefill: int  # prompt tokens computed; 0 while it decodes one token
    context: int  # tokens before them, whose keys and values are read


class Cost(NamedTuple):
    """What a step takes and draws, static draw included: `shared_uj` and the sum of `own_uj`, one for each member."""

    ns: int
    shared_uj: int
    own_uj: list[int]


class Physics(ABC):
    """One model on one GPU. `idle_w` is drawn while there is no step."""

    idle_w: float

    @abstractmethod
    def step(self, parts: Sequence[Part]) -> Cost:
        """The cost of a step of at least one member."""

    def at_speed(self, speed: float) -> "Physics":
        """The same physics as a film at another speed: at 0.25 steps last four times longer, their joules stay and the
        watts are a quarter. Raises ValueError."""
        if speed <= 0:
            raise ValueError(f"speed: got {speed}, expected more than 0")
        return AtSpeed(self, speed)


class AtSpeed(Physics):
    """Other physics, faster or slower."""

    def __init__(self, real: Physics, speed: float) -> None:
        self._real, self._speed = real, speed
        self.idle_w = real.idle_w * speed

    def step(self, parts: Sequence[Part]) -> Cost:
        cost = self._real.step(parts)
        return cost._replace(ns=round(cost.ns / self._speed))


@dataclass(frozen=True)
class Linear(Physics):
    """A step costs `step_uj` once plus what each member adds; shaped like an 8B model under vLLM on one H200."""

    step_uj: int = 1_700_000
    prefill_token_uj: int = 14_000
    decode_token_uj: int = 20_000
    context_token_uj: int = 20  # for every token of context that a decoded token looks at
    step_ns: int = 5_000_000
    prefill_token_ns: int = 30_000
    idle_w: float = 127.0

    def step(self, parts: Sequence[Part]) -> Cost:
        own_uj = [prefill * self.prefill_token_uj if prefill else self.decode_token_uj + context * self.context_token_uj
                  for prefill, context in parts]
        return Cost(self.step_ns + sum(prefill for prefill, _ in parts) * self.prefill_token_ns, self.step_uj, own_uj)


@dataclass(frozen=True)
class Roofline(Physics):
    """A step lasts as long as reading (weights once, every member's keys and values) or computing, whichever is longer, and what
    the shorter one would have drawn is hidden: max(memory, compute), for the joules as for the time.

    The numbers are those of 8 billion parameters in bf16 on an H200 at 80 % of 4.8 TB/s and 50 % of 989 TFLOP/s. With `experts`,
    that share of the weights is of experts, each of which a token needs with the chance `routed`, so a larger step reads more.
    """

    weights_ns: float = 4_200_000
    cached_token_ns: float = 34.0  # 131 kB of keys and values
    token_ns: float = 32_000
    attention_ns: float = 1.06  # for every pair of tokens; 524 kFLOP
    memory_w: float = 340.0  # above the static draw
    compute_w: float = 470.0
    idle_w: float = 120.0  # static: drawn during steps, too
    experts: float = 0.0
    routed: float = 0.0625

    def step(self, parts: Sequence[Part]) -> Cost:
        reading = [context * self.cached_token_ns for _, context in parts]
        computing = [(prefill or 1) * (self.token_ns + (context + prefill / 2) * self.attention_ns) for prefill, context in parts]
        memory_ns, compute_ns = sum(reading) + self._weights_ns(parts), sum(computing)
        ns = round(max(memory_ns, compute_ns))
        memory_uj, compute_uj = energy_uj(self.memory_w, round(memory_ns)), energy_uj(self.compute_w, round(compute_ns))
        own, own_w = (computing, self.compute_w) if compute_uj > memory_uj else (reading, self.memory_w)
        own_uj = [int(own_w * own_ns / 1000) for own_ns in own]
        return Cost(ns, energy_uj(self.idle_w, ns) + max(memory_uj, compute_uj) - sum(own_uj), own_uj)

    def _weights_ns(self, parts: Sequence[Part]) -> float:
        tokens = sum(prefill or 1 for prefill, _ in parts)
        return self.weights_ns * (1 - self.experts * (1 - self.routed) ** tokens)


H200 = Linear()
