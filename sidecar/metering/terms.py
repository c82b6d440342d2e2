"""The four amounts of computing that an engine's energy depends on, and, in the same shape, what a unit of each costs.

E = prefill tokens · e_p + steps · e_s + decode tokens · e_d + decode tokens · context · e_k: a prompt token costs floating-point
work; a step reads all weights once, for whoever is in it; an output token costs a little of its own; and it reads the keys and
values of every token before it (Vellaisamy, arXiv 2608.28044; throttLL'eM, arXiv 2408.05235; measured in docs/attribution.md).
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(slots=True)  # no tuple, and not frozen: that takes several times as long to make, and every request of every window has one
class Terms:
    """As amounts: of one request or of all, in some time. As coefficients: joules, or any unit, for one of each."""

    prefill: float  # prompt tokens computed
    steps: float  # steps of the engine; of one request, the sum over its steps of 1 / (sequences in the step)
    decode: float  # output tokens
    context: float  # for every output token, the tokens that it looked at

    def dot(self, other: "Terms") -> float:
        """Amounts times coefficients."""
        return self.prefill * other.prefill + self.steps * other.steps + self.decode * other.decode + self.context * other.context

    def plus(self, other: "Terms") -> "Terms":
        """The sum, term by term."""
        return Terms(self.prefill + other.prefill, self.steps + other.steps, self.decode + other.decode, self.context + other.context)

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was computed."""
        return not (self.prefill or self.steps or self.decode or self.context)

    def __iter__(self) -> Iterator[float]:
        """In this order."""
        return iter((self.prefill, self.steps, self.decode, self.context))


NOTHING = Terms(0.0, 0.0, 0.0, 0.0)
