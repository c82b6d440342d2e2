"""What traffic has taught so far: bytes a token, tokens a frame, how fast prompts are computed and tokens follow each other.

All of it is used only where the engine has not (yet) said better, and everything learned is forgotten slowly, so that another
model behind the same port is learned within some dozens of requests.
"""

from perjoule.sidecar.units import NS_PER_S

KEEP = 0.95  # of what was learned before, at each new observation
KEEP_PEAK = 0.98
PRIOR_BYTES_PER_TOKEN = 4.0  # English under byte-pair encodings
PRIOR_PREFILL_PER_S = 10_000.0  # tokens; an 8B model does 25,000 on an H200, a tiny one 5,000 on two CPU cores
PRIOR_DECODE_PER_S = 50.0  # tokens of one sequence
SAME_STEP_NS = 5_000_000  # first tokens that arrive this close together come from one step of the engine


class Ratio:
    """A ratio of sums with forgetting: large observations count for more, as they should."""

    __slots__ = ("_above", "_below")

    def __init__(self, prior: float, weight: float) -> None:
        self._above, self._below = prior * weight, weight

    def learn(self, above: float, below: float) -> None:
        if above > 0 and below > 0:
            self._above = self._above * KEEP + above
            self._below = self._below * KEEP + below

    @property
    def value(self) -> float:
        return self._above / self._below


class Peak:
    """The highest of late: for a rate of which every observation is too low, since others were served in the same time."""

    __slots__ = ("value",)

    def __init__(self, prior: float) -> None:
        self.value = prior

    def learn(self, above: float, below: float) -> None:
        if above > 0 and below > 0:
            self.value = max(self.value * KEEP_PEAK, above / below)


class Pace:
    """The rates of one engine."""

    def __init__(self) -> None:
        self.bytes_per_token = Ratio(PRIOR_BYTES_PER_TOKEN, 25.0)
        self.tokens_per_frame = Ratio(1.0, 10.0)
        self.prefill_per_s = Peak(PRIOR_PREFILL_PER_S)
        self.decode_per_s = Ratio(PRIOR_DECODE_PER_S, 0.1)
        self._group_start_ns = 0
        self._group_ns = 0

    def prefill_start(self, begin_ns: int, first_token_ns: int) -> int:
        """When the computing of a prompt began whose first token came at `first_token_ns`: engines take prompts in the order
        of arrival, so not before the request itself, and not before the previous prompt was done."""
        if first_token_ns - self._group_ns > SAME_STEP_NS:
            self._group_start_ns = self._group_ns
        self._group_ns = first_token_ns
        return max(begin_ns, self._group_start_ns)

    @property
    def last_prefill_ns(self) -> int:
        """When the latest prompt was done."""
        return self._group_ns

    def learn_prefill(self, tokens: float, span_ns: int) -> None:
        self.prefill_per_s.learn(tokens, span_ns / NS_PER_S)

    def learn_decode(self, tokens: float, span_ns: int) -> None:
        self.decode_per_s.learn(tokens, span_ns / NS_PER_S)
